"""The same value in several rows of a release."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Repeats:
    """Rows that share a value."""

    order: npt.NDArray[np.int64]
    """The rows that share their value with others, sorted by value, then by place."""
    same: npt.NDArray[np.int64]
    """Places in `order` whose value is that of the place before."""

    @property
    def extra(self) -> int:
        """How many rows repeat an earlier one."""
        return int(self.same.size)

    def examples(self, most: int = 1000) -> Iterator[tuple[int, int]]:
        """Pairs of rows: an earlier one, and one that repeats it."""
        for at in self.same[:most]:
            yield int(self.order[at - 1]), int(self.order[at])


def repeated(values: npt.NDArray[np.generic]) -> Repeats:
    """Rows whose value an earlier row has."""
    ordered = np.sort(values)  # several times faster than the order itself, which only few rows are needed in
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not again.size:
        return Repeats(np.empty(0, np.int64), np.empty(0, np.int64))
    rows = np.flatnonzero(pc.is_in(pa.array(values), value_set=pa.array(again)).to_numpy(zero_copy_only=False))
    order = rows[np.argsort(values[rows], kind="stable")]
    shared = values[order]
    return Repeats(order, np.flatnonzero(shared[1:] == shared[:-1]) + 1)
