"""Vectors of single chips from the arrays of a release, where reading them takes fewer bytes than from its tables."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.release import array_store as names
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.tables import ARROW_DTYPES
from clay_publish.search.arrays.zarr_store import open_group, reading
from clay_publish.search.row_groups import THREADS, Rows, Shelf
from clay_publish.windows import Window

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_REQUEST = 64 << 10
"""Bytes that are read in the time of a request's answer, roughly."""
_OPENING = 4 * _REQUEST
"""Of the metadata of a group."""
_INDEX = 16
"""Bytes of a chunk's entry in the index of its shard."""


@dataclass(frozen=True)
class ChipCells:
    """Cells and windows of some chips, which the table has."""

    zone: Ints
    row: Ints
    col: Ints
    window: Sequence[Window]

    @classmethod
    def of(cls, rows: Rows, shelf: Shelf, chips: pa.Table) -> "ChipCells":
        """Read them from the files' names, and from `epsg`, `row` and `col` of the chips."""
        epsg, row, col = (chips[name].to_numpy().astype(np.int64) for name in ("epsg", "row", "col"))
        windows = {number: DataFile.parse(shelf.paths[number]).window for number in np.unique(rows.file).tolist()}
        return cls(epsg % 100, row, col, [windows[number] for number in rows.file.tolist()])


def chip_vectors(
    release: Release, shelf: Shelf, rows: Rows, chips: pa.Table, stored: pa.FixedSizeListType
) -> Vectors | None:
    """Return the vectors of chips as the table has them, the scale of integers applied.

    Args:
        release: with arrays.
        shelf: the files of the table.
        rows: the chips.
        chips: their `epsg`, `row` and `col`.
        stored: type of the table's vectors.

    Returns:
        [n, D]; None where the arrays are rounded and the table is not, or where more bytes would be read than from the
        table.

    Raises:
        ReleaseError: the arrays cannot be read, or have no embedding of a chip that the table has.
    """
    cells, most = ChipCells.of(rows, shelf, chips), rows.column_bytes(release, shelf, ["embedding", "scale"])
    zones, numbers = np.unique(cells.zone).tolist(), stored.value_type
    if numbers not in {ARROW_DTYPES["int8"], ARROW_DTYPES["float16"]} or most <= _OPENING * len(zones):
        return None
    groups = [_Zone.open(release, zone, stored.list_size) for zone in zones]
    mine = [np.flatnonzero(cells.zone == zone) for zone in zones]
    places = [group.places(cells, some) for group, some in zip(groups, mine, strict=True)]
    same = all(pa.from_numpy_dtype(group.embeddings.dtype) == numbers for group in groups)
    if not same or sum(group.bytes_of(place) for group, place in zip(groups, places, strict=True)) > most:
        return None
    values = np.empty((len(cells.zone), stored.list_size), np.float32)
    for group, some, place in zip(groups, mine, places, strict=True):
        values[some] = group.read(place)
    return values


@dataclass(frozen=True)
class _Zone:
    """The arrays of one zone."""

    where: str
    embeddings: Any
    scales: Any | None
    row_top: int
    windows: dict[Window, int]

    @classmethod
    def open(cls, release: Release, zone: int, dimensions: int) -> "_Zone":
        group = open_group(release, f"{names.STORE}/{names.zone_group(zone)}")
        embeddings, scales = group.embeddings()
        if embeddings.shape[3] != dimensions:
            raise ReleaseError(group.where, f"has {embeddings.shape[3]} dimensions", f"{dimensions}, as the table")
        try:
            windows = {Window.parse(text): place for place, text in enumerate(group.attributes["embrel:windows"])}
            top = int(group.attributes["embrel:cells"]["row_top"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseError(group.where, f"has no readable {error}", "arrays of a release") from error
        return cls(group.where, embeddings, scales, top, windows)

    def places(self, cells: ChipCells, some: Ints) -> Ints:
        """Return [3, n] time, y and x of some of the chips."""
        steps = [self.windows.get(cells.window[place], -1) for place in some.tolist()]
        found = np.stack([np.array(steps, np.int64), self.row_top - cells.row[some], cells.col[some]])
        limits = np.array(self.embeddings.shape[:3])[:, None]
        if ((found < 0) | (found >= limits)).any():
            raise ReleaseError(self.where, "does not reach a chip that the table has", "the windows and cells of it")
        return found

    def bytes_of(self, places: Ints) -> int:
        """Return about how many bytes are read for some pixels, chunks without compression."""
        arrays = [array for array in (self.embeddings, self.scales) if array is not None]
        total = _OPENING
        for array in arrays:
            shard, chunk = (np.array(sides[:3])[:, None] for sides in (array.shards or array.chunks, array.chunks))
            chunks = np.unique(places // chunk, axis=1).shape[1]
            shards = np.unique(places // shard, axis=1).shape[1]
            index = _INDEX * int(np.prod(shard // chunk))
            total += chunks * (int(np.prod(array.chunks)) * array.dtype.itemsize + _REQUEST)
            total += shards * (index + _REQUEST)
        return total

    def read(self, places: Ints) -> Vectors:
        """Return the vectors of some pixels."""
        with reading(self.where):
            values = _pixels(self.embeddings, places).astype(np.float32)
            if self.scales is not None:
                values *= _pixels(self.scales, places)[:, None]
        if np.isnan(values).any():
            raise ReleaseError(
                self.where,
                "has no embedding of a chip that the table has",
                "one of every chip",
                "Check the release with `clay-publish validate`.",
            )
        return values


def _pixels(array: Any, places: Ints) -> npt.NDArray[Any]:
    """Return the values of some pixels, each chunk read once."""
    sides = np.array(array.chunks[:3])[:, None]
    chunks, chunk_of = np.unique(places // sides, axis=1, return_inverse=True)
    found = np.empty((places.shape[1], *array.shape[3:]), array.dtype)

    def of_chunk(number: int) -> None:
        start = chunks[:, number] * sides[:, 0]
        mine = np.flatnonzero(chunk_of.ravel() == number)
        whole = array[tuple(slice(first, first + side) for first, side in zip(start, sides[:, 0], strict=True))]
        found[mine] = whole[tuple(places[:, mine] - start[:, None])]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(of_chunk, range(chunks.shape[1])))
    return found
