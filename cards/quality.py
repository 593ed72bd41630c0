"""Figures about the vectors that need no labels."""

from dataclasses import dataclass

import numpy as np

from clay_publish.cards.ground import Floats
from clay_publish.cards.sample import Sample


@dataclass(frozen=True)
class Spread:
    """How values are distributed."""

    low: float
    """Smallest."""
    lower: float
    """5th percentile."""
    median: float
    upper: float
    """95th percentile."""
    high: float
    """Largest."""

    @classmethod
    def of(cls, values: Floats) -> "Spread":
        """The spread of at least one value."""
        low, lower, median, upper, high = (float(v) for v in np.percentile(values, [0, 5, 50, 95, 100]))
        return cls(low, lower, median, upper, high)


@dataclass(frozen=True)
class Quality:
    """What was found."""

    vectors: int
    """How many were looked at."""
    whole: bool
    """Whether these are all there are."""
    norm: Spread
    loss: Spread | None
    cosine: float | None
    """Mean cosine similarity of two chips drawn at random; None where there is only one."""
    explained: float
    """Share of the variance in the first three principal components."""
    effective: float
    """Effective number of dimensions."""


def quality(sample: Sample) -> Quality:
    """Sum up a sample."""
    losses = sample.loss[np.isfinite(sample.loss)]
    return Quality(
        vectors=len(sample.norms),
        whole=sample.whole,
        norm=Spread.of(sample.norms),
        loss=Spread.of(losses) if len(losses) else None,
        cosine=sample.cosine,
        explained=float(sample.components.explained.sum()),
        effective=sample.components.effective,
    )
