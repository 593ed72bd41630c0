"""Whether neighbors differ more across a line than chance and the ground explain.

A pair of neighbors across the line is ranked among the pairs before and behind it. On ground that knows nothing of the
line, each of them is as likely as the others to differ most.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clay_publish.validate.data.neighbors import (
    FEWEST_BESIDE,
    MOST_BESIDE,
    ComparedChips,
    Crossing,
    Floats,
    Ints,
)

FEWEST_AROUND = 20
"""Pairs of neighbors across the edge of one file, superblock, image or run of rows, at least.

Those of a superblock of 5 × 5 chips, which is the default. Up to about 1,000 lines are looked at until even 20 that all
differ most are explained by chance; fewer would be so from the first few lines on.
"""
_CHANCE = 1e-6
"""Of a finding on good vectors, after correction for the lines that are looked at."""
_AWAY = tuple(away for distance in range(2, 9) for away in (-distance, distance))
"""How many chips away from a line parallel ones are compared with it."""
SHARED = 0.5
"""Share of what shows at a line that shows at a parallel one, too, if the ground is its reason."""

_TILTS = np.geomspace(0.03, 40, 64)
_BESIDE = range(FEWEST_BESIDE, MOST_BESIDE + 1)
_RANKS = np.stack([np.log(np.exp(_TILTS[:, None] * np.linspace(-1, 1, n + 1)).mean(axis=1)) for n in _BESIDE], axis=1)
_ALIKE = 1.5
"""Neighbors on a line that count as one: on real ground, means of ranks spread 1.1 to 1.2 times as far as of chance."""


def evidence_of(excess: npt.ArrayLike, counts: npt.ArrayLike) -> Floats:
    """Return minus the logarithm of the probability, at most, that chance gives such a sum or a farther one.

    Chernoff's bound for sums of ranks from -1 to 1, each of which is as likely as the others.

    Args:
        excess: sums of the excess of pairs.
        counts: [3, …], how many of these have two, three and four pairs beside them.
    """
    tilted = np.multiply.outer(_TILTS, np.abs(excess)) - np.tensordot(_RANKS, np.asarray(counts), axes=1)
    return np.asarray(np.maximum(tilted.max(axis=0), 0) / _ALIKE, np.float64)


def least_evidence(tests: int) -> float:
    """Return the evidence that chance gives in one of so many tests, on both sides, with a probability of `_CHANCE`."""
    return math.log(2 * tests / _CHANCE)


@dataclass(frozen=True)
class Line:
    """Where neighbors differ more, or less, across a line than beside it, and by how much."""

    ratio: float
    pairs: int
    evidence: float

    @classmethod
    def of(cls, chips: ComparedChips, pairs: Crossing, labels: Ints, tests: int, limit: float) -> "Line | None":
        """Return what shows; None if nothing does, chance may explain it, or lines parallel to it show as well."""
        evidence = float(evidence_of(pairs.excess.sum(), pairs.counts.sum(axis=1)))
        if evidence <= least_evidence(tests):
            return None
        ratio = pairs.ratio
        if 1 / limit <= ratio <= limit:
            return None
        for away in _AWAY:
            parallel = chips.differences.parallel(pairs, away, labels)
            if len(parallel) >= len(pairs) / 2 and parallel.mean() / pairs.excess.mean() > SHARED:
                return None
        return cls(ratio, len(pairs), evidence)

    def __str__(self) -> str:
        return f"neighbors differ {self.ratio:.2f} times as much across {{}} as beside them ({self.pairs:,} pairs)"


_CELL = 8
"""Rows that begin or end a run together, where runs are looked for."""
_WIDTHS = (8, 12, 16, 24, 32, 48, 64)
"""Cells of a run; longer ones are of cells four times as long."""
_LIKELY = 8.0
"""Evidence from which on the first and the last row of a run are looked for; that of good files is below."""


@dataclass(frozen=True)
class LikelyRuns:
    """What stands out in a file."""

    tests: int
    """Runs that were looked at."""
    found: list[tuple[float, int, int]]
    """Evidence of each likely run, its first place among the compared chips, and the place behind it."""


def likely_runs(chips: ComparedChips, places: slice) -> LikelyRuns:
    """Look for runs of 64 rows and more among the chips of a file."""
    rows, pairs = places.stop - places.start, _pairs(chips, places)
    low, high, excess = pairs.low, pairs.high, pairs.excess
    tests, found, cell = 4 * rows, [], _CELL
    while rows > _WIDTHS[0] * cell:
        count = -(-rows // cell)
        for width, last, most in _best_of_cells(low // cell, high // cell, excess, count):
            tests += count
            start, stop = max((last - width + 1) * cell, 0), min((last + 1) * cell, rows)
            if most > _LIKELY and pairs.evidence(start, stop) > _LIKELY:
                for _ in range(2):
                    stop = _last(low, high, excess, start, rows)
                    start = rows - _last(rows - 1 - high, rows - 1 - low, excess, rows - stop, rows)
                found.append((pairs.evidence(start, stop), places.start + start, places.start + stop))
        cell *= 4
    return LikelyRuns(tests, found)


@dataclass(frozen=True)
class _Pairs:
    """Neighbors in one file and image."""

    low: Ints
    """First row of each."""
    high: Ints
    excess: Floats
    beside: npt.NDArray[np.int8]

    def evidence(self, start: int, stop: int) -> float:
        """That neighbors differ more across the edge of some rows."""
        edge = ((self.low >= start) & (self.low < stop)) != ((self.high >= start) & (self.high < stop))
        counts = np.bincount(self.beside[edge] - FEWEST_BESIDE, minlength=MOST_BESIDE - FEWEST_BESIDE + 1)
        return float(evidence_of(max(self.excess[edge].sum(), 0), counts))


def _pairs(chips: ComparedChips, places: slice) -> _Pairs:
    parts = []
    for way in chips.differences.along.values():
        second = way.after[places] - places.start
        first = np.flatnonzero((second >= 0) & (second < places.stop - places.start) & np.isfinite(way.excess[places]))
        ends = first, second[first]
        parts.append((np.minimum(*ends), np.maximum(*ends), way.excess[places][first], way.beside[places][first]))
    return _Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _best_of_cells(low: Ints, high: Ints, excess: Floats, count: int) -> Iterator[tuple[int, int, float]]:
    """For each width, yield it, the last cell of the run that stands out most, and its evidence, at most.

    Args:
        low: first cell of each pair.
        high: second one.
        excess: of each pair.
        count: cells.
    """
    apart = np.minimum(high - low, _WIDTHS[-1]).astype(np.uint8)
    order = np.argsort(apart, kind="stable")
    order = order[np.searchsorted(apart[order], 1) :]
    low, high, excess, apart = low[order], high[order], excess[order], apart[order]
    near = {width: int(np.searchsorted(apart, width)) for width in _WIDTHS if width < count}
    sums = [_crossing(low, high, weights, near, count) for weights in (excess, None)]
    best = [(total[at := _best(total, number)], number[at], at) for total, number in zip(*sums, strict=True)]
    excesses, numbers, lasts = (np.array(each) for each in zip(*best, strict=True))
    most = evidence_of(np.maximum(excesses, 0), np.stack([0 * numbers, 0 * numbers, numbers]))  # least with four beside
    yield from zip(near, lasts.tolist(), most.tolist(), strict=True)


def _crossing(low: Ints, high: Ints, weights: Floats | None, near: Mapping[int, int], count: int) -> Iterator[Floats]:
    """Sum the weights of the pairs of which one alone lies in a run of cells, by width and last cell of the run.

    Args:
        low: first cell of each pair, in the order of how far their cells are apart.
        high: second one.
        weights: of each pair; None: one each.
        near: by cells in a run, how many of the pairs are less far apart.
        count: cells.
    """
    ends = np.cumsum(np.bincount(low, weights, count) + np.bincount(high, weights, count))
    for width, few in near.items():
        inside = None if weights is None else weights[:few]
        both = np.bincount(high[:few], inside, count + width) - np.bincount(low[:few] + width, inside, count + width)
        found = ends - 2 * np.cumsum(both)[:count]
        found[width:] -= ends[:-width]
        yield np.asarray(found, np.float64)


def _best(excess: Floats, number: Floats) -> int:
    """Return where the mean excess of so many pairs is farthest above chance."""
    return int(np.where(number < FEWEST_AROUND, 0, excess * np.abs(excess) / np.maximum(number, 1)).argmax())


def _last(low: Ints, high: Ints, excess: Floats, start: int, rows: int) -> int:
    """Return the likeliest row behind a run that begins at a row; the pairs as in `_Pairs`."""
    inside, across = low >= start, (low < start) & (high >= start)

    def sums(weights: Floats) -> Floats:
        made = np.bincount(low[inside] + 1, weights[inside], rows + 2) + np.bincount(
            high[across] + 1, weights[across], rows + 2
        )
        made -= np.bincount(high[inside] + 1, weights[inside], rows + 2)
        return np.asarray(np.cumsum(made)[start + _CELL : rows + 1], np.float64)

    return start + _CELL + _best(sums(excess), sums(np.ones(len(excess))))
