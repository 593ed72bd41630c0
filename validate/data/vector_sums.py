"""What is summed up over all vectors: one sweep, in blocks that stay in a core's cache.

Nothing here goes through BLAS: its threads wait for work by spinning, and every file is already read by a thread of its
own.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RUN = 64
"""Consecutive rows whose mean is kept, to see runs that are shifted against their neighbours."""

PROJECTIONS = 16
"""Directions on which it is kept, at most."""

SOME = 8
"""Values, and 8-byte words, that are kept of each vector."""

_BLOCK = 256
"""Rows at once: 1 MB of 1024 floats. Whole runs."""


class Sums:
    """Sums over the vectors of a batch."""

    def __init__(self, rows: int, dimensions: int) -> None:
        self.squares = np.zeros(rows, dtype=np.float32)
        """Σ x², by row; not finite where a vector has NaN or Inf, or where it overflows."""
        self.runs = np.zeros((rows // RUN, min(PROJECTIONS, dimensions)), dtype=np.float32)
        """Means of 64 rows on fixed directions."""
        self.low = np.full(dimensions, np.inf, dtype=np.float32)
        """A value by dimension: below `high` where the dimension varies, the same where it does not."""
        self.high = np.full(dimensions, -np.inf, dtype=np.float32)
        self.some = np.zeros((min(SOME, dimensions), rows), dtype=np.float32)
        """Values of a few dimensions, spread over all: a line a dimension."""
        self.words: npt.NDArray[np.uint64] = np.zeros((rows, 0), dtype=np.uint64)
        """A few 8-byte words of each vector as it is stored, and last the sum of all of them."""


@cache
def _directions(dimensions: int) -> tuple[Floats, npt.NDArray[np.intp]]:
    """A fixed random sign for each dimension, and where each group of neighbouring dimensions begins.

    The signed sums of the groups are the directions: a shift of any kind shows on some of them.
    """
    signs = np.random.default_rng(20160112).choice(np.array([-1, 1], np.float32), dimensions)
    edges = np.arange(min(PROJECTIONS, dimensions)) * dimensions // min(PROJECTIONS, dimensions)
    return (signs / (np.sqrt(dimensions) * RUN)).astype(np.float32), edges.astype(np.intp)


def sums_of(stored: npt.NDArray[Any], values: Callable[[slice], Floats]) -> Sums:
    """Sweep over the vectors, (n, D) as they are stored; `values` gives some rows of them as float32."""
    rows, dimensions = stored.shape
    made = Sums(rows, dimensions)
    if dimensions == 0:
        return made
    length = -(-dimensions * stored.itemsize // 8)
    step = max(1, length // SOME)
    made.words = np.empty((rows, -(-length // step) + 1), dtype=np.uint64)
    signs, edges = _directions(dimensions)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows, _BLOCK):
            part = slice(start, min(start + _BLOCK, rows))
            block = values(part)
            words = _words(stored[part], length)
            made.words[part, :-1] = words[:, ::step]
            words.sum(axis=1, out=made.words[part, -1])
            made.some[:, part] = block[:, :: dimensions // len(made.some)][:, :SOME].T
            np.vecdot(block, block, out=made.squares[part])
            whole = len(block) // RUN
            if whole:
                sums = block[: whole * RUN].reshape(whole, RUN, dimensions).sum(axis=1)
                first = start // RUN
                made.runs[first : first + whole] = np.add.reduceat(sums * signs, edges, axis=1)
            # A dimension that was seen to vary need not be looked at again.
            still = np.flatnonzero(~(made.low < made.high))
            if still.size:
                rest = block if still.size == dimensions else block[:, still]
                made.low[still] = np.fmin(made.low[still], rest.min(axis=0))
                made.high[still] = np.fmax(made.high[still], rest.max(axis=0))
    return made


def _words(stored: npt.NDArray[Any], length: int) -> npt.NDArray[np.uint64]:
    """The bytes of vectors as so many 8-byte words each, zeros behind them."""
    raw = np.ascontiguousarray(stored).view(np.uint8).reshape(len(stored), -1)
    if raw.shape[1] % 8:
        raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8)))
    return raw.view(np.uint64).reshape(-1, length)
