"""The manifest and SHA256SUMS: written last, over everything that is published."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from clay_publish import release as paths
from clay_publish.errors import ReleaseError
from clay_publish.fingerprint import Fingerprint
from clay_publish.release import Release
from clay_publish.store import Store

_CHUNK = 1 << 20
RUN_RECORD = f"{paths.RUN}/run.json"
"""What `produce` knows about the run and the manifest publishes."""


class FileEntry(BaseModel):
    """One published file."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    sha256: str
    rows: int | None = None


class RunRecord(BaseModel):
    """How the embeddings were made."""

    model_config = ConfigDict(frozen=True)

    fingerprint: Fingerprint
    plan_sha256: str
    libraries: dict[str, str]
    """Versions of what decides bytes."""
    coverage: dict[str, int]
    """Chips expected and embedded; then missing ones by reason."""
    seconds: float
    """Wall time of the units, summed."""
    device: str
    notes: list[str] = []
    """What a reader should know of single images."""
    usd: float | None = None
    energy_kwh: float | None = None
    units: list[str] = []
    """Ids of the units that were made, for the version after to take over: hashes of all that decides their rows."""


class Manifest(BaseModel):
    """Every published file but the manifest itself and SHA256SUMS, and the record of the run."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    software: str
    run: RunRecord
    files: list[FileEntry]


def sha256(store: Store, path: str) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with store.open(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(release: Release) -> Manifest:
    """Read a release's manifest.

    Raises:
        ReleaseError: missing, or not a manifest.
    """
    document = release.json(paths.MANIFEST)
    try:
        return Manifest.model_validate(document)
    except ValueError as error:
        raise ReleaseError(release.store.path(paths.MANIFEST), f"is no manifest ({error})") from error


def run_record(release: Release) -> RunRecord:
    """How the embeddings were made: from this machine's run, else from the manifest there is.

    Raises:
        ReleaseError: neither is there.
    """
    if release.store.exists(RUN_RECORD):
        return RunRecord.model_validate(release.json(RUN_RECORD))
    return read_manifest(release).run


def write_manifest(release: Release, software: str) -> Manifest:
    """Hash every published file and write `SHA256SUMS` and `manifest.json`, in this order.

    Raises:
        ReleaseError: the release has no spec or no run yet.
    """
    run = run_record(release)
    spec = release.spec()
    files = []
    for path in release.published_files():
        rows = release.parquet(path).metadata.num_rows if path.endswith(".parquet") else None
        files.append(FileEntry(path=path, size=release.store.size(path), sha256=sha256(release.store, path), rows=rows))
    manifest = Manifest(name=spec.name, version=spec.version, software=software, run=run, files=files)
    sums = "".join(f"{entry.sha256}  {entry.path}\n" for entry in files)
    release.store.write(paths.SHA256SUMS, sums)
    document = manifest.model_dump(mode="json", exclude_none=True)
    document["run"]["fingerprint"] = run.fingerprint.model_dump(mode="json")  # here null says something
    release.store.write(paths.MANIFEST, dump_json(document))
    return manifest


def dump_json(document: Any) -> str:
    """JSON as every document of a release is written: indented, UTF-8, a newline at the end."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
