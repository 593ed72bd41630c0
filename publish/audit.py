"""Compare every published version with what its host holds, both ways.

For a scheduled job: a published version never changes, so whatever differs is an accident or an attack.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from clay_publish.errors import ReleaseError, first_fault
from clay_publish.progress import Progress, Report, silent
from clay_publish.publish.bucket import Bucket
from clay_publish.publish.published_versions import versions
from clay_publish.publish.targets import bucket_at, hub_repository
from clay_publish.publish.version_catalog import LATEST, read_versions
from clay_publish.release import directory as paths
from clay_publish.release.format_version import check_format
from clay_publish.release.manifest import Manifest
from clay_publish.release.versions import CATALOG, report_name
from clay_publish.storage.address import SEMVER

if TYPE_CHECKING:
    from clay_publish.publish.hub.repository import HubRepository


class AuditFault(BaseModel):
    """One difference between what was published and what the host holds."""

    model_config = ConfigDict(frozen=True)

    place: str
    """Version and path, or the document at the root."""
    fault: str
    """`missing`, `surplus`, `changed`, `inconsistent`, `unfinished` where a version is being published or its
    publication was interrupted, or `unchecked` where the version is of another format."""
    detail: str = ""


class AuditReport(BaseModel):
    """What an audit found."""

    model_config = ConfigDict(frozen=True)

    place: str
    versions: list[str]
    files: int
    """Files that were compared."""
    faults: list[AuditFault]


def audit(where: str, *, quick: bool = False, report: Report = silent) -> AuditReport:
    """Compare all published versions with the host: presence, sizes, checksums, catalog and pointers.

    Args:
        where: the place, as for `publish`.
        quick: compare names and sizes only. Else every byte is read where the host keeps no SHA-256.
        report: receives the progress, version by version.

    Raises:
        PublishError: nothing is published there, or the place cannot be asked.
    """
    known = versions(where)
    names = [version.version for version in known.versions]
    faults: list[AuditFault] = []
    files = 0
    repository = hub_repository(where)
    if repository is not None:
        for number, name in enumerate(names, 1):
            count, found = _tag(repository, name, quick=quick)
            files, faults = files + count, faults + found
            report(Progress("audit", number, len(names), name, unit="versions"))
        return AuditReport(place=where, versions=names, files=files, faults=faults)
    with closing(bucket_at(where)) as bucket:
        faults += _pointers(bucket, known.latest)
        for number, version in enumerate(known.versions, 1):
            count, found = _version(bucket, version.version, version.manifest_sha256, quick=quick)
            files, faults = files + count, faults + found
            report(Progress("audit", number, len(names), version.version, unit="versions"))
        faults += _unlisted(bucket, set(names))
    return AuditReport(place=where, versions=names, files=files, faults=faults)


def _unlisted(bucket: Bucket, names: set[str]) -> Iterator[AuditFault]:
    """Folders of versions that the catalog does not list: being published, interrupted publications, or not ours."""
    folders = {path.partition("/")[0] for path in bucket.listing("") if "/" in path}
    for folder in sorted(folder for folder in folders - names if SEMVER.fullmatch(folder)):
        there = bucket.listing(folder)
        sums = bucket.read(f"{folder}/{paths.SHA256SUMS}") if paths.MANIFEST not in there else None
        if sums is None or paths.SHA256SUMS not in there:
            yield AuditFault(place=f"{folder}/", fault="surplus", detail=f"not listed in {CATALOG}")
            continue
        begun, last = there[paths.SHA256SUMS].written, max(stored.written for stored in there.values())
        detail = (
            f"being published since {begun:%Y-%m-%dT%H:%M:%SZ}, or interrupted: {len(there):,} of "
            f"{len(sums[0].splitlines()) + 2:,} files are there, the last since {last:%Y-%m-%dT%H:%M:%SZ}. "
            "Publish it again to complete it"
        )
        yield AuditFault(place=f"{folder}/", fault="unfinished", detail=detail)


def _parse_manifest(data: bytes, place: str) -> Manifest | AuditFault:
    """A manifest, or what is wrong with it."""
    try:
        document = json.loads(data)
        check_format(document.get("format", 1) if isinstance(document, dict) else None, place)
        return Manifest.model_validate(document)
    except ReleaseError as error:
        return AuditFault(place=place, fault="unchecked", detail=str(error))
    except ValidationError as error:
        return AuditFault(place=place, fault="changed", detail=f"not a manifest ({first_fault(error)})")
    except (ValueError, RecursionError) as error:
        return AuditFault(place=place, fault="changed", detail=f"not a manifest ({' '.join(str(error).split())[:200]})")


def _pointers(bucket: Bucket, latest: str | None) -> Iterator[AuditFault]:
    there = read_versions(bucket)
    if there is None:
        yield AuditFault(place=CATALOG, fault="missing")
    pointer = bucket.read(LATEST)
    if latest is None:
        return
    if pointer is None:
        yield AuditFault(place=LATEST, fault="missing")
        return
    try:
        said = json.loads(pointer[0])["version"]
    except (ValueError, KeyError, TypeError):
        yield AuditFault(place=LATEST, fault="changed", detail="not a pointer to a version")
        return
    if said != latest:
        yield AuditFault(place=LATEST, fault="inconsistent", detail=f"points to {said}; the catalog says {latest}")


def _version(bucket: Bucket, version: str, manifest_sha256: str | None, *, quick: bool) -> tuple[int, list[AuditFault]]:
    listed = bucket.listing(version)
    document = bucket.read(f"{version}/{paths.MANIFEST}")
    if document is None:
        return 0, [AuditFault(place=f"{version}/{paths.MANIFEST}", fault="missing")]
    faults = []
    if manifest_sha256 is not None and hashlib.sha256(document[0]).hexdigest() != manifest_sha256:
        faults.append(
            AuditFault(place=f"{version}/{paths.MANIFEST}", fault="changed", detail=f"{CATALOG} has another SHA-256")
        )
    manifest = _parse_manifest(document[0], f"{version}/{paths.MANIFEST}")
    if isinstance(manifest, AuditFault):
        return 0, [*faults, manifest]
    faults += _report(bucket, version, manifest_sha256)
    for entry in manifest.files:
        place, stored = f"{version}/{entry.path}", listed.get(entry.path)
        if stored is None:
            faults.append(AuditFault(place=place, fault="missing"))
        elif stored.size != entry.size:
            faults.append(
                AuditFault(place=place, fault="changed", detail=f"{stored.size:,} bytes (expected {entry.size:,})")
            )
        elif not quick and not bucket.same(version, None, entry, stored, full=False):
            faults.append(AuditFault(place=place, fault="changed", detail="another SHA-256"))
    return len(manifest.files), [*faults, *_unexpected(version, manifest, set(listed))]


def _report(bucket: Bucket, version: str, manifest_sha256: str | None) -> Iterator[AuditFault]:
    """Whether the validation report beside a version is about its manifest."""
    name = report_name(version)
    found = bucket.read(name)
    if found is None:
        return
    try:
        said = json.loads(found[0])["manifest_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        yield AuditFault(place=name, fault="changed", detail="not a validation report of a published version")
        return
    if manifest_sha256 is not None and said != manifest_sha256:
        yield AuditFault(place=name, fault="inconsistent", detail=f"is about another {paths.MANIFEST}")


def _tag(repository: "HubRepository", version: str, *, quick: bool) -> tuple[int, list[AuditFault]]:
    """Number of files compared, and the differences. The Hub keeps a SHA-256 of large files; small ones are read."""
    from clay_publish.publish.hub.root import of_host, store_of  # noqa: PLC0415 - slow to import

    tag = f"v{version}"
    there = repository.files(tag)
    place = f"{version}/{paths.MANIFEST}"
    if paths.MANIFEST not in there:
        return 0, [AuditFault(place=place, fault="missing")]
    store = store_of(repository, tag)
    manifest = _parse_manifest(store.read(paths.MANIFEST, paths.MAX_DOCUMENT), place)
    if isinstance(manifest, AuditFault):
        return 0, [manifest]
    faults = []
    for entry in manifest.files:
        where, file = f"{version}/{entry.path}", there.get(entry.path)
        if file is None:
            faults.append(AuditFault(place=where, fault="missing"))
            continue
        if file.size != entry.size:
            detail = f"{file.size:,} bytes (expected {entry.size:,})"
            faults.append(AuditFault(place=where, fault="changed", detail=detail))
            continue
        if file.lfs is not None:
            digest = file.lfs.sha256
        else:
            digest = entry.sha256 if quick else hashlib.sha256(store.read(entry.path)).hexdigest()
        if digest != entry.sha256:
            faults.append(AuditFault(place=where, fault="changed", detail="another SHA-256"))
    listed = {path for path in there if not of_host(path)}
    return len(manifest.files), [*faults, *_unexpected(version, manifest, listed)]


def _unexpected(version: str, manifest: Manifest, listed: set[str]) -> list[AuditFault]:
    """Files that no manifest names, and a list of checksums that is not there."""
    expected = {entry.path for entry in manifest.files} | {paths.MANIFEST, paths.SHA256SUMS}
    faults = [AuditFault(place=f"{version}/{path}", fault="surplus") for path in sorted(listed - expected)]
    if paths.SHA256SUMS not in listed:
        faults.append(AuditFault(place=f"{version}/{paths.SHA256SUMS}", fault="missing"))
    return faults
