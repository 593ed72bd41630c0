"""Cells of one image, or of one zone and window, as bitmaps: expected, present and described."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError

Ints = npt.NDArray[np.integer]

_PIECE = 1 << 20
"""Cells marked at once, so that numbers in between stay in cache."""

EXPECTED, PRESENT, SAID_EMBEDDED, SAID_MISSING = 1, 2, 4, 8


MAX_CELLS = 200_000_000
"""Cells of one layer: a zone of the Earth has as many chips of 200 m."""


def empty(name: str, rows: int, cols: int) -> npt.NDArray[np.uint8]:
    """Flags of a layer, none of them set.

    Raises:
        ReleaseError: there are more cells than a layer can have.
    """
    if rows < 0 or cols < 0 or rows * cols > MAX_CELLS:
        raise ReleaseError(name, f"asks for {rows:,} × {cols:,} chips", f"at most {MAX_CELLS:,}")
    return np.zeros((rows, cols), np.uint8)


@dataclass
class CellRaster:
    """The cells of one image, or of one zone and window: a rectangle of rows and columns."""

    name: str
    row: int
    """First row."""
    col: int
    """First column."""
    flags: npt.NDArray[np.uint8]
    """(rows, columns)."""
    strangers: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Some cells that were marked outside of the rectangle, by flag; the first entry counts all of them as (n, 0)."""
    _marks: dict[int, int] = field(default_factory=dict)
    """Marks made inside, by flag."""

    def mark(self, rows: Ints, cols: Ints, flag: int) -> None:
        """Set a flag on cells."""
        for start in range(0, len(rows), _PIECE):
            self._mark(rows[start : start + _PIECE], cols[start : start + _PIECE], flag)

    def _mark(self, rows: Ints, cols: Ints, flag: int) -> None:
        height, width = self.flags.shape
        down, along = np.asarray(rows) - self.row, np.asarray(cols) - self.col
        inside = (down >= 0) & (down < height) & (along >= 0) & (along < width)
        if not inside.all():
            outside = np.flatnonzero(~inside)
            known = self.strangers.setdefault(flag, [(0, 0)])
            known[0] = (known[0][0] + outside.size, 0)
            known += [(int(rows[n]), int(cols[n])) for n in outside[: max(0, 4 - len(known))]]
            down, along = down[inside], along[inside]
        flat = self.flags.reshape(-1)
        flat[down * np.int64(width) + along] |= np.uint8(flag)
        self._marks[flag] = self._marks.get(flag, 0) + len(down)

    def mark_runs(self, row: Ints, first: Ints, stop: Ints, flag: int) -> None:
        """Set a flag on runs of cells along rows: `first` to one before `stop`. Runs do not overlap."""
        edges = np.zeros((self.flags.shape[0], self.flags.shape[1] + 1), np.int8)
        np.add.at(edges, (row - self.row, first - self.col), 1)
        np.add.at(edges, (row - self.row, stop - self.col), -1)
        self.flags |= (np.cumsum(edges[:, :-1], axis=1, dtype=np.int8) * flag).view(np.uint8)

    def summary(self) -> "Summary":
        """What the rules ask of it; the bitmap itself can go."""
        counts = np.bincount(self.flags.reshape(-1), minlength=16)
        set_ = {flag: sum(int(counts[c]) for c in range(16) if c & flag) for flag in self._marks}
        wanted = [c for c in range(1, 16) if counts[c] and c not in _USUAL]
        return Summary(
            name=self.name,
            shape=self.flags.shape,
            counts=[int(count) for count in counts],
            cells={combination: self._cells(combination) for combination in wanted},
            twice={flag: marks - set_[flag] for flag, marks in self._marks.items() if marks > set_[flag]},
            strangers=self.strangers,
        )

    def _cells(self, combination: int, most: int = 3) -> list[tuple[int, int]]:
        places = np.flatnonzero(self.flags.reshape(-1) == combination)[:most]
        return [(int(n // self.flags.shape[1]) + self.row, int(n % self.flags.shape[1]) + self.col) for n in places]


@dataclass(frozen=True)
class Summary:
    """A layer, counted."""

    name: str
    shape: tuple[int, ...]
    """Rows and columns."""
    counts: list[int]
    """Cells by combination of flags; 16 numbers."""
    cells: dict[int, list[tuple[int, int]]]
    """Row and column of the first cells, by combination, where it is not a usual one."""
    twice: dict[int, int]
    """Marks made again on the same cell, by flag."""
    strangers: dict[int, list[tuple[int, int]]]


_USUAL = {EXPECTED | PRESENT | SAID_EMBEDDED, EXPECTED | SAID_MISSING}


def combinations(*, required: int, absent: int) -> Iterator[int]:
    """The combinations of flags that have all `required` ones and none of the `absent` ones."""
    for combination in range(16):
        if combination & required == required and not combination & absent:
            yield combination
