"""What units leave in `.run/`: parts, and the receipt that says a unit is done."""

import hashlib
import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from clay_publish import release as paths
from clay_publish.errors import ReleaseError
from clay_publish.manifest import dump_json, sha256
from clay_publish.release import DataFile, Release

PARTS = f"{paths.RUN}/parts"
RECEIPTS = f"{paths.RUN}/receipts"
COVERAGE = "coverage"
"""Name of a unit's part that holds its coverage rows."""


class PartEntry(BaseModel):
    """One part."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    rows: int


class Receipt(BaseModel):
    """What a finished unit did."""

    model_config = ConfigDict(frozen=True)

    unit: str
    items: list[str]
    parts: dict[str, PartEntry]
    """By token of the published file; `coverage` for the coverage rows."""
    counts: dict[str, int]
    """Chips by `embedded` or by reason."""
    seconds: float
    device: str
    error: str | None = None
    """Why none of its chips could be made."""
    notes: list[str] = []
    """What a reader of the release should know of its images."""


def part_path(unit: str, token: str) -> str:
    """Where a part lies: by published file, so that all parts of a file lie together."""
    return f"{PARTS}/{token}/{unit}.arrow"


def write_part(release: Release, unit: str, token: str, tables: Iterable[pa.Table]) -> PartEntry:
    """Write rows as an Arrow file; it appears complete or not at all."""
    table = pa.concat_tables(tables).combine_chunks()
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest()
    release.store.write(part_path(unit, token), bytes(data))
    return PartEntry(sha256=digest, rows=table.num_rows)


def read_part(release: Release, receipt: Receipt, token: str) -> pa.Table:
    """Rows of a part, memory-mapped where that is possible.

    Raises:
        ReleaseError: it is not what the receipt says.
    """
    path = part_path(receipt.unit, token)
    entry = receipt.parts[token]
    buffer = release.store.arrow(path).read_buffer()
    if hashlib.sha256(memoryview(buffer)).hexdigest() != entry.sha256:
        raise ReleaseError(
            release.store.path(path),
            "is damaged",
            f"SHA-256 {entry.sha256}",
            "Run it again; what is damaged is made anew.",
        )
    return pa.ipc.open_file(buffer).read_all()


def part_is_whole(release: Release, receipt: Receipt, token: str) -> bool:
    """Whether a part that is there holds what its receipt says."""
    return sha256(release.store, part_path(receipt.unit, token)) == receipt.parts[token].sha256


def file_of(token: str) -> DataFile | None:
    """The published file whose rows a part holds; None for the other parts of a unit."""
    try:
        return DataFile.parse(f"zone={token[:2]}/{token}.parquet")
    except ReleaseError:
        return None


def write_receipt(release: Release, receipt: Receipt) -> None:
    """From now on the unit is done."""
    release.store.write(f"{RECEIPTS}/{receipt.unit}.json", dump_json(receipt.model_dump(mode="json")))


def read_receipts(release: Release) -> dict[str, Receipt]:
    """Receipts by unit.

    Raises:
        ReleaseError: a receipt cannot be read.
    """
    found = {}
    for path in release.store.files(RECEIPTS):
        try:
            document: Any = json.loads(release.store.read(path))
            receipt = Receipt.model_validate(document)
        except ValueError as error:
            raise ReleaseError(
                release.store.path(path), f"is no receipt ({error})", fix="Remove it; the unit is done again."
            ) from error
        found[receipt.unit] = receipt
    return found
