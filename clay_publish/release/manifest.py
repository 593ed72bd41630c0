"""The manifest and SHA256SUMS: written last, over everything that is published."""

import hashlib
import importlib.metadata
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.array_store import MADE
from clay_publish.release.directory import Release, checked, fingerprint_in, footer_keys
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.format_version import FORMAT, check_format
from clay_publish.release.tables import expected_chips
from clay_publish.release.unit_receipts import read_receipts
from clay_publish.storage.store import Store

_CHUNK = 8 << 20
_FILES_AT_ONCE = 8
LIBRARIES = ("clay-publish", "numpy", "pyarrow", "rasterio", "shapely", "pyproj", "torch")
"""What decides the bytes of a release."""
ARRAY_LIBRARIES = ("numcodecs", "zarr")
"""What, beside these, decides the bytes of arrays."""
_ARROW = re.compile(r"parquet-cpp-arrow version (\S+)")
_OF_VECTORS = tuple(f"{folder}/" for folder in (paths.EMBEDDINGS, paths.PATCHES, paths.AGGREGATES))
UNITS = f"{paths.RUN}/units.json"
"""What a run was begun with."""
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
    """How the embeddings were made. Nothing here is measured: that is in `run.json`."""

    model_config = ConfigDict(frozen=True)

    fingerprint: Fingerprint
    plan_sha256: str
    libraries: dict[str, str]
    """Versions of what decides bytes."""
    coverage: dict[str, int]
    """Chips expected and embedded; then missing ones by reason."""
    notes: list[str] = []
    """What a reader should know of single images."""


class Manifest(BaseModel):
    """Every published file but the manifest itself and SHA256SUMS, and the record of the run."""

    model_config = ConfigDict(frozen=True)

    format: Literal[2]
    """Of the release, counted up with every change that a reader meets."""
    name: str
    version: str
    software: str
    run: RunRecord
    files: list[FileEntry]


def libraries() -> dict[str, str]:
    """Versions of what decides the bytes of a release."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def sha256(store: Store, path: str) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with store.ranges(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(release: Release) -> Manifest:
    """Read a release's manifest.

    Raises:
        ReleaseError: missing, or not a manifest.
    """
    document, where = release.json(paths.MANIFEST), release.store.path(paths.MANIFEST)
    check_format(document.get("format", 1), where)
    return checked(Manifest, document, where, "a manifest")


def run_record(release: Release) -> RunRecord:
    """How the embeddings were made: as the run wrote it down, else from its receipts, else from the manifest there is.

    Raises:
        ReleaseError: none of these is there.
    """
    if release.store.exists(RUN_RECORD):
        fix = "Run `clay-publish produce` again."
        return checked(RunRecord, release.json(RUN_RECORD), release.store.path(RUN_RECORD), "the record of a run", fix)
    if release.store.exists(UNITS):
        return derive_run_record(release)
    return read_manifest(release).run


class _Plan(BaseModel):
    """What a manifest takes of the plan of a run."""

    sha256: str
    fingerprint: Fingerprint
    libraries: dict[str, str] = {}
    units: list[str]


def derive_run_record(release: Release) -> RunRecord:
    """How the embeddings were made, from the plan, the receipts, and the footers of the files.

    Raises:
        ReleaseError: a unit has no receipt, a file is of another fingerprint, or the files don't hold what the receipts
            say.
    """
    fix = "Use another directory."
    plan = checked(_Plan, release.json(UNITS), release.store.path(UNITS), "the plan of a run", fix)
    found = read_receipts(release)
    missing = [unit for unit in plan.units if unit not in found]
    if missing:
        raise ReleaseError(
            release.store.where, f"has {len(missing)} units that are not done", fix="Run `clay-publish produce` again."
        )
    receipts = [found[unit] for unit in plan.units]
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update(receipt.counts)
    rows = [_rows(release, path, plan.fingerprint) or 0 for path in release.data_files()]
    if sum(rows) != counts["embedded"]:
        raise ReleaseError(
            release.store.where,
            f"has {sum(rows)} rows in its embeddings files",
            f"{counts['embedded']}, as the receipts of its units say",
            "Run `clay-publish produce` again.",
        )
    return RunRecord(
        fingerprint=plan.fingerprint,
        plan_sha256=plan.sha256,
        libraries=plan.libraries | _writer(release) | _array_libraries(release),
        coverage={"expected": sum(counts.values()), **dict(sorted(counts.items()))},
        notes=sorted({note for receipt in receipts for note in receipt.notes})
        + omitted_notes(rows, release.parquet(paths.REFERENCE).metadata.num_rows),
    )


def arrow_version(created_by: str | None) -> str | None:
    """The version of pyarrow that a Parquet footer names as its writer; None: another program wrote the file."""
    found = _ARROW.fullmatch(created_by or "")
    return None if found is None else found[1]


def _writer(release: Release) -> dict[str, str]:
    """What wrote the embeddings: a run may have gone on with another version than it began with."""
    first = next(iter(release.data_files()), None)
    version = None if first is None else arrow_version(release.parquet(first).metadata.created_by)
    return {} if version is None else {"pyarrow": version}


def _array_libraries(release: Release) -> dict[str, str]:
    """Versions of what decides the bytes of the arrays, where there are any."""
    if not release.store.exists(MADE):
        return {}
    return dict(release.json(MADE).get("libraries", {}))


def omitted_notes(rows: list[int], there: int) -> list[str]:
    """A note where `reference.parquet`, of so many rows, lacks chips of embeddings files of so many rows."""
    expected = expected_chips(rows)
    missing = expected - there
    if missing < 1:
        return []
    return [f"{missing:,} of {expected:,} reference vectors are left out, as their imagery cannot be read any more."]


def write_manifest(release: Release, software: str) -> Manifest:
    """Hash every published file and write `SHA256SUMS` and `manifest.json`, in this order.

    Rows and fingerprints are read from the files' own footers.

    Raises:
        ReleaseError: the release has no spec or no run yet, or holds a file of another fingerprint.
    """
    run = run_record(release)
    spec = release.spec()
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        files = list(pool.map(lambda path: _entry(release, path, run.fingerprint), release.published_files()))
    manifest = Manifest(format=FORMAT, name=spec.name, version=spec.version, software=software, run=run, files=files)
    sums = "".join(f"{entry.sha256}  {entry.path}\n" for entry in files)
    release.store.write(paths.SHA256SUMS, sums)
    document = manifest.model_dump(mode="json", exclude_none=True)
    document["run"]["fingerprint"] = run.fingerprint.model_dump(mode="json")  # here null says something
    release.store.write(paths.MANIFEST, dump_json(document))
    return manifest


def _entry(release: Release, path: str, fingerprint: Fingerprint) -> FileEntry:
    """A file as the manifest lists it."""
    rows = _rows(release, path, fingerprint)
    return FileEntry(path=path, size=release.store.size(path), sha256=sha256(release.store, path), rows=rows)


def _rows(release: Release, path: str, fingerprint: Fingerprint) -> int | None:
    """Rows of a table, whose vectors, where it has any, must be of this fingerprint; None: it is not a table."""
    if not path.endswith(".parquet"):
        return None
    file = release.parquet(path)
    if path.startswith(_OF_VECTORS):
        made = fingerprint_in(footer_keys(file.schema_arrow, release.store.path(path)), release.store.path(path))
        if made != fingerprint:
            raise ReleaseError(
                release.store.path(path),
                f"was made with another fingerprint ({'; '.join(fingerprint.differences(made))})",
                "that of the run",
                "Two never mix in one version: run `clay-publish produce` again, or remove the file.",
            )
    return int(file.metadata.num_rows)


def dump_json(document: Any, *, compact: bool = False) -> str:
    """JSON as every document of a release is written: indented or compact, UTF-8, a newline at the end."""
    indent, separators = (None, (",", ":")) if compact else (2, None)
    return json.dumps(document, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False) + "\n"
