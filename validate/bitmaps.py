"""Sets of cells by their numbers: one byte a cell says who knows of it.

Counting 50 million cells this way takes a tenth of a second; polygons would take minutes and be wrong at their edges.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]

EXPECTED, PRESENT, SAID_EMBEDDED, SAID_MISSING = 1, 2, 4, 8


@dataclass
class Layer:
    """The cells of one image, or of one zone and window: a rectangle of rows and columns."""

    name: str
    row: int
    """First row."""
    col: int
    """First column."""
    flags: npt.NDArray[np.uint8]
    """(rows, columns)."""
    twice: dict[int, int] = field(default_factory=dict)
    """Marks made again on the same cell, by flag."""
    strangers: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Some cells that were marked outside of the rectangle, by flag; the first entry counts all of them as (n, 0)."""

    def mark(self, rows: Ints, cols: Ints, flag: int) -> None:
        """Set a flag on cells."""
        down = rows.astype(np.int64) - self.row
        along = cols.astype(np.int64) - self.col
        inside = (down >= 0) & (down < self.flags.shape[0]) & (along >= 0) & (along < self.flags.shape[1])
        if not inside.all():
            outside = np.flatnonzero(~inside)
            known = self.strangers.setdefault(flag, [(0, 0)])
            known[0] = (known[0][0] + outside.size, 0)
            known += [(int(rows[n]), int(cols[n])) for n in outside[: max(0, 4 - len(known))]]
            down, along = down[inside], along[inside]
        if not down.size:
            return
        flat = self.flags.reshape(-1)
        place = down * self.flags.shape[1] + along
        before = flat[place] & flag
        again = int(np.count_nonzero(before))
        flat[place] |= np.uint8(flag)
        if not again and place.size > 1:
            # The same cell twice in one batch shows as fewer cells set than marked.
            low, high = int(place.min()), int(place.max()) + 1
            again = place.size - int(np.count_nonzero(_set_in(flat[low:high], flag, place - low)))
        if again:
            self.twice[flag] = self.twice.get(flag, 0) + again

    def count(self) -> npt.NDArray[np.int64]:
        """How many cells have each combination of flags; (16,)."""
        return np.bincount(self.flags.reshape(-1), minlength=16)

    def cells(self, combination: int, most: int = 3) -> list[tuple[int, int]]:
        """Row and column of the first cells with a combination of flags."""
        places = np.flatnonzero(self.flags.reshape(-1) == combination)[:most]
        return [(int(n // self.flags.shape[1]) + self.row, int(n % self.flags.shape[1]) + self.col) for n in places]


def _set_in(flat: npt.NDArray[np.uint8], flag: int, place: Ints) -> npt.NDArray[np.bool_]:
    """Cells of a stretch that were just marked."""
    seen = np.zeros(flat.size, dtype=bool)
    seen[place] = True
    return seen & ((flat & flag) > 0)


def combinations(*, required: int, absent: int) -> Iterator[int]:
    """The combinations of flags that have all `required` ones and none of the `absent` ones."""
    for combination in range(16):
        if combination & required == required and not combination & absent:
            yield combination
