"""`arrays/arrays.zarr`: the shards of every zone and window, from the tables of the release.

Cells do not divide the 100 km squares of the embeddings files, so shards are made when all files are there, each from
the row groups that it overlaps, one at a time. `.run/arrays.json` says of which receipts the shards are, so that an
interrupted run goes on with those that are missing.
"""

import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_grid import parse_chip_id
from clay_publish.producer.encoders import Encoder
from clay_publish.producer.outputs.arrays.documents import Described, ZoneGroup, consolidated, group_document
from clay_publish.producer.outputs.parts import quantize, read_parts, remove_all
from clay_publish.producer.outputs.patches import chip_places, patches_token
from clay_publish.release import array_store as names
from clay_publish.release import directory as paths
from clay_publish.release.array_store import ArrayGrid
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json
from clay_publish.release.tables import ARROW_DTYPES, Dtype
from clay_publish.release.unit_receipts import UnitReceipt, receipts_digest
from clay_publish.search.arrays.cells import CellBox, ZoneCoverage, chips_within
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
    units: Mapping[str, Sequence[UnitReceipt]]
    """Name of a part → receipts of the units that have one."""
    patches: int
    """Of a chip and layer."""
    layer: int
    """Place of the layer among those of a chip."""

    def read(self, files: Sequence[DataFile], box: CellBox) -> Iterator[Pixels]:
        """Yield the patches of some cells, some chips at a time."""
        for token in (patches_token(file.token) for file in files):
            for table in read_parts(self.release, self.units.get(token, ()), token):
                yield from self._of_part(table, box)

    def _of_part(self, table: pa.Table, box: CellBox) -> Iterator[Pixels]:
        rows = list(chip_places([table]))
        cells = [parse_chip_id(each.chip) for each in rows]
        row, col = np.array([c.row for c in cells], np.int64), np.array([c.col for c in cells], np.int64)
        inside = (row >= box.row[0]) & (row < box.row[1]) & (col >= box.col[0]) & (col < box.col[1])
        start = np.array([each.start for each in rows], np.int64) + self.layer * self.patches
        chosen = np.flatnonzero(inside)
        for some in np.split(chosen, range(_CHIPS, len(chosen), _CHIPS)):
            if len(some):
                values = pa.concat_tables(table.slice(at, self.patches) for at in start[some].tolist())
                yield Pixels(row[some], col[some], values.combine_chunks())


@dataclass(frozen=True)
class ArrayGroup:
    """A group of every zone: the chips, or the patches of one layer."""

    name: str
    """Below the zone's group; empty: the zone's group itself."""
    grid: ArrayGrid
    source: PixelSource


def array_groups(
    release: Release, described: Described, encoder: Encoder, receipts: Sequence[UnitReceipt]
) -> list[ArrayGroup]:
    """The groups that each zone has; the chips first."""
    made, width = described.fingerprint, 1 if described.dtype == "int8" else 2
    cell = made.size * (made.gsd or 0)
    groups = [ArrayGroup("", ArrayGrid(cell, made.dimensions, width), ChipTable(release))]
    outputs = described.spec.outputs
    if outputs.patch_format != "zarr":
        return groups
    units: dict[str, list[UnitReceipt]] = {}
    for receipt in receipts:
        for token in receipt.parts:
            units.setdefault(token, []).append(receipt)
    layers = encoder.patch_layers
    each = encoder.patches // len(layers)
    grid = ArrayGrid(cell, made.dimensions, width, math.isqrt(each))
    for place, layer in enumerate(layers):
        name = names.patches_group(layer if outputs.patch_layers is not None else None)
        groups.append(ArrayGroup(name, grid, KeptPatches(release, units, each, place)))
    return groups


def write_arrays(
    release: Release,
    spec: Spec,
    fingerprint: Fingerprint,
    encoder: Encoder,
    receipts: Sequence[UnitReceipt],
    *,
    before_shard: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the store, and remove what an earlier run left there.

    Args:
        release: with its embeddings files and coverage.
        spec: that asks for arrays.
        fingerprint: of the embeddings.
        encoder: that made them; tells how many patches a chip has.
        receipts: of all units.
        before_shard: called with the path of each shard before it is made; may raise to end the run.

    Raises:
        ReleaseError: a table cannot be read, or a value does not fit the type of the arrays.
    """
    described = Described.of(release, spec, fingerprint)
    made = {
        "receipts": receipts_digest(receipts),
        "outputs": spec.outputs.model_dump(mode="json", include={"arrays", "patches"}),
        "libraries": {name: importlib.metadata.version(name) for name in ("numcodecs", "zarr")},
    }
    if not release.store.exists(names.MADE) or release.json(names.MADE) != made:
        remove_all(release, release.store.files(paths.ARRAYS))
        release.store.write(names.MADE, dump_json(made))
    there = frozenset(release.store.files(paths.ARRAYS))
    groups = array_groups(release, described, encoder, receipts)
    kept: set[str] = set()
    every: dict[str, Any] = {}
    for path in release.data_files(paths.COVERAGE):
        zone = names.coverage_zone(path)
        members: dict[str, Any] = {}
        for group in groups:
            writer = _GroupWriter(release, described, group, zone, there)
            kept |= writer.write(before_shard)
            members |= {
                f"{group.name}/{key}".lstrip("/"): document for key, document in writer.stored.documents().items()
            }
        folder = names.zone_group(zone)
        kept |= _write_documents(release, f"{names.STORE}/{folder}", members)
        every |= {f"{folder}/{key}": document for key, document in members.items()}
    root = {"zarr.json": group_document(described.root())}
    kept |= _write_documents(release, names.STORE, root, every)
    remove_all(release, sorted(there - kept))


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


class _GroupWriter:
    """Writes the shards of one group of one zone."""

    def __init__(
        self, release: Release, described: Described, group: ArrayGroup, zone: int, there: frozenset[str]
    ) -> None:
        self.release, self.described, self.group, self.zone, self.there = release, described, group, zone, there
        self.grid = group.grid
        self.stored = ZoneGroup(described, zone, group.grid)
        self.folder = f"{names.STORE}/{names.zone_group(zone)}/{group.name}".rstrip("/")
        self.files = [DataFile.parse(p) for p in release.data_files() if f"/zone={zone:02d}/" in p]

    def write(self, before_shard: Callable[[str], None]) -> set[str]:
        """Write what is missing; return the paths of all files but the metadata."""
        kept = set(self._flush())  # coordinates
        for time, shard, reason in self._shards():
            paths_of = {name: self._path(name, time, shard) for name in self.stored.layers}
            last = list(paths_of.values())[-1]
            if last not in self.there:
                before_shard(last)
                self._make(time, shard, reason)
                kept |= set(self._flush())
            kept |= self.there.intersection(paths_of.values())
        return kept

    def _path(self, name: str, time: int, shard: tuple[int, int]) -> str:
        return f"{self.folder}/{self.stored.key(name, time, shard)}"

    def _flush(self) -> Iterator[str]:
        """Write what the group in memory holds, in the order of its layers; yield the paths."""
        for key, data in self.stored.take():
            path = f"{self.folder}/{key}"
            self.release.store.write(path, data)
            yield path

    def _shards(self) -> Iterator[tuple[int, tuple[int, int], npt.NDArray[np.uint8]]]:
        """Yield time, place and reasons [cells, cells] of each shard that has expected chips, from north to south."""
        side, grid = self.grid.cells_per_shard, self.grid
        height, width = (size // grid.patches for size in grid.shape)
        coverage = ZoneCoverage.open(self.release, self.zone)
        for south in range(-(-height // side)):
            rows = grid.row_top - (south + 1) * side + 1, grid.row_top - south * side + 1
            found = coverage.within(CellBox(self.zone, rows, (0, width)), self.described.windows)
            keys = found.window * width + found.col // side
            for key in np.unique(keys):
                mine = keys == key
                reason = np.zeros((side, side), np.uint8)
                reason[rows[1] - 1 - found.row[mine], found.col[mine] % side] = found.code[mine]
                time, east = divmod(int(key), width)
                if self.grid.patches == 1 or (reason == names.EMBEDDED).any():
                    yield time, (south, east), reason

    def _make(self, time: int, shard: tuple[int, int], reason: npt.NDArray[np.uint8]) -> None:
        side, grid = self.grid.cells_per_shard, self.grid
        top, left = grid.row_top - shard[0] * side, shard[1] * side
        box = CellBox(self.zone, (top - side + 1, top + 1), (left, left + side))
        window = self.described.windows[time]
        layers = self.stored.blank()
        seen = np.zeros((side, side), bool)
        for pixels in self.group.source.read(self._overlapping(box, window), box):
            south, east = top - pixels.row, pixels.col - left
            if seen[south, east].any():
                raise ReleaseError(self._where(window), "has two embeddings of one cell", "one per cell and window")
            seen[south, east] = True
            self._place(layers, south, east, pixels)
        if (seen != (reason == names.EMBEDDED)).any():
            count = int((reason == names.EMBEDDED).sum())
            found = f"has {int(seen.sum()):,} embedded cells in rows {box.row[0]} to {box.row[1] - 1}"
            raise ReleaseError(self._where(window), found, f"{count:,}, as the coverage says")
        if names.REASON in layers:
            layers[names.REASON][:] = reason
        for name in self.stored.layers:
            self.stored.put(name, time, shard, layers.pop(name))

    def _where(self, window: Window) -> str:
        return f"{self.release.store.path(paths.EMBEDDINGS)}: zone {self.zone}, {window}"

    def _overlapping(self, box: CellBox, window: Window) -> list[DataFile]:
        cell, across = self.grid.cell, self.described.spec.outputs.across
        return [file for file in self.files if file.window == window and box.may_hold(file, cell, across)]

    def _place(self, layers: dict[str, Any], south: Ints, east: Ints, pixels: Pixels) -> None:
        """Set the pixels of some cells, by their place in the shard."""
        side, each, table = self.grid.cells_per_shard, self.grid.patches, pixels.values
        values, scale = stored_vectors(table, self.described.dtype, self._where(self.described.windows[0]))
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
