"""Chips beside each other on the ground, and how well pictures or patches fit together along their common edge."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clay_publish.validate.data.chip_facts import ReleaseFacts
from clay_publish.validate.spilled import Column

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.int8]
Singles = npt.NDArray[np.float32]
Tiles = npt.NDArray[np.float32]
"""[chips, rows, columns, values]: the first row is the northern one, the first column the western one."""
Given = TypeVar("Given")
Made = TypeVar("Made")

EAST, NEXT = 1, 1 << 20
"""Difference of the keys of two chips whose columns, or rows, differ by one."""
STEPS = (EAST, NEXT)
FEWEST_BESIDE, MOST_BESIDE = 2, 4
"""Pairs that a pair of neighbors is compared with."""


class Lookup:
    """Places of chips by their keys, as `ExtraTables.blocks_of_chips` gives them: whose, row, column."""

    def __init__(self, keys: Ints) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._ordered = keys[self._order]

    def places(self, keys: Ints) -> Ints:
        """Return the place of each of these keys; -1 where there is none."""
        if not len(self._ordered):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._ordered, keys), len(self._ordered) - 1)
        return np.where(self._ordered[at] == keys, self._order[at], -1)


@dataclass(frozen=True)
class Pairs:
    """Places of neighbors: the second is east of the first, or has the next row number."""

    east: tuple[Ints, Ints]
    next: tuple[Ints, Ints]

    @classmethod
    def of(cls, keys: Ints) -> "Pairs":
        """Find them by keys as in `Lookup`."""
        lookup = Lookup(keys)

        def shifted(step: int) -> tuple[Ints, Ints]:
            found = lookup.places(keys + step)
            there = np.flatnonzero(found >= 0)
            return there, found[there]

        return cls(shifted(EAST), shifted(NEXT))

    @property
    def count(self) -> int:
        """Pairs in all."""
        return len(self.east[0]) + len(self.next[0])

    def among(self, start: int, stop: int) -> "Pairs":
        """Pairs of these places alone."""

        def some(pairs: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
            inside = (np.minimum(*pairs) >= start) & (np.maximum(*pairs) < stop)
            return pairs[0][inside], pairs[1][inside]

        return Pairs(some(self.east), some(self.next))


@dataclass(frozen=True)
class Crossing:
    """Pairs of neighbors on both sides of a line, with the two pairs before and the two behind them as they go on."""

    first: Ints
    second: Ints
    step: Ints
    """From the key of the first to that of the second."""
    differences: Singles
    """[5, pairs], of neighbors in the order in which they lie, the third across the line; NaN where there are none."""

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def joined(cls, parts: "Sequence[Crossing]") -> "Crossing":
        """Put several together."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts], axis=-1) for each in fields(cls)))

    def where(self, chosen: Bools) -> "Crossing":
        """Some of the pairs."""
        return Crossing(*(getattr(self, each.name)[..., chosen] for each in fields(self)))

    @property
    def ratio(self) -> float:
        """Median difference of the pairs over that of the pairs just beside them."""
        return float(np.median(self.differences[2]) / max(np.nanmedian(self.differences[[1, 3]]), 1e-12))

    @cached_property
    def excess(self) -> Floats:
        """Rank of each pair among itself and those beside it, from -1 if it differs least to 1 if it differs most."""
        return _excess(self.differences)

    @cached_property
    def counts(self) -> Floats:
        """[3, pairs], 1 where a pair has two, three or four beside it."""
        return np.equal.outer(range(FEWEST_BESIDE, MOST_BESIDE + 1), _beside(self.differences)).astype(np.float64)


FiveDifferences = tuple[Singles, Singles, Singles, Singles, Singles]
"""As `Crossing` has them."""


def _beside(differences: FiveDifferences | Singles) -> Bytes:
    return np.asarray(sum(np.isfinite(differences[at]).astype(np.int8) for at in (0, 1, 3, 4)), np.int8)


def _excess(differences: FiveDifferences | Singles) -> Floats:
    middle = differences[2]
    ranks = sum((middle > differences[at]).astype(np.int8) - (middle < differences[at]) for at in (0, 1, 3, 4))
    return np.asarray(ranks / np.maximum(_beside(differences), 1), np.float64)


def mean_differences(values: npt.NDArray[np.float32], first: Ints, second: Ints) -> Floats:
    """Mean absolute difference of the values of each pair."""
    share = np.full(values.shape[1], 1 / values.shape[1], np.float32)
    found = np.empty(len(first))
    for start in range(0, len(first), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        between = values.take(first[part], axis=0)
        between -= values.take(second[part], axis=0)
        found[part] = np.vecdot(np.abs(between, out=between), share)
    return found


_AT_ONCE = 16_384
"""Pairs whose values stay in the cache of a processor."""


class Direction:
    """All chips and their neighbors in one direction."""

    def __init__(self, values: npt.NDArray[np.float32], images: Ints, after: Ints) -> None:
        self.first = np.flatnonzero(after >= 0)
        """Chips that have a neighbor."""
        self.second = after[self.first]
        self._after, self._before = np.append(after, -1), np.full(len(after) + 1, -1)  # -1 leads from -1 to -1
        self._before[self.second[::-1]] = self.first[::-1]
        self.differences = np.full(len(after), np.nan, np.float32)
        """Of each chip and its neighbor, of whichever image; NaN where there is none."""
        self.differences[self.first] = mean_differences(values, self.first, self.second)
        in_image = np.where(images == images[after], self.differences, np.float32(np.nan))
        self._in_image = np.append(in_image, np.float32(np.nan))
        five = self.five(np.arange(len(after)), after, in_image)
        self.beside = _beside(five)
        """Pairs that each chip and its neighbor are compared with."""
        known = np.isfinite(five[2]) & (self.beside >= FEWEST_BESIDE)
        self.excess = np.where(known, _excess(five), np.nan)
        """Of each chip and its neighbor of the same image, as of a `Crossing`; NaN where it is not known."""

    @property
    def after(self) -> Ints:
        """Place of each chip's neighbor; -1 where there is none."""
        return self._after[:-1]

    def five(self, first: Ints, second: Ints, across: Singles) -> FiveDifferences:
        """Put the differences of the pairs beside around those of some pairs."""
        left, found = self._before[first], self._in_image
        return found[self._before[left]], found[left], across, found[second], found[self._after[second]]

    def crossing(self, first: Ints, second: Ints, step: int, across: Singles) -> Crossing:
        """Leave out pairs that have fewer than two beside them."""
        found = Crossing(first, second, np.full(len(first), step), np.stack(self.five(first, second, across)))
        return found.where(np.isfinite(across) & (_beside(found.differences) >= FEWEST_BESIDE))


class Differences:
    """How much chips differ from their neighbors, and where that shows along a line."""

    def __init__(self, values: npt.NDArray[np.float32], keys: Ints, images: Ints) -> None:
        self._values, self._keys, self._images, self._lookup = values, keys, images, Lookup(keys)
        self.along = dict(zip(STEPS, on_all_cores(self._direction, STEPS), strict=True))
        """By step."""

    def _direction(self, step: int) -> Direction:
        return Direction(self._values, self._images, self._lookup.places(self._keys + step))

    def crossing(self, first: Ints, second: Ints) -> Crossing:
        """Pairs of chips that lie side by side, east of each other, though their keys do not say so."""
        across = mean_differences(self._values, first, second).astype(np.float32)
        return self.along[EAST].crossing(first, second, EAST, across)

    def across(self, labels: Ints, *, images: bool = False) -> Crossing:
        """Neighbors of one image whose labels differ; of two with `images`."""
        parts = []
        for step, way in self.along.items():
            first, second = way.first, way.second
            differ = (labels[first] != labels[second]) & ((self._images[first] != self._images[second]) == images)
            first, second = first[differ], second[differ]
            parts.append(way.crossing(first, second, step, way.differences[first]))
        return Crossing.joined(parts)

    def parallel(self, crossing: Crossing, away: int, labels: Ints) -> Floats:
        """Return the excess of pairs so many steps away from each, in the same direction; where labels are the same."""
        start = crossing.first if away < 0 else crossing.second
        moved = self._lookup.places(self._keys[start] + crossing.step * (away if away < 0 else away - 1))
        found = []
        for step, way in self.along.items():
            mine = (crossing.step == step) & (moved >= 0)
            at, end = moved[mine], way.after[moved[mine]]
            same = (end >= 0) & (labels[at] == labels[start[mine]]) & (labels[end] == labels[start[mine]])
            found.append(way.excess[at[same]])
        excess = np.concatenate(found)
        return np.asarray(excess[np.isfinite(excess)], np.float64)


def on_all_cores(function: Callable[[Given], Made], each: Iterable[Given]) -> list[Made]:
    """Apply a function in threads, as NumPy leaves the interpreter to others in large operations; results in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, each))


@dataclass(frozen=True)
class ComparedChips:
    """The chips that are compared with their neighbors: those of all files, or of some of a very large release."""

    values: npt.NDArray[np.float32]
    """[chips, values]: a few values of each, as `_standardized` gives them."""
    keys: Ints
    """As in `Lookup`."""
    rows: Ints
    """In the release."""
    images: Ints
    """Number of the image of each; -1 of chips that are made of several."""
    files: list[slice]
    """Places of the chips of each file."""
    paths: list[str]
    """Of these files."""

    @classmethod
    def of(cls, facts: ReleaseFacts, keys: Column) -> "ComparedChips":
        """Take what the pass kept of each vector; `keys` are those of all chips of the release."""
        slices = facts.slices()
        paths = [path for path in facts.some if len(facts.some[path]) == slices[path].stop - slices[path].start]
        if not paths:
            return cls(np.empty((0, 1), np.float32), *(np.empty(0, np.int64),) * 3, [], [])
        rows = np.concatenate([np.arange(slices[path].start, slices[path].stop) for path in paths])
        ends = np.cumsum([len(facts.some[path]) for path in paths]).tolist()
        files = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        values = _standardized(np.concatenate([facts.some[path] for path in paths]))
        return cls(values, keys[rows], rows, facts["items"][rows].astype(np.int64), files, paths)

    @cached_property
    def file(self) -> Ints:
        """Number of the file of each chip."""
        return np.repeat(np.arange(len(self.files)), [each.stop - each.start for each in self.files])

    @cached_property
    def differences(self) -> Differences:
        """How much they differ from their neighbors."""
        return Differences(self.values, self.keys, self.images)


def _standardized(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each column less its median, in robust standard deviations, cut at five."""
    found = np.empty(values.shape, np.float32)

    def column(at: int) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            mine = values[:, at]
            finite = np.where(np.isfinite(mine), mine, np.float32(0))
            centered = finite - _median(finite)
            spread = 1.4826 * _median(np.abs(centered)) + 1e-12
            np.clip(centered / spread, -5, 5, out=found[:, at])

    on_all_cores(column, range(values.shape[1]))
    return found


def _median(values: npt.NDArray[np.float32]) -> np.float32:
    """As `np.median`, which takes three times as long as sorting."""
    ordered = np.sort(values)
    return np.float32(ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]].mean())


def _turned(tiles: Tiles) -> dict[str, Tiles]:
    """The eight ways to lay tiles: turned, and mirrored."""
    found = {}
    for name, flipped in (("", tiles), ("mirrored", tiles[:, :, ::-1])):
        for quarter in range(4):
            said = " and ".join(part for part in (name, f"turned by {90 * quarter}°" if quarter else "") if part)
            if quarter % 2 == 0 or tiles.shape[1] == tiles.shape[2]:
                found[said] = np.rot90(flipped, quarter, axes=(1, 2))
    return found


def edge_differences(tiles: Tiles, pairs: Pairs, *, southward: bool) -> Floats:
    """Mean absolute difference along the common edge of each pair; `southward` if row numbers grow to the south."""
    first, second = pairs.east
    beside = np.abs(tiles[first][:, :, -1] - tiles[second][:, :, 0]).mean(axis=(1, 2), dtype=np.float64)
    first, second = pairs.next if southward else pairs.next[::-1]
    below = np.abs(tiles[first][:, -1] - tiles[second][:, 0]).mean(axis=(1, 2), dtype=np.float64)
    return np.concatenate([beside, below])


def random_differences(tiles: Tiles, pairs: Pairs) -> Floats:
    """The same for tiles that are not neighbors: each is held against that of another pair."""
    draw = np.random.default_rng(11)
    others = [(first, second[np.roll(draw.permutation(len(second)), 1)]) for first, second in (pairs.east, pairs.next)]
    return edge_differences(tiles, Pairs(*others), southward=True)


def scattered_places(tiles: Tiles) -> tuple[float, float] | None:
    """How much tiles vary less between adjacent places than between any, against places that are most alike.

    Both are shares of the difference between any two places, of half of the chips; which places are most alike is seen
    in the other half. None if nothing varies.
    """
    rows, cols = tiles.shape[1:3]
    flat = tiles.reshape(len(tiles), rows * cols, -1)
    number = np.arange(rows * cols).reshape(rows, cols)
    beside = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    first, second = (np.concatenate([pair[side].ravel() for pair in beside]) for side in (0, 1))
    halves = []
    for half in (flat[::2], flat[1::2]):
        likeness = np.einsum("npv,nqv->pq", half, half, dtype=np.float64) / max(len(half), 1)
        square = np.diag(likeness)
        halves.append(square[:, None] + square[None] - 2 * likeness)
    one, other = np.triu_indices(rows * cols, 1)
    seen, tested = (half[one, other] for half in halves)
    if not len(first) or tested.mean() <= 0:
        return None
    alike = np.argsort(seen)[: len(first)]
    usual = float(tested.mean())
    return 1 - float(halves[1][first, second].mean()) / usual, 1 - float(tested[alike].mean()) / usual


def better_arrangement(tiles: Tiles, pairs: Pairs, *, southward: bool) -> tuple[str, float] | None:
    """Return how tiles fit best, turned or in other rows, and by how many standard errors; None if they fit as is."""
    ways = {name: edge_differences(laid, pairs, southward=southward) for name, laid in _turned(tiles).items()}
    as_is = ways.pop("")
    for step in (-2, -1, 1, 2):
        ways[f"in rows moved by {step:+}"] = edge_differences(np.roll(tiles, step, axis=0), pairs, southward=southward)
    ways["in reverse order"] = edge_differences(tiles[::-1], pairs, southward=southward)
    best, found = 0.0, None
    for name, differences in ways.items():
        gain = as_is - differences
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) + 1e-12
        if gain.mean() / error > best:
            best, found = float(gain.mean() / error), name
    return None if found is None else (found, best)
