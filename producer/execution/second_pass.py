"""The second pass: the vectors of `reference.parquet` are computed from the imagery once more, chip by chip.

The worker that makes a file computes them once the file is there, and keeps them in `.run/reference`. Chips go through
the model one at a time, so that a vector does not depend on which others a resumed run still has to compute.
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import EncoderError, ImageryError
from clay_publish.producer.encoders.base import Encoded
from clay_publish.producer.execution.context import Work
from clay_publish.producer.execution.unit import ahead, encode, examined, reading_of, shown_pixels
from clay_publish.producer.imagery.chips import ChipBlock
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.parts import read_parts
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import canonical_json
from clay_publish.release.geoparquet import write_table
from clay_publish.release.tables import chips_per_file, expected_chips, reference_chips, reference_schema, tolerance
from clay_publish.release.unit_receipts import UnitReceipt, unread_note

REFERENCE = "reference"
"""Name of the part of a reused unit that holds rows of the version before."""
FOLDER = f"{paths.RUN}/reference"
_ROWS, _CHIPS, _PARTS = b"rows", b"chips", b"parts"
"""Of a kept table: the rows of its embeddings file, the chosen chips, of which some may lack, and the hash of the parts
that the file was made of."""


@dataclass(frozen=True)
class _FileVectors:
    """The reference vectors of one embeddings file."""

    table: pa.Table
    rows: int
    """Of the embeddings file."""
    chips: tuple[str, ...]
    """Chosen ones, in the order of their hashes."""
    parts: str
    """SHA-256 of what the embeddings file was made of."""

    @classmethod
    def read(cls, release: Release, file: DataFile) -> "_FileVectors | None":
        """What was kept of a file, by this run or one before."""
        path = _path(file)
        if not release.store.exists(path):
            return None
        table = pa.ipc.open_file(pa.BufferReader(release.store.read(path))).read_all()
        metadata = table.schema.metadata
        chips = tuple(json.loads(metadata[_CHIPS]))
        return cls(table.replace_schema_metadata(None), int(metadata[_ROWS]), chips, metadata[_PARTS].decode())

    def write(self, release: Release, file: DataFile) -> None:
        """Keep it; it appears complete or not at all."""
        metadata = {_ROWS: str(self.rows), _CHIPS: json.dumps(self.chips), _PARTS: self.parts}
        buffer = io.BytesIO()
        table = self.table.replace_schema_metadata(metadata)
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
        release.store.write(_path(file), buffer.getvalue())

    def serves(self, rows: int, count: int) -> bool:
        """Whether it has all vectors of a file of so many rows that gives so many chips."""
        return self.rows == rows and len(self.table) == len(self.chips) >= min(rows, count)


def _path(file: DataFile) -> str:
    return f"{FOLDER}/{file.token}.arrow"


def keep_reference(
    file: DataFile, units: Iterable[Unit], receipts: Iterable[UnitReceipt], *, count: int, work: Work
) -> None:
    """Compute the reference vectors of a published file that are not there yet.

    Chips that were reused keep their rows. A chip whose imagery can no longer be read is left out, and tried again by
    the next run.

    Args:
        file: the embeddings file.
        units: that its rows are from.
        receipts: of these units.
        count: how many chips it gives.
        work: what the units need.

    Raises:
        EncoderError: a vector that was finite before is not.
        StoreError, ReleaseError: the file cannot be read, or nothing can be written.
    """
    release, schema = work.release, reference_schema(work.fingerprint.dimensions)
    ids = release.parquet(f"{paths.EMBEDDINGS}/{file.name}").read(["id"])["id"].to_pylist()
    receipts = list(receipts)
    entries = sorted((each.unit, each.parts[file.token].sha256) for each in receipts if file.token in each.parts)
    parts = hashlib.sha256(canonical_json(entries)).hexdigest()
    kept = _FileVectors.read(release, file)
    if kept is not None and kept.parts != parts:
        kept = None  # a unit was made again, perhaps from other images
    if kept is not None and kept.serves(len(ids), count):
        return
    chosen = reference_chips(ids, count)
    known = pa.concat_tables(
        [*([] if kept is None else [kept.table]), *read_parts(release, receipts, REFERENCE)] or [schema.empty_table()]
    )
    rows = {row["id"]: row for row in known.to_pylist() if row["id"] in chosen}
    missing = set(chosen) - rows.keys()
    notes = {each.unit: each.notes for each in receipts}
    for unit in units:
        for name, again in chips_again(unit, missing, work, notes[unit.id]) if missing else ():
            if isinstance(again, GapAgain):
                continue
            vector = again.encoded.embeddings[0]
            limit = tolerance(vector[None], work.fingerprint.dtype)[0]
            rows[name] = {"id": name, "embedding": vector, "tolerance": limit}
        missing -= rows.keys()
    table = pa.Table.from_pylist([rows[name] for name in chosen if name in rows], schema=schema)
    _FileVectors(table, len(ids), tuple(chosen), parts).write(release, file)


@dataclass(frozen=True)
class ChipAgain:
    """What the imagery and the model give for one chip, a second time."""

    encoded: Encoded
    """A batch of one."""
    pixels: npt.NDArray[np.float32]
    """[1, bands, side, side], normalized: what its thumbnail is drawn from."""
    valid_fraction: float
    cloud_fraction: float
    """NaN where there is no mask."""


@dataclass(frozen=True)
class GapAgain:
    """Why a chip is not embedded, a second time."""

    reason: str


def chips_again(
    unit: Unit, wanted: set[str], work: Work, notes: Collection[str] = ()
) -> Iterator[tuple[str, ChipAgain | GapAgain]]:
    """Some chips and gaps by id, as far as they are the unit's and its images can be read."""
    every = unit.missing("failed", "")
    if every is not None:
        mine = np.array([name in wanted for name in every.ids], dtype=bool)
        if not mine.any():
            return
        unit = unit.part(mine, {}, reused=False)
    unit, refused, _ = examined(unit, work)
    reading = reading_of(work, refused)
    try:
        for block in ahead(unit.read(reading), work.pace):
            if any(unread_note(name) not in notes for name in reading.damaged):
                return  # other images take the place of one that could be read then
            embedded = [n for n, reason in enumerate(block.reasons) if reason is None]
            yield from _gaps(block, wanted)
            for place, n in enumerate(embedded):
                if block.ids[n] in wanted:
                    pixels, own = block.pixels[place : place + 1], np.array([n])
                    encoded = encode(block, pixels, own, work)
                    if not np.isfinite(encoded.embeddings).all():
                        raise EncoderError(
                            f"chip {block.ids[n]}",
                            "has NaN or infinite values when it is computed again",
                            "the vector of the first pass",
                            "Check the machine's memory and accelerator.",
                        )
                    fractions = float(block.valid_fraction[n]), float(block.cloud_fraction[n])
                    yield block.ids[n], ChipAgain(encoded, shown_pixels(block, own, pixels), *fractions)
    except ImageryError:
        return  # what cannot be read any more is left out, and counted


def _gaps(block: ChipBlock, wanted: set[str]) -> Iterator[tuple[str, GapAgain]]:
    for name, reason in zip(block.ids, block.reasons, strict=True):
        if reason is not None and name in wanted:
            yield name, GapAgain(reason)


@dataclass(frozen=True)
class References:
    """The reference vectors of all files."""

    release: Release
    rows: Mapping[DataFile, int]
    """Of each embeddings file."""

    @classmethod
    def of(cls, release: Release) -> "References":
        """Those of the embeddings files that are there."""
        files = release.data_files()
        return cls(release, {DataFile.parse(path): release.parquet(path).metadata.num_rows for path in files})

    @property
    def count(self) -> int:
        """Chips that each file gives."""
        return chips_per_file(self.rows.values())

    def incomplete(self) -> list[DataFile]:
        """Files whose vectors are not all there."""
        kept = {file: _FileVectors.read(self.release, file) for file in self.rows}
        return [file for file, each in kept.items() if each is None or not each.serves(self.rows[file], self.count)]

    def publish(self, dimensions: int) -> tuple[int, int]:
        """Write `reference.parquet`; returns how many chips it should have, and how many are left out."""
        tables = [reference_schema(dimensions).empty_table()]
        for file in self.rows:
            kept = _FileVectors.read(self.release, file)
            if kept is not None:
                chosen = pa.array(kept.chips[: self.count], pa.string())
                tables.append(kept.table.filter(pc.is_in(kept.table["id"], chosen)))
        table = pa.concat_tables(tables).sort_by("id")
        write_table(self.release.store, paths.REFERENCE, table)
        expected = expected_chips(self.rows.values())
        return expected, expected - len(table)
