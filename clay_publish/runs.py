"""Sets of cells as runs along rows: `row`, `first` and `stop` (one past the last column), int64, [R] each.

Sorted by row, then column; runs neither overlap nor touch. Union and difference sort the ends of the runs and never
look at a single cell.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Runs = tuple[Ints, Ints, Ints]

NONE: Runs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


def spread(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """For each i, the numbers from low[i] to high[i] - 1: their i, and they themselves."""
    count = np.maximum(high - low, 0)
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) + np.repeat(low - (np.cumsum(count) - count), count)


def union(row: Ints, first: Ints, stop: Ints) -> Runs:
    """Merge runs in any order that may overlap or touch."""
    if not len(row):
        return NONE
    base = _line(row, first, stop)
    order = np.argsort(base + first, kind="stable")
    begin, finish = (base + first)[order], np.maximum.accumulate((base + stop)[order])
    opens = np.flatnonzero(np.concatenate([[True], begin[1:] > finish[:-1]]))
    closes = np.concatenate([opens[1:] - 1, [len(begin) - 1]])
    shift, rows = base[order][opens], row[order][opens]
    return rows, begin[opens] - shift, finish[closes] - shift


def difference(runs: Runs, without: Runs) -> Runs:
    """Runs less other runs."""
    if not len(runs[0]) or not len(without[0]):
        return runs
    rows, firsts, stops = (np.concatenate(pair) for pair in zip(runs, without, strict=True))
    base = _line(rows, firsts, stops)
    # Sweep along the line: inside a run, and not inside one that is taken away.
    opens = np.where(np.arange(len(rows)) < len(runs[0]), 1, -2)
    change = np.concatenate([opens, -opens])
    place = np.concatenate([base + firsts, base + stops])
    order = np.argsort(place, kind="stable")
    place, shift, row = place[order], np.tile(base, 2)[order], np.tile(rows, 2)[order]
    level = np.cumsum(change[order])
    keep = np.flatnonzero((level[:-1] == 1) & (place[1:] > place[:-1]))
    return union(row[keep], place[keep] - shift[keep], place[keep + 1] - shift[keep])


def intersection(runs: Runs, others: Runs) -> Runs:
    """What lies in both."""
    return difference(runs, difference(runs, others))


def between_rows(runs: Runs, low: int, high: int) -> Runs:
    """The runs of rows from `low` to `high`, both included."""
    a, b = np.searchsorted(runs[0], [low, high + 1])
    return runs[0][a:b], runs[1][a:b], runs[2][a:b]


def size(runs: Runs) -> int:
    """How many cells."""
    return int((runs[2] - runs[1]).sum())


def _line(row: Ints, first: Ints, stop: Ints) -> Ints:
    """Offsets that lay rows one after another on a line, with a gap between them."""
    origin = first.min()
    width = int(stop.max() - origin) + 1
    line: Ints = (row - row.min()) * width - origin
    return line
