"""Columns with a value for each chip or source, in temporary files: a release may have more than memory has room for.

Functions here take columns of numbers and arrays alike, and look at some megabytes of them at a time.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.validate.outcomes import no_room

Array = npt.NDArray[Any]

_PIECE = 1 << 23
"""Bytes that are looked at together."""
_GAP = 1 << 16
"""Bytes that are not asked for, and rather read than skipped."""
_SORTED = 1 << 22
"""Values that are sorted together, about."""
_SAMPLE = 1 << 14
"""Values that decide which ones are sorted together, about."""


class SpilledColumn:
    """Rows of one type and shape in a temporary file, which ends with this object."""

    def __init__(self, first: Array) -> None:
        """Begin a column with its first rows."""
        self.dtype = first.dtype
        self.shape: tuple[int, ...] = (0, *first.shape[1:])
        """Rows, and the shape of each."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self.append(first)

    def append(self, rows: Array) -> None:
        """Add rows of the same shape.

        Raises:
            NoRoomError: the disk is full.
        """
        try:
            self._file.write(np.ascontiguousarray(rows, self.dtype).data)
            self._file.flush()
        except OSError as error:
            raise no_room("what is compared", "about 75 bytes per chip and 110 per source item", error) from error
        self.shape = (self.shape[0] + len(rows), *self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Read a row, a slice forward, or rows by their numbers."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._read(start, stop)[::step]
        rows = np.asarray(key)
        if rows.ndim == 0:
            return self._read(int(rows), int(rows) + 1)[0]
        found = np.empty((rows.size, *self.shape[1:]), self.dtype)
        for mine in _near(rows.astype(np.int64) * _width(self)):
            low, high = int(rows[mine[0]]), int(rows[mine[-1]]) + 1
            found[mine] = self._read(low, high)[rows[mine] - low]
        return found

    def _read(self, start: int, stop: int) -> Array:
        found = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        rest, offset = memoryview(found.reshape(-1).view(np.uint8).data), start * found[:1].nbytes
        while rest:  # several threads read a column, and the file has one position
            count = os.preadv(self._file.fileno(), [rest], offset)
            if not count:
                raise OSError(f"a temporary file in {tempfile.gettempdir()} is shorter than what was written to it")
            rest, offset = rest[count:], offset + count
        return found


class SpilledBytes:
    """Rows of bytes in temporary files."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._bytes = SpilledColumn(np.empty(0, np.uint8))
        self._spans = SpilledColumn(np.empty((0, 2), np.int64))

    def append(self, column: pa.BinaryArray) -> None:
        """Add rows; null has no bytes.

        Raises:
            NoRoomError: the disk is full.
        """
        column = column.fill_null(b"")
        offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
        ends = offsets.astype(np.int64) - offsets[0] + len(self._bytes)
        self._spans.append(np.stack([ends[:-1], ends[1:]], axis=1))
        self._bytes.append(np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]])

    def __getitem__(self, rows: npt.NDArray[np.integer]) -> list[bytes]:
        """Read rows by their numbers."""
        spans = self._spans[rows]
        found = [b""] * len(spans)
        for mine in _near(spans[:, 0]):
            low = int(spans[mine[0], 0])
            data = self._bytes[low : int(spans[mine, 1].max())].tobytes()
            for place, (start, stop) in zip(mine.tolist(), (spans[mine] - low).tolist(), strict=True):
                found[place] = data[start:stop]
        return found


def _near(places: npt.NDArray[np.integer]) -> list[npt.NDArray[np.intp]]:
    """Return which places in a file are read together, in their order: those in one piece of it without a large gap."""
    order = np.argsort(places, kind="stable")
    apart = (np.diff(places[order]) > _GAP) | (np.diff(places[order] // _PIECE) != 0)
    return np.split(order, np.flatnonzero(apart) + 1) if len(order) else []


Column = SpilledColumn | Array


def _width(column: Column) -> int:
    """Return the bytes of each row, at least 1."""
    return max(1, int(column.dtype.itemsize * math.prod(column.shape[1:])))


def _rows_of(column: Column) -> int:
    """Return how many rows are looked at together."""
    return max(1, _PIECE // _width(column))


def pieces(column: Column) -> Iterator[Array]:
    """Return consecutive rows, some at a time."""
    return (piece for _, piece in starts(column))


def starts(column: Column) -> Iterator[tuple[int, Array]]:
    """Return the same, each with the number of its first row."""
    step = _rows_of(column)
    for start in range(0, len(column), step):
        yield start, column[start : start + step]


def together(*columns: Column) -> Iterator[tuple[Array, ...]]:
    """Return the same of several columns of one length."""
    step = min(map(_rows_of, columns))
    for start in range(0, len(columns[0]), step):
        yield tuple(column[start : start + step] for column in columns)


def spilled(parts: Iterable[Array], dtype: npt.DTypeLike) -> SpilledColumn:
    """Return a column of all parts, which have one number a row."""
    made = SpilledColumn(np.empty(0, dtype))
    for part in parts:
        made.append(part)
    return made


def distinct(column: Column) -> Array:
    """Return the few values that occur, in order."""
    return np.unique(np.concatenate([column[:0], *(np.unique(piece) for piece in pieces(column))]))


def rows_with(column: Column, values: Array) -> npt.NDArray[np.int64]:
    """Return the rows that hold one of a few values."""
    found = [start + np.flatnonzero(np.isin(piece, values)) for start, piece in starts(column)]
    return np.concatenate([np.empty(0, np.int64), *found])


def in_order(*columns: Column) -> Iterator[tuple[Array, ...]]:
    """Return the values of each column in ascending order, those of one range after the other; ranges are common.

    Raises:
        NoRoomError: the disk is full.
    """
    sizes = [len(column) for column in columns]
    every = max(1, max(sizes) // _SAMPLE)
    some = np.sort(np.concatenate([columns[0][:0], *(piece[::every].copy() for c in columns for piece in pieces(c))]))
    count = -(-max(sizes) // _SORTED)
    edges = np.unique(some[[len(some) * number // count for number in range(1, count)]])
    for parts in zip(*(_ranges(column, edges) for column in columns), strict=True):
        yield tuple(np.sort(part[:]) for part in parts)


def _ranges(column: Column, edges: Array) -> list[Column]:
    """Return the values below the first edge, from there to below the next one, and so on."""
    if not edges.size:
        return [column]
    made = [SpilledColumn(column[:0]) for _ in range(len(edges) + 1)]
    for piece in pieces(column):
        place = np.searchsorted(edges, piece, side="right").astype(np.min_scalar_type(len(edges)))
        order = np.argsort(place, kind="stable")
        stops = np.cumsum(np.bincount(place, minlength=len(made)))
        for part, values in zip(made, np.split(piece[order], stops[:-1]), strict=True):
            part.append(values)
    return [*made]


def middle(parts: Callable[[], Iterable[npt.NDArray[np.float32]]]) -> tuple[float, float]:
    """Return the two values in the middle of all, the same one twice if their number is odd.

    Args:
        parts: gives the values, of which there is one at least, each time it is called; none is negative or NaN.
    """
    count = sum(len(part) for part in parts())
    low = _ranked(parts, (count - 1) // 2)
    return low, low if count % 2 else _ranked(parts, count // 2)


def _ranked(parts: Callable[[], Iterable[npt.NDArray[np.float32]]], rank: int) -> float:
    """Return the value that so many come before. Bits of positive floats have the order of the values."""
    found = 0
    for shift in (16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for part in parts():
            bits = np.ascontiguousarray(part, np.float32).view(np.uint32)
            if shift == 0:
                bits = bits[bits >> 16 == found]
            counts += np.bincount(bits >> shift & 0xFFFF, minlength=1 << 16)
        below = np.cumsum(counts)
        place = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[place] - counts[place])
        found = found << 16 | place
    return float(np.array(found, np.uint32).view(np.float32))
