"""The root of a repository on the Hub: always the newest version that is not yanked.

`load_dataset(repository)` reads the root, so an older version that is published later gets a tag and nothing else, and
yanking the newest version moves the root to the one before. The reasons for yanking are in `yanked.json` at the root,
and on the root's card; the tags of versions, and their bytes, never change.
"""

import json
import re

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile

from clay_publish.errors import PublishError
from clay_publish.publish.hub.repository import MAIN, HubRepository, Refs
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import Manifest, dump_json, read_manifest
from clay_publish.release.versions import REPORT, PublishedVersion, Version, Versions
from clay_publish.storage.address import SEMVER
from clay_publish.storage.store import Store

YANKED = "yanked.json"
VERSION_TAG = re.compile(f"v({SEMVER.pattern})")
_YANKED_TAG = "-yanked"
_NOTICE = re.compile(r"<!-- yanked -->\n.*?<!-- /yanked -->\n\n?", re.DOTALL)


def of_host(path: str) -> bool:
    """Whether a file at the root belongs to no version."""
    return path in {".gitattributes", YANKED} or REPORT.fullmatch(path) is not None


def store_of(repository: HubRepository, revision: str) -> Store:
    """The files of a revision."""
    return Store(f"hf://datasets/{repository.name}@{revision}")


def hub_versions(repository: HubRepository) -> Versions:
    """The published versions: tags such as `v1.0.0`. Other tags are ignored.

    Raises:
        PublishError: the repository does not exist.
    """
    refs = repository.refs()
    if refs is None:
        raise PublishError(repository.where, "does not exist, or this account may not see it")
    return _versions(repository, refs)


def _versions(repository: HubRepository, refs: Refs) -> Versions:
    named = [v[1] for tag in refs.tags if (v := VERSION_TAG.fullmatch(tag)) and not tag.endswith(_YANKED_TAG)]
    reasons = _reasons(repository, refs) if any(tag.endswith(_YANKED_TAG) for tag in refs.tags) else {}
    found = Versions(name=repository.name, title=repository.name, versions=[])
    for name in named:
        marked = f"v{name}{_YANKED_TAG}" in refs.tags
        reason = reasons.get(name, "no reason recorded") if marked else None
        found = found.with_version(PublishedVersion(version=name, yanked=reason))
    return found


def _reasons(repository: HubRepository, refs: Refs) -> dict[str, str]:
    store = store_of(repository, refs.head)
    if not store.exists(YANKED):
        return {}
    document = json.loads(store.read(YANKED, paths.MAX_DOCUMENT))
    return {str(version): str(reason) for version, reason in document.items()}


def yank_on_hub(repository: HubRepository, version: str, reason: str | None) -> Versions:
    """Yank a version with a second tag, whose message is the reason; with None, undo that. A first reason stays."""
    refs = repository.refs()
    if refs is None:
        raise PublishError(repository.where, "does not exist, or this account may not see it")
    tag, mark = f"v{version}", f"v{version}{_YANKED_TAG}"
    reasons = _reasons(repository, refs)
    if reason is None:
        reasons.pop(version, None)
        if mark in refs.tags:
            repository.untag(mark)
    else:
        reasons.setdefault(version, reason)
        if mark not in refs.tags:
            repository.tag(mark, refs.tags[tag], reasons[version])
    return sync_root(repository, reasons)


def sync_root(repository: HubRepository, reasons: dict[str, str] | None = None) -> Versions:
    """Make the root the newest version that is not yanked, with a notice of those that are; the versions."""
    refs = repository.refs()
    if refs is None:
        raise PublishError(repository.where, "does not exist, or this account may not see it")
    reasons = _reasons(repository, refs) if reasons is None else reasons
    found = _versions(repository, refs)
    found = found.model_copy(
        update={
            "versions": [
                v.model_copy(update={"yanked": reasons.get(v.version, v.yanked)}) if v.yanked else v
                for v in found.versions
            ]
        }
    )
    newest = found.latest or max((v.version for v in found.versions), key=Version.parse, default=None)
    if newest is None:
        return found
    operations = _difference(repository, refs, refs.tags[f"v{newest}"], reasons)
    if operations:
        message = f"The root is version {newest}"
        repository.commit(operations, message=message, description="", revision=MAIN, parent=refs.head)
    return found


def _difference(
    repository: HubRepository, refs: Refs, commit: str, reasons: dict[str, str]
) -> list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete]:
    """What turns the root into the files of a commit, with the notices."""
    there, wanted = repository.files(refs.head), repository.files(commit)
    made: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = []
    for path, file in wanted.items():
        if of_host(path) or path == paths.CARD or _same(there.get(path), file):
            continue
        made.append(CommitOperationCopy(path, path, src_revision=commit))
    before = named_paths(repository, refs.head, there)
    made += [CommitOperationDelete(path) for path in there if path in before and path not in wanted]
    if paths.CARD in wanted:
        card = with_notices(store_of(repository, commit).read(paths.CARD).decode(), reasons).encode()
        if paths.CARD not in there or store_of(repository, refs.head).read(paths.CARD) != card:
            made.append(CommitOperationAdd(paths.CARD, card))
    listed = dump_json(reasons).encode() if reasons else None
    known = store_of(repository, refs.head).read(YANKED) if YANKED in there else None
    if listed is not None and listed != known:
        made.append(CommitOperationAdd(YANKED, listed))
    elif listed is None and known is not None:
        made.append(CommitOperationDelete(YANKED))
    return made


def _same(one: RepoFile | None, other: RepoFile) -> bool:
    return one is not None and (one.size, one.blob_id) == (other.size, other.blob_id)


def named_paths(repository: HubRepository, revision: str, there: dict[str, RepoFile]) -> frozenset[str]:
    """Files at a revision that its manifest names: only these may be replaced or deleted."""
    if paths.MANIFEST not in there:
        return frozenset()
    named = {entry.path for entry in manifest_at(repository, revision).files}
    return frozenset(named | {paths.MANIFEST, paths.SHA256SUMS})


def manifest_at(repository: HubRepository, revision: str) -> Manifest:
    """The manifest of a revision.

    Raises:
        ReleaseError: it is not one of this format.
    """
    return read_manifest(Release(store_of(repository, revision)))


def with_notices(card: str, reasons: dict[str, str]) -> str:
    """A card that says, below its front matter, which versions were yanked and why."""
    card = _NOTICE.sub("", card)
    if not reasons:
        return card
    newest_first = sorted(reasons, key=Version.parse, reverse=True)
    lines = [f"> **Version {version} was yanked:** {' '.join(reasons[version].split())}\n" for version in newest_first]
    notice = "<!-- yanked -->\n" + ">\n".join(lines) + "<!-- /yanked -->\n\n"
    front = re.match(r"---\n.*?\n---\n+", card, re.DOTALL)
    end = front.end() if front else 0
    return card[:end] + notice + card[end:]
