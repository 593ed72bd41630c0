"""Whether neighbors differ more across a line than chance and the ground explain.

A pair of neighbors across the line is ranked among the pairs before and behind it. On ground that knows nothing of the
line, each of them is as likely as the others to differ most.
"""

import math
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

FEWEST_AROUND = 24
"""Pairs of neighbors across the edge of one file, superblock, image or run of rows, at least."""
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
