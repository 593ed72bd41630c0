"""`arrays/arrays.zarr`: each shard of a zone and window, from the files and the coverage of the units that it overlaps.

Cells do not divide the 100 km squares of the embeddings files, so a shard is assembled once the files that hold its
chips are published: by any worker, in any order, while other units are made. Its receipt is written last. The metadata
of the store are written when all shards are there, so that an unfinished store cannot be opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_grid import parse_chip_id
from clay_publish.producer.encoders import Encoder
from clay_publish.producer.outputs.arrays.documents import Described, ZoneGroup, consolidated, group_document
from clay_publish.producer.outputs.arrays.shards import (
    SHARDS,
    ArrayGroup,
    ReadyShard,
    Shard,
    ShardReceipt,
    array_groups,
    array_record,
    receipt_path,
)
from clay_publish.producer.outputs.parts import COVERAGE, quantize, read_parts, remove_all
from clay_publish.producer.outputs.patches import chip_places, patches_token
from clay_publish.release import array_store as names
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json
from clay_publish.release.tables import ARROW_DTYPES, Dtype
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.search.arrays.cells import CellBox, cell_reasons, chips_within
from clay_publish.search.row_groups import vectors
from clay_publish.spec.models import Spec
from clay_publish.windows import Window

_COLUMNS = ("epsg", "row", "col", "embedding", "scale", "valid_fraction", "cloud_fraction")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pixels:
    """Vectors of some cells."""

    row: Ints
    col: Ints
    values: pa.Table
    """One row per chip; or, in order, one row per patch of each chip."""


class PixelSource(Protocol):
    """Where the vectors of one group come from."""

    def read(self, files: Sequence[DataFile], box: CellBox) -> Iterator[Pixels]:
        """Yield the vectors of some cells, of the files that may hold them."""
        ...


@dataclass(frozen=True)
class ChipTable:
    """The embeddings files."""

    release: Release

    def read(self, files: Sequence[DataFile], box: CellBox) -> Iterator[Pixels]:
        """Yield chips, a row group at a time."""
        for table in chips_within(self.release, files, box, _COLUMNS):
            row, col = (table[name].to_numpy().astype(np.int64) for name in ("row", "col"))
            yield Pixels(row, col, table)


_CHIPS = 64
"""Whose patches are given at a time."""


@dataclass(frozen=True)
class KeptPatches:
    """The patches of one layer, as the units left them in `.run/parts`."""

    release: Release
    units: Sequence[UnitReceipt]
    """That may have some of them."""
    group: ArrayGroup

    def read(self, files: Sequence[DataFile], box: CellBox) -> Iterator[Pixels]:
        """Yield the patches of some cells, some chips at a time."""
        for token in (patches_token(file.token) for file in files):
            for table in read_parts(self.release, self.units, token):
                yield from self._of_part(table, box)

    def _of_part(self, table: pa.Table, box: CellBox) -> Iterator[Pixels]:
        rows, patches = list(chip_places([table])), self.group.layer_patches
        cells = [parse_chip_id(each.chip) for each in rows]
        row, col = np.array([c.row for c in cells], np.int64), np.array([c.col for c in cells], np.int64)
        inside = (row >= box.row[0]) & (row < box.row[1]) & (col >= box.col[0]) & (col < box.col[1])
        start = np.array([each.start for each in rows], np.int64) + self.group.layer * patches
        chosen = np.flatnonzero(inside)
        for some in np.split(chosen, range(_CHIPS, len(chosen), _CHIPS)):
            if len(some):
                values = pa.concat_tables(table.slice(at, patches) for at in start[some].tolist())
                yield Pixels(row[some], col[some], values.combine_chunks())


@dataclass(frozen=True)
class ArrayWriter:
    """Assembles shards, any number at a time, and makes a store of them."""

    release: Release
    spec: Spec
    fingerprint: Fingerprint
    encoder: Encoder
    """Tells how many patches a chip has."""
    _closed: set[str] = field(default_factory=set)
    """Folders whose metadata this process has removed."""

    @cached_property
    def groups(self) -> dict[str, ArrayGroup]:
        """The groups that a zone may have, by name."""
        return {group.name: group for group in array_groups(self.spec, self.fingerprint, self.encoder)}

    @cached_property
    def described(self) -> Described:
        """What the attributes of all groups are made of."""
        return Described.of(self.release, self.spec, self.fingerprint)

    def assemble(self, ready: ReadyShard) -> ShardReceipt:
        """Write the files of a shard, and its receipt; or give the receipt that is there, of the same units and files.

        Raises:
            ReleaseError: a table cannot be read, differs from the coverage, or has a value beyond the arrays' type.
        """
        shard, source = ready.shard, ready.source(self.spec)
        there = ShardReceipt.read(self.release, receipt_path(shard.name))
        if there is not None and there.source == source and all(map(self.release.store.exists, there.files)):
            return there
        if there is not None:  # it would count again, were an earlier spec to come back before this is done
            self.release.store.remove(receipt_path(shard.name))
        group = self.groups[shard.group]
        stored = ZoneGroup(self.described, shard.zone, group.grid)
        self._close(shard)
        files = []
        layers = _ShardLayers(self, ready, group, stored).read()
        for name in stored.layers if layers else ():
            stored.put(name, shard.time, (shard.south, shard.east), layers.pop(name))
            files += self._flush(stored, shard.folder)
        receipt = ShardReceipt(shard=shard.name, source=source, files=files)
        receipt.write(self.release)
        return receipt

    def _close(self, shard: Shard) -> None:
        """Remove the metadata of a store that an earlier run made: it is not to be opened while its shards change."""
        for folder in ("", f"{names.zone_group(shard.zone)}/", f"{shard.folder}/"):
            if folder not in self._closed:
                self.release.store.remove(f"{names.STORE}/{folder}zarr.json")
                self._closed.add(folder)

    def _flush(self, stored: ZoneGroup, folder: str) -> list[str]:
        """Write what a group in memory holds; give the paths."""
        written = []
        for key, data in stored.take():
            written.append(f"{names.STORE}/{folder}/{key}")
            self.release.store.write(written[-1], data)
        return written

    def publish(self, shards: Mapping[Shard, ShardReceipt]) -> None:
        """Write the coordinates and the metadata of the store, and remove what is not part of it.

        Args:
            shards: all of them.
        """
        kept = {path for receipt in shards.values() for path in receipt.files}
        every: dict[str, Any] = {}
        for zone in sorted({shard.zone for shard in shards}):
            members: dict[str, Any] = {}
            folder = names.zone_group(zone)
            for group in self.groups.values():
                stored = ZoneGroup(self.described, zone, group.grid)
                stored.add_coordinates()
                kept |= set(self._flush(stored, f"{folder}/{group.name}".rstrip("/")))
                members |= {f"{group.name}/{key}".lstrip("/"): each for key, each in stored.documents().items()}
            kept |= _write_documents(self.release, f"{names.STORE}/{folder}", members)
            every |= {f"{folder}/{key}": document for key, document in members.items()}
        root = {"zarr.json": group_document(self.described.root())}
        kept |= _write_documents(self.release, names.STORE, root, every)
        remove_all(self.release, sorted(set(self.release.store.files(paths.ARRAYS)) - kept))
        receipts = {receipt_path(shard.name) for shard in shards}
        remove_all(self.release, sorted(set(self.release.store.files(SHARDS)) - receipts))
        self.release.store.write(names.MADE, dump_json(array_record(self.spec)))


def _write_documents(
    release: Release, folder: str, members: dict[str, Any], others: dict[str, Any] | None = None
) -> set[str]:
    """Write `zarr.json` files; the one of the folder holds those of its members and of `others`. Return their paths."""
    every = members | (others or {})
    below = {key.removesuffix("/zarr.json"): document for key, document in every.items() if key != "zarr.json"}
    for key, document in members.items():
        text = consolidated(document, below) if key == "zarr.json" else dump_json(document)
        release.store.write(f"{folder}/{key}", text)
    return {f"{folder}/{key}" for key in members}


@dataclass(frozen=True)
class _ShardLayers:
    """The numbers of one shard."""

    writer: ArrayWriter
    ready: ReadyShard
    group: ArrayGroup
    stored: ZoneGroup

    def read(self) -> dict[str, Any]:
        """Layer → numbers; empty where a group of patches has none there."""
        side, grid, box = self.group.grid.cells_per_shard, self.group.grid, self.ready.shard.box(self.group.grid)
        top, left = box.row[1] - 1, box.col[0]
        reason = self._reasons(box)
        if grid.patches > 1 and not (reason == names.EMBEDDED).any():
            return {}
        layers = self.stored.blank()
        seen = np.zeros((side, side), bool)
        for pixels in self._source().read(self._files(), box):
            south, east = top - pixels.row, pixels.col - left
            if seen[south, east].any():
                raise ReleaseError(self._where, "has two embeddings of one cell", "one per cell and window")
            seen[south, east] = True
            self._place(layers, south, east, pixels)
        if (seen != (reason == names.EMBEDDED)).any():
            count = int((reason == names.EMBEDDED).sum())
            found = f"has {int(seen.sum()):,} embedded cells in rows {box.row[0]} to {box.row[1] - 1}"
            raise ReleaseError(self._where, found, f"{count:,}, as the coverage says")
        if names.REASON in layers:
            layers[names.REASON][:] = reason
        return layers

    def _reasons(self, box: CellBox) -> npt.NDArray[np.uint8]:
        """What became of each cell, as the units say."""
        side = self.group.grid.cells_per_shard
        reason = np.zeros((side, side), np.uint8)
        for table in read_parts(self.writer.release, self.ready.receipts, COVERAGE):
            found = cell_reasons(box.only(table), [self._window])
            reason[box.row[1] - 1 - found.row, found.col - box.col[0]] = found.code
        return reason

    def _source(self) -> PixelSource:
        if self.group.grid.patches == 1:
            return ChipTable(self.writer.release)
        return KeptPatches(self.writer.release, self.ready.receipts, self.group)

    def _files(self) -> list[DataFile]:
        """Those of its files that have rows."""
        tokens = {token for receipt in self.ready.receipts for token in receipt.parts}
        return [file for file in self.ready.files if file.token in tokens]

    @property
    def _window(self) -> Window:
        return self.writer.described.windows[self.ready.shard.time]

    @property
    def _where(self) -> str:
        folder = self.writer.release.store.path(paths.EMBEDDINGS)
        return f"{folder}: zone {self.ready.shard.zone}, {self._window}"

    def _place(self, layers: dict[str, Any], south: Ints, east: Ints, pixels: Pixels) -> None:
        """Set the pixels of some cells, by their place in the shard."""
        grid, table = self.group.grid, pixels.values
        side, each = grid.cells_per_shard, grid.patches
        dtype = self.writer.spec.outputs.array_dtype
        assert dtype is not None
        values, scale = stored_vectors(table, dtype, self._where)
        found = {names.EMBEDDINGS: values, names.SCALES: scale}
        for name, column in ((names.VALID, "valid_fraction"), (names.CLOUD, "cloud_fraction")):
            if name in layers:
                found[name] = table[column].to_numpy().astype(np.float32)  # null becomes NaN
        for name, given in found.items():
            if given is not None and name in layers:
                # Cells and the patches in them: [cells, patches, cells, patches, …].
                split = layers[name].reshape(side, each, side, each, *given.shape[1:])
                split[south, :, east] = given.reshape(len(south), each, each, *given.shape[1:])


def stored_vectors(
    table: pa.Table, dtype: Dtype, where: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Return the vectors of a table as the arrays store them, and the scales of integers.

    Raises:
        ReleaseError: a value is beyond the range of the type.
    """
    column = table["embedding"].combine_chunks()
    if column.type.value_type == ARROW_DTYPES[dtype]:
        same = column.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
        return same, table["scale"].to_numpy() if dtype == "int8" else None
    with np.errstate(over="ignore"):
        values, scale = quantize(vectors(table), dtype)
    if dtype == "float16" and not np.isfinite(values).all():
        raise ReleaseError(
            where, "holds a value beyond ±65,504", "values that float16 holds", "Set outputs.arrays.dtype to int8."
        )
    return values, scale
