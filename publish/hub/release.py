"""One version into a dataset repository on the Hugging Face Hub.

The root of the repository is the version: `load_dataset(repository, revision="v1.0.0")` works. The bytes of large
files are sent first and are invisible; one commit on top of the one that was seen makes all of it visible at once; a
tag makes it permanent. Where one commit cannot hold it, a pull request gathers several, and its merge is the moment.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from clay_publish.errors import PublishError
from clay_publish.progress import Progress, Report
from clay_publish.publish.hub.repository import MAIN, HubRepository, Refs, RefusedError, same, upload
from clay_publish.publish.hub.root import VERSION_TAG, manifest_at, named_paths, of_host, store_of, sync_root
from clay_publish.publish.package import Package, PublishReceipt
from clay_publish.publish.preflight import check_token
from clay_publish.release import directory as paths
from clay_publish.release.manifest import FileEntry, sha256
from clay_publish.release.versions import Version, report_name

_FILES_A_FOLDER = 10_000
_FILES_A_REPOSITORY = 100_000
_FILES_A_COMMIT = 25_000
_ORDINARY_BYTES = 1_000_000_000
_USUAL_RATE = 20e6


@dataclass(frozen=True)
class UploadPlan:
    """The difference between a revision and a release."""

    add: list[FileEntry]
    delete: list[str]
    """What the version before had and this one has not."""
    unknown: list[str]
    """What no manifest names; left alone."""


def publish_to_hub(
    repository: HubRepository,
    package: Package,
    target: str,
    *,
    create: bool,
    dry_run: bool,
    full: bool,
    report: Report,
) -> PublishReceipt:
    """Publish one version, or find that it is there already.

    Raises:
        PublishError: other bytes are published under this version, the Hub's limits are exceeded, or the received
            bytes differ from those sent.
    """
    begun = time.monotonic()
    _check_limits(package)
    tag = f"v{package.version}"
    refs = repository.refs()
    if refs is None and not create:
        raise PublishError(
            repository.where, "does not exist, or this account may not see it", fix="--create makes a public one."
        )
    if refs is None and not dry_run:
        refs = repository.create()
    tagged = refs.tags.get(tag) if refs else None
    revision = tagged or (refs.head if refs else None)
    plan = _plan(repository, package, revision)
    if revision and not tagged:
        _check_product(repository, package, revision, plan)
    if tagged and (plan.add or plan.delete):
        wrong = [*(entry.path for entry in plan.add), *plan.delete]
        raise PublishError(
            f"{repository.where} {tag}",
            f"holds other bytes ({', '.join(wrong[:3])})",
            f"those of {package.release.store.where}",
            "A version never changes: publish what is different under another version.",
        )
    receipt = PublishReceipt(
        target=target,
        where=f"{repository.where}/tree/{tag}",
        web=f"{repository.where}/tree/{tag}",
        name=package.manifest.name,
        version=package.version,
        state="unchanged" if tagged else "dry run",
        files=len(package.files),
        size=sum(entry.size for entry in package.files),
        sent=[entry.path for entry in plan.add],
        sent_bytes=sum(entry.size for entry in plan.add),
        sent_counts="whole files",
        unknown=plan.unknown,
        seconds=sum(entry.size for entry in plan.add) / _USUAL_RATE,
        commit=tagged,
    )
    if dry_run or refs is None:
        return receipt.model_copy(update={"state": "dry run", "checked": check_token(repository)})
    commit = tagged or _send(repository, package, plan, refs, report)
    _verify(repository, package, commit, full=full, report=report)
    if not tagged:
        _tag(repository, package, tag, commit)
        if _aside(package) in repository.branches():
            repository.delete_branch(_aside(package))
    sync_root(repository)
    return receipt.model_copy(
        update={
            "state": "unchanged" if tagged else "published",
            "verified": "full" if full else "checksums",
            "commit": commit,
            "seconds": round(time.monotonic() - begun, 3),
        }
    )


def _plan(repository: HubRepository, package: Package, revision: str | None) -> UploadPlan:
    if revision is None:
        return UploadPlan(list(package.files), [], [])
    there = repository.files(revision)
    ours = {entry.path for entry in package.files}
    add = [e for e in package.files if e.path not in there or not same(package, e, there[e.path])]
    others = [path for path in there if path not in ours and not of_host(path)]
    before = named_paths(repository, revision, there) if others else frozenset()
    return UploadPlan(add, [p for p in others if p in before], [p for p in others if p not in before])


def _send(repository: HubRepository, package: Package, plan: UploadPlan, refs: Refs, report: Report) -> str:
    """Make the version visible; its commit."""
    if _is_older(refs, package.version):
        return _send_aside(repository, package, refs, report)
    if not (plan.add or plan.delete):
        return refs.head  # an earlier attempt stopped between the commit and the tag
    if len(plan.add) > _FILES_A_COMMIT:
        return _send_in_pieces(repository, package, refs, report)
    operations = upload(repository, package, plan.add, MAIN, report)
    operations += [CommitOperationDelete(path) for path in plan.delete]
    return _commit(repository, package, operations, MAIN, refs.head)


def _is_older(refs: Refs, version: str) -> bool:
    """Whether a newer version is published: then the root stays as it is."""
    mine = Version.parse(version)
    return any(Version.parse(found[1]) > mine for tag in refs.tags if (found := VERSION_TAG.fullmatch(tag)))


def _aside(package: Package) -> str:
    """The branch that carries an older version until it is tagged."""
    return f"publish-{package.version}"


def _send_aside(repository: HubRepository, package: Package, refs: Refs, report: Report) -> str:
    """Commit an older version to a branch of its own; its commit."""
    branch = _aside(package)
    repository.branch(branch, refs.head)
    plan = _plan(repository, package, branch)
    for start in range(0, len(plan.add), _FILES_A_COMMIT):
        piece = plan.add[start : start + _FILES_A_COMMIT]
        operations = upload(repository, package, piece, branch, report)
        if start == 0:
            operations += [CommitOperationDelete(path) for path in plan.delete]
        _commit(repository, package, operations, branch, repository.head(branch))
    return repository.head(branch)


def _check_product(repository: HubRepository, package: Package, revision: str, plan: UploadPlan) -> None:
    """Refuse a repository that holds something else.

    Raises:
        PublishError: its root is another release, or files of this release would replace files of another publisher.
    """
    there = repository.files(revision)
    if paths.MANIFEST in there:
        theirs = manifest_at(repository, revision).name
        if theirs != package.manifest.name:
            raise PublishError(
                repository.where, f"holds the release {theirs}", package.manifest.name, "Use another repository."
            )
        return
    replaced = [entry.path for entry in plan.add if entry.path in there and entry.path != paths.CARD]
    if replaced:
        raise PublishError(
            repository.where,
            f"holds files of other origin ({', '.join(replaced[:3])})",
            "an empty repository, or one that holds this release",
            "Use another repository.",
        )


def _send_in_pieces(repository: HubRepository, package: Package, refs: Refs, report: Report) -> str:
    """Through a pull request, which an earlier attempt may have begun."""
    number = repository.open_pull_request(f"Publish {package.manifest.name} {package.version}")
    branch = f"refs/pr/{number}"
    plan = _plan(repository, package, branch)
    for start in range(0, len(plan.add), _FILES_A_COMMIT):
        piece = plan.add[start : start + _FILES_A_COMMIT]
        operations = upload(repository, package, piece, branch, report)
        if start == 0:
            operations += [CommitOperationDelete(path) for path in plan.delete]
        _commit(repository, package, operations, branch, repository.head(branch))
    _expect(repository, package, branch)
    moved = repository.refs()
    if moved is None or moved.head != refs.head:
        raise PublishError(repository.where, "was changed by another publisher meanwhile", fix="Rerun the command.")
    repository.merge(number)
    merged = repository.refs()
    if merged is None:
        raise PublishError(repository.where, "is gone")
    return merged.head


def _commit(
    repository: HubRepository,
    package: Package,
    operations: Sequence[CommitOperationAdd | CommitOperationDelete],
    revision: str,
    parent: str,
) -> str:
    operations = [*operations, CommitOperationAdd(report_name(package.version), package.report())]
    description = f"manifest.json: SHA-256 {package.closing.sha256}"
    if package.notes:
        description += f"\n\n{package.notes}"
    message = f"{package.manifest.name} {package.version}"
    try:
        return repository.commit(operations, message=message, description=description, revision=revision, parent=parent)
    except RefusedError as error:
        # The answer may have been lost after the commit was made: then what is there now is what was to be there.
        plan = _plan(repository, package, revision)
        head = repository.refs()
        if revision == MAIN and head is not None and not plan.add and not plan.delete:
            return head.head
        raise PublishError(
            repository.where,
            f"was changed by another publisher, or did not answer ({error.found})",
            f"{parent} as the newest commit",
            "Look at what is there now, then run the command again: what has arrived is not sent again.",
        ) from error


def _tag(repository: HubRepository, package: Package, tag: str, commit: str) -> None:
    message = f"{package.manifest.name} {package.version}" + (f"\n\n{package.notes}" if package.notes else "")
    try:
        repository.tag(tag, commit, message)
    except RefusedError as error:
        refs = repository.refs()
        there = refs.tags.get(tag) if refs else None
        plan = _plan(repository, package, there) if there else None
        if plan is None or plan.add or plan.delete:
            raise PublishError(f"{repository.where} {tag}", error.found, "a version tagged only here") from error


def _expect(repository: HubRepository, package: Package, revision: str) -> None:
    plan = _plan(repository, package, revision)
    wrong = [*(entry.path for entry in plan.add), *plan.delete]
    if wrong:
        raise PublishError(
            f"{repository.where} {revision}",
            f"does not hold what was sent ({', '.join(wrong[:3])})",
            fix="Run the command again.",
        )


def _verify(repository: HubRepository, package: Package, commit: str, *, full: bool, report: Report) -> None:
    """Compare the commit with the manifest; with `full`, by reading every byte back."""
    _expect(repository, package, commit)
    for number, entry in enumerate(package.files if full else [], 1):
        if sha256(store_of(repository, commit), entry.path) != entry.sha256:
            raise PublishError(f"{repository.where} {commit}", f"{entry.path} came back as other bytes")
        report(Progress("verify", number, len(package.files), entry.path, unit="files"))


def _check_limits(package: Package) -> None:
    folders = Counter(entry.path.rpartition("/")[0] for entry in package.files)
    crowded, most = folders.most_common(1)[0]
    if most > _FILES_A_FOLDER:
        raise PublishError(f"{crowded}/", f"holds {most} files", f"at most {_FILES_A_FOLDER} a folder on the Hub")
    if len(package.files) >= _FILES_A_REPOSITORY:
        raise PublishError(
            package.release.store.where,
            f"has {len(package.files)} files",
            f"less than {_FILES_A_REPOSITORY} on the Hub",
        )
    ordinary = sum(entry.size for entry in package.documents)
    if ordinary > _ORDINARY_BYTES:
        raise PublishError(
            package.release.store.where, f"has {ordinary} bytes of documents", f"at most {_ORDINARY_BYTES} on the Hub"
        )
