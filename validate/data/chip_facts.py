"""The few numbers a chip leaves behind when its batch is gone, for the rules that compare chips with each other.

About 64 bytes per chip, in temporary files: 9 GB for the land of the Earth in chips of 1 km.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.release.names import hash_strings, hash_words
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.outcomes import UNFORESEEN
from clay_publish.validate.spilled import Array, Column, SpilledColumn, in_order, starts

_EXAMPLES = 100_000
"""Pairs of rows with the same value that can be looked at."""


@dataclass(frozen=True)
class Repeats:
    """Rows that share a value."""

    extra: int
    """How many rows repeat an earlier one."""
    order: npt.NDArray[np.int64]
    """The first of the rows that share their value with others, sorted by value, then by place."""
    same: npt.NDArray[np.int64]
    """Places in `order` whose value is that of the place before."""

    def examples(self, most: int = 1000) -> Iterator[tuple[int, int]]:
        """Pairs of rows: an earlier one, and one that repeats it."""
        for at in self.same[: min(most, _EXAMPLES)]:
            yield int(self.order[at - 1]), int(self.order[at])


def repeated(column: Column) -> Repeats:
    """Return rows whose value an earlier row has."""
    extra, again = 0, column[:0]
    for (part,) in in_order(column):
        more = part[1:][part[1:] == part[:-1]]
        extra += more.size
        again = np.concatenate([again, np.unique(more)[: _EXAMPLES - len(again)]])
    order, values = np.empty(0, np.int64), column[:0]
    for start, piece in starts(column) if again.size else ():
        rows = np.flatnonzero(pc.is_in(pa.array(piece), value_set=pa.array(again)).to_numpy(zero_copy_only=False))
        order, values = np.concatenate([order, start + rows]), np.concatenate([values, piece[rows]])
        first = np.argsort(values, kind="stable")[: 2 * _EXAMPLES]
        order, values = order[first], values[first]
    return Repeats(extra, order, np.flatnonzero(values[1:] == values[:-1]) + 1)


U64 = npt.NDArray[np.uint64]


@dataclass
class RowFacts:
    """Of one batch: by name, the array, or why there is none."""

    arrays: dict[str, Array]
    missing: dict[str, ReleaseError]
    some: Array | None = None
    """[rows, SOME], a few values of every vector, where they are kept."""


def facts_of(chips: ChipRows, places: Callable[[ChipRows], Array], step: int) -> RowFacts:
    """Reduce a batch.

    Args:
        chips: the batch.
        places: gives each chip's place of its item among the sources.
        step: every so many rows of the release, a vector is kept.
    """
    also: dict[str, _Fact] = {
        "items": places,
        "examples": lambda chips: chips.values(np.arange(-chips.start % step, len(chips), step)).copy(),
    }
    made = RowFacts({}, {})
    for name, compute in {**_FACTS, **also}.items():
        try:
            made.arrays[name] = compute(chips)
        except ClayPublishError as error:
            made.missing[name] = ReleaseError(error.where, error.found, error.expected, error.fix)
        except UNFORESEEN as error:
            made.missing[name] = ReleaseError(chips.path, f"holds what cannot be read ({error!r})")
    return made


def _centers(chips: ChipRows) -> npt.NDArray[np.float32]:
    """Longitude and latitude of each footprint, where no columns state them."""
    if chips.has("lon") and chips.has("lat"):
        raise ReleaseError(chips.path, "states centers as lon and lat")
    prints = chips.footprints
    middle = (prints.bounds[:, :2] + prints.bounds[:, 2:]) / 2  # of points, which have no area
    return np.where(np.isfinite(prints.center), prints.center, middle).astype(np.float32)


_Fact = Callable[[ChipRows], Array]
_FACTS: dict[str, _Fact] = {
    "ids": lambda chips: hash_strings(chips.column("id")),
    "vectors": lambda chips: hash_words(chips.sums.words),
    "lengths": lambda chips: chips.lengths,
    "norms": lambda chips: np.sqrt(chips.sums.squares),
    "low": lambda chips: chips.sums.low[None],
    "high": lambda chips: chips.sums.high[None],
    "lon": lambda chips: chips.floats("lon"),
    "lat": lambda chips: chips.floats("lat"),
    "centers": _centers,
    "loss": lambda chips: chips.floats("loss").astype(np.float32),
    "moments": lambda chips: chips.micros("datetime"),
    "epsg": lambda chips: _narrow(chips.integers("epsg")),
    "rows": lambda chips: _narrow(chips.integers("row")),
    "cols": lambda chips: _narrow(chips.integers("col")),
    "boxes": lambda chips: chips.footprints.bounds[_extremes(chips.footprints.bounds)],
}


class ReleaseFacts:
    """The facts of all files, one column a name."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.starts: list[int] = []
        """Number, in the release, of each file's first row."""
        self.rows = 0
        self.boxes: dict[str, Array] = {}
        """By file: the boxes of footprints that together have the bounds of all."""
        self.some: dict[str, Array] = {}
        """By file: a few values of every vector, of files that together have a million chips at most."""
        self.shapes: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        """The shapes that a row has in some file, by name."""
        self.lengths: set[int] = set()
        """Numbers of values that vectors have."""
        self._columns: dict[str, SpilledColumn] = {}
        self._missing: dict[str, ReleaseError] = {}
        self._slices: dict[str, slice] = {}

    def add(self, path: str, rows: int, parts: list[RowFacts]) -> None:
        """Add the facts of a file, in order.

        Raises:
            NoRoomError: the disk is full.
        """
        self.paths.append(path)
        self.starts.append(self.rows)
        self._slices[path] = slice(self.rows, self.rows + rows)
        self.rows += rows
        arrays: dict[str, list[Array]] = defaultdict(list)
        for facts in parts:
            for name, error in facts.missing.items():
                self._missing.setdefault(name, error)
            for name, array in facts.arrays.items():
                arrays[name].append(array)
                self.shapes[name].add(array.shape[1:])
        self.lengths.update(np.concatenate([np.empty(0, np.int64), *arrays.pop("lengths", [])]).tolist())
        boxes = arrays.pop("boxes", [])
        if boxes:
            self.boxes[path] = np.concatenate(boxes)
        for name, found in arrays.items():
            if len(self.shapes[name]) > 1 or name in self._missing:
                continue
            if name in self._columns:
                self._columns[name].append(np.concatenate(found))
            else:
                self._columns[name] = SpilledColumn(np.concatenate(found))
        some = [facts.some for facts in parts if facts.some is not None]
        if some and len(some) == len(parts) and len({each.shape[1] for each in some}) == 1:
            self.some[path] = np.concatenate(some)

    def __getitem__(self, name: str) -> SpilledColumn:
        """The column of this name.

        Raises:
            ReleaseError: a file lacks what it is made of, or files differ in what they hold.
        """
        if name in self._missing:
            raise self._missing[name]
        if name not in self.shapes:
            raise ReleaseError("embeddings", "holds no row that can be read")
        if len(self.shapes[name]) > 1:
            raise ReleaseError("embeddings", "holds vectors of several lengths")
        return self._columns[name]

    @property
    def names(self) -> set[str]:
        """Names of the columns that every file gives."""
        return {name for name in self._columns if name not in self._missing}

    def place(self, row: int) -> tuple[str, int]:
        """File and row of a row of the release."""
        at = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.paths[at], row - self.starts[at]

    def slices(self) -> dict[str, slice]:
        """Which rows of the release lie in which file."""
        return self._slices


def _narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    return np.clip(values, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)


def _extremes(bounds: npt.NDArray[np.float64]) -> list[int]:
    """Rows that together have the batch's bounds; several where boxes cross the antimeridian."""
    if not np.isfinite(bounds).any():
        return []
    crossing = np.flatnonzero(bounds[:, 0] > bounds[:, 2])[:8].tolist()
    sides = [np.nanargmin(bounds[:, 0]), np.nanargmin(bounds[:, 1]), np.nanargmax(bounds[:, 2])]
    return [*map(int, sides), int(np.nanargmax(bounds[:, 3])), *crossing]
