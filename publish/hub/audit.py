"""Compare a version's tag on the Hugging Face Hub with its manifest."""

import hashlib

from clay_publish.publish.audit import AuditFault, parse_manifest, unexpected
from clay_publish.publish.hub.repository import HubRepository
from clay_publish.publish.hub.root import HOST_OWNED, store_of
from clay_publish.release import directory as paths


def audit_tag(repository: HubRepository, version: str, *, quick: bool) -> tuple[int, list[AuditFault]]:
    """Number of files compared, and the differences. The Hub keeps a SHA-256 of large files; small ones are read."""
    tag = f"v{version}"
    there = repository.files(tag)
    place = f"{version}/{paths.MANIFEST}"
    if paths.MANIFEST not in there:
        return 0, [AuditFault(place=place, fault="missing")]
    store = store_of(repository, tag)
    manifest = parse_manifest(store.read(paths.MANIFEST, paths.MAX_DOCUMENT), place)
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
    return len(manifest.files), [*faults, *unexpected(version, manifest, set(there) - HOST_OWNED)]
