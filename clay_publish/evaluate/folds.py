"""Spatially blocked folds with a buffer: places near each other are never on both sides of a split."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from clay_publish.evaluate.samples import Samples, positions
from clay_publish.release.benchmarks import FoldSizes
from clay_publish.search.query import QueryError

_RADIUS_KM = 6371.0088
_SIDES = (500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1)
"""Kilometers of a block's side; the largest that gives enough blocks is taken."""
_BLOCKS_PER_FOLD = 4
_FEWEST_TEST = 2
_FEWEST_TRAIN = 10


@dataclass(frozen=True)
class Folds:
    """A division of places."""

    fold: npt.NDArray[np.int64]
    """[n], the fold in which each place is tested."""
    train: npt.NDArray[np.bool_]
    """[folds, n], the places that the models of a fold are trained on."""
    block_km: float
    buffer_km: float
    seed: int

    @property
    def count(self) -> int:
        """How many."""
        return len(self.train)

    @property
    def sizes(self) -> FoldSizes:
        """As they are published."""
        test = [int((self.fold == number).sum()) for number in range(self.count)]
        train = [int(count) for count in self.train.sum(axis=1)]
        return FoldSizes(
            count=self.count,
            block_km=self.block_km,
            buffer_km=self.buffer_km,
            seed=self.seed,
            test=test,
            train=train,
        )


def split(
    samples: Samples, count: int = 5, *, block_km: float | None = None, buffer_km: float | None = None, seed: int = 0
) -> Folds:
    """Divide places into folds of whole blocks.

    Blocks are of equal side: rows of latitude, cut by as many meridians as fit. They go in seeded random order to the
    fold that has the fewest places. Training leaves out places within the buffer around any tested place, and those of
    a chip that is tested.

    Args:
        samples: the places.
        count: how many folds.
        block_km: side of a block; default: the largest of a few round lengths that gives four blocks per fold.
        buffer_km: default: a tenth of a block, at least a chip's side.
        seed: of the order.

    Raises:
        QueryError: too few blocks or places.
    """
    side = block_km or _largest(samples, count)
    block = _blocks(samples, side)
    buffer = max(side / 10, samples.side_m / 1000) if buffer_km is None else buffer_km
    number = int(block.max()) + 1 if len(block) else 0
    if number < count:
        raise QueryError(
            "folds",
            f"{len(block):,} places lie in {number} blocks of {side:g} km",
            f"at least {count} blocks, one per fold",
            "Pass a smaller --block KM, fewer --folds, or more labels.",
        )
    sizes = np.bincount(block, minlength=number)
    load = np.zeros(count, dtype=np.int64)
    of_block = np.empty(number, dtype=np.int64)
    for each in np.random.default_rng(seed).permutation(number):
        of_block[each] = load.argmin()
        load[of_block[each]] += sizes[each]
    fold = of_block[block]
    made = Folds(fold, _training(samples, fold, count, buffer), side, round(buffer, 6), seed)
    _check(made)
    return made


def _largest(samples: Samples, count: int) -> float:
    for side in _SIDES:
        if _blocks(samples, side).max() + 1 >= _BLOCKS_PER_FOLD * count:
            return side
    return _SIDES[-1]


def _blocks(samples: Samples, side: float) -> npt.NDArray[np.int64]:
    """[n], the block of each place, numbered from 0 from south to north and west to east."""
    degree = math.pi * _RADIUS_KM / 180
    rows = math.ceil(180 * degree / side)
    row = np.minimum(np.floor((samples.lat + 90) / 180 * rows), rows - 1).astype(np.int64)
    middle = np.radians((row + 0.5) / rows * 180 - 90)
    columns = np.maximum(1, np.ceil(360 * degree * np.cos(middle) / side)).astype(np.int64)
    column = np.floor(np.mod(samples.lon + 180, 360) / 360 * columns).astype(np.int64)
    _, block = np.unique(np.stack([row, column], axis=1), axis=0, return_inverse=True)
    return np.asarray(block, dtype=np.int64).ravel()


def _training(samples: Samples, fold: npt.NDArray[np.int64], count: int, buffer: float) -> npt.NDArray[np.bool_]:
    places = positions(samples)
    train = np.empty((count, len(fold)), dtype=bool)
    for number in range(count):
        test = fold == number
        if not test.any():
            train[number] = ~test
            continue
        chord, _ = cKDTree(places[test]).query(places)
        away = 2 * np.arcsin(np.clip(chord / 2, 0, 1)) * _RADIUS_KM
        train[number] = ~test & (away >= buffer) & ~np.isin(samples.chips, samples.chips[test])
    return train


def _check(made: Folds) -> None:
    for test, train in zip(made.sizes.test, made.sizes.train, strict=True):
        if test < _FEWEST_TEST or train < _FEWEST_TRAIN:
            raise QueryError(
                "folds",
                f"a fold tests {test:,} places and trains on {train:,} beyond a buffer of {made.buffer_km:g} km",
                f"at least {_FEWEST_TEST} and {_FEWEST_TRAIN}",
                "Pass a smaller --buffer KM or --block KM, fewer --folds, or more labels.",
            )
