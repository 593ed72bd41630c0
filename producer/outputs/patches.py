"""The table of patch embeddings: partitions of their own, in the order of the chips in the embeddings files.

They outweigh everything else, so that they go to disk as they are made, and are put in order without being held.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.producer.encoders import Encoder
from clay_publish.producer.outputs.parts import PATCHES_PREFIX, part_path, quantize, read_parts
from clay_publish.producer.unit_plan import Plan
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import group_rows, table_writer
from clay_publish.release.metadata import footer_emb
from clay_publish.release.tables import ARROW_DTYPES, Dtype, hugging_face_features, patches_schema
from clay_publish.release.unit_receipts import PartEntry, UnitReceipt


def patches_token(token: str) -> str:
    """Name of the parts that hold the patches of a published file's chips."""
    return f"{PATCHES_PREFIX}{token}"


def stated_before(encoder: Encoder, size: int, dtype: Dtype) -> str:
    """What patches will take, for who starts a run: they outweigh the imagery they are made of."""
    width: int = ARROW_DTYPES[dtype].bit_width // 8
    stored = encoder.patches * encoder.dimensions * width
    pixels = size * size * len(encoder.bands) * 2  # nearly all imagery has two bytes per value
    return (
        f"patches: {encoder.patches} a chip, {stored / 1e6:.3g} MB a chip before compression,"
        f" {stored / pixels:.2g} times its pixels"
    )


class _Hashed:
    """A file that is hashed while it is written."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        """The store closes the file."""


@dataclass
class _Part:
    file: _Hashed
    writer: pa.ipc.RecordBatchFileWriter
    rows: int = 0


@dataclass
class PatchParts:
    """The patch parts of one unit, written as its chips are embedded. They appear when it is left without an error."""

    release: Release
    unit: str
    layers: tuple[int, ...]
    """Empty where the table has no layer column."""
    dtype: Dtype
    _stack: ExitStack = field(default_factory=ExitStack)
    _parts: dict[str, _Part] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, token: str, ids: list[str], patches: npt.NDArray[np.float32]) -> None:
        """Add chips of one published file: [chips, layers, rows, columns, D]."""
        chips, layers, rows, columns, dimensions = patches.shape
        schema = patches_schema(dimensions, self.dtype, layers=bool(self.layers))
        stored, scale = quantize(patches.reshape(-1, dimensions), self.dtype)
        each = rows * columns
        kind = schema.field("embedding").type
        values = {
            "chip_id": np.repeat(np.array(ids, dtype=object), layers * each),
            "layer": np.tile(np.repeat(np.array(self.layers, np.int32), each), chips),
            "patch_row": np.tile(np.repeat(np.arange(rows, dtype=np.int32), columns), chips * layers),
            "patch_col": np.tile(np.arange(columns, dtype=np.int32), chips * layers * rows),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1), kind.value_type), type=kind),
            "scale": scale,
        }
        arrays = [pa.array(values[f.name], f.type) for f in schema]
        part = self._part(patches_token(token), schema)
        part.writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        part.rows += len(stored)

    def _part(self, token: str, schema: pa.Schema) -> _Part:
        if token not in self._parts:
            file = _Hashed(self._stack.enter_context(self.release.store.writer(part_path(self.unit, token))))
            writer = self._stack.enter_context(pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema))
            self._parts[token] = _Part(file, writer)
        return self._parts[token]

    def entries(self) -> dict[str, PartEntry]:
        """What the receipt says of them, once they are written."""
        return {
            token: PartEntry(sha256=part.file.digest.hexdigest(), rows=part.rows) for token, part in self._parts.items()
        }


def publish_patches(release: Release, file: DataFile, receipts: Iterable[UnitReceipt], plan: Plan, gsd: float) -> bool:
    """Write the patches of a published embeddings file, in the order of its chips; False where there are none.

    Where a unit is done again after the file was published, its rows join or replace those that are there.
    """
    token, path = patches_token(file.token), f"{paths.PATCHES}/{file.name}"
    mine = [receipt for receipt in receipts if token in receipt.parts]
    there = [receipt for receipt in mine if release.store.exists(part_path(receipt.unit, token))]
    if not there:
        return False
    tables = read_parts(release, there, token)
    if len(there) < len(mine):
        tables.insert(0, release.parquet(path).read().replace_schema_metadata(None))
    places = {place.chip: place for place in chip_places(tables)}
    schema = tables[0].schema
    footer = {
        "emb": json.dumps(footer_emb(plan.fingerprint, gsd), sort_keys=True),
        "huggingface": json.dumps({"info": {"features": hugging_face_features(schema)}}),
    }
    chips = release.parquet(f"{paths.EMBEDDINGS}/{file.name}").read(columns=["id"])["id"].to_pylist()
    with table_writer(release.store, path, schema.with_metadata(footer), index="chip_id") as writer:
        most = group_rows(schema)
        for group in _groups([places[chip] for chip in chips], most):
            rows = pa.concat_tables(tables[p.table].slice(p.start, p.rows) for p in group).combine_chunks()
            writer.write_table(rows.replace_schema_metadata(footer), row_group_size=most)
    return True


@dataclass(frozen=True)
class PatchRows:
    """Where the patches of a chip lie."""

    chip: str
    table: int
    start: int
    rows: int


def chip_places(tables: list[pa.Table]) -> Iterator[PatchRows]:
    """The rows of a chip always lie together, though not always in one chunk."""
    for number, table in enumerate(tables):
        end = start = 0
        chip = ""
        for chunk in table["chip_id"].chunks:
            runs, first = pc.run_end_encode(chunk), end
            for name, run_end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                if name != chip and end > start:
                    yield PatchRows(chip, number, start, end - start)
                    start = end
                chip, end = name, first + run_end
        yield PatchRows(chip, number, start, end - start)


def _groups(places: list[PatchRows], most: int) -> Iterator[list[PatchRows]]:
    """Chips, so many that their patches fill a row group or less, and at least one."""
    group: list[PatchRows] = []
    rows = 0
    for place in places:
        if group and rows + place.rows > most:
            yield group
            group, rows = [], 0
        group.append(place)
        rows += place.rows
    if group:
        yield group
