"""Chips beside each other on the ground, and how well pictures or patches fit together along their common edge."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clay_publish.validate.data.chip_facts import ReleaseFacts

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Tiles = npt.NDArray[np.float32]
"""[chips, rows, columns, values]: the first row is the northern one, the first column the western one."""

EAST, NEXT = 1, 1 << 20
"""Difference of the keys of two chips whose columns, or rows, differ by one."""
STEPS = (EAST, NEXT)


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


@dataclass(frozen=True)
class Crossing:
    """Pairs of neighbors on both sides of a line, and how much they differ."""

    first: Ints
    second: Ints
    step: Ints
    """From the key of the first to that of the second."""
    across: Floats
    before: Floats
    """Difference of the pair before in the same direction, which ends at the first; NaN where there is none."""
    behind: Floats
    """Difference of the pair behind, which begins at the second; NaN where there is none."""

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def joined(cls, parts: "Sequence[Crossing]") -> "Crossing":
        """Put several together."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def where(self, chosen: Bools) -> "Crossing":
        """Some of the pairs."""
        return Crossing(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @property
    def ratio(self) -> float:
        """Median difference of the pairs over that of the pairs beside them."""
        beside = np.concatenate([self.before, self.behind])
        return float(np.median(self.across) / max(np.median(beside[np.isfinite(beside)]), 1e-12))

    @property
    def excess(self) -> Floats:
        """As `_excess`."""
        return _excess(self.across, self.before, self.behind)


def _excess(across: Floats, *beside: Floats) -> Floats:
    """Return 1 where a pair differs more than the pairs beside it, -1 where less; 0 on average where there is no line.

    Where it differs more than the one and less than the other, it is 0, and NaN where there are none.
    """
    total, count = np.zeros_like(across), np.zeros_like(across)
    for each in beside:
        known = np.isfinite(each)
        total[known] += np.sign(across[known] - each[known])
        count += known
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


class Differences:
    """How much chips differ from their neighbors, and where that shows along a line."""

    def __init__(self, values: npt.NDArray[np.float32], keys: Ints) -> None:
        self._values, self._keys, self._lookup = values, keys, Lookup(keys)
        self._before = {step: self._lookup.places(keys - step) for step in STEPS}
        self.after = {step: self._lookup.places(keys + step) for step in STEPS}
        """By direction, the place of each chip's neighbor; -1 where there is none."""
        every = np.arange(len(keys))
        self._beyond = {step: self._between(every, self.after[step]) for step in STEPS}
        self.excess = {
            step: _excess(differs, _at(differs, self._before[step]), _at(differs, self.after[step]))
            for step, differs in self._beyond.items()
        }
        """By direction, whether each chip and its neighbor differ more than the pairs beside them (as `_excess`)."""

    def _between(self, first: Ints, second: Ints) -> Floats:
        """Mean absolute difference of the values of each pair; NaN where a place is -1."""
        known = np.flatnonzero((first >= 0) & (second >= 0))
        differences, total = np.full(len(first), np.nan), np.zeros(len(known))
        for column in self._values.T:  # one at a time needs less memory
            total += np.abs(column[first[known]] - column[second[known]])
        differences[known] = total / self._values.shape[1]
        return differences

    def across(self, labels: Ints, alike: Ints) -> Crossing:
        """Neighbors whose labels differ and for whom `alike` is the same; pairs beside them do not cross the line."""
        both = labels * (alike.max(initial=0) + 2) + alike
        parts = []
        for step in STEPS:
            after = self.after[step]
            first = np.flatnonzero((after >= 0) & (labels != labels[after]) & (alike == alike[after]))
            parts.append(self.beside(first, after[first], step, both))
        return Crossing.joined(parts)

    def beside(self, first: Ints, second: Ints, step: int, labels: Ints) -> Crossing:
        """Look up the pairs beside the given ones, with labels as theirs, and leave out those that have none."""
        previous, following = self._before[step][first], self.after[step][second]
        before = np.where(labels[previous] == labels[first], _at(self._beyond[step], previous), np.nan)
        behind = np.where(labels[following] == labels[second], self._beyond[step][second], np.nan)
        found = Crossing(first, second, np.full(len(first), step), self._between(first, second), before, behind)
        return found.where(np.isfinite(before) | np.isfinite(behind))

    def parallel(self, crossing: Crossing, away: int, labels: Ints) -> Floats:
        """Return the excess of pairs so many steps away from each, in the same direction; where labels are the same."""
        start = crossing.first if away < 0 else crossing.second
        moved = self._lookup.places(self._keys[start] + crossing.step * (away if away < 0 else away - 1))
        found = []
        for step in STEPS:
            mine = (crossing.step == step) & (moved >= 0)
            at, end = moved[mine], self.after[step][moved[mine]]
            same = (end >= 0) & (labels[at] == labels[start[mine]]) & (labels[end] == labels[start[mine]])
            found.append(self.excess[step][at[same]])
        excess = np.concatenate(found)
        return excess[np.isfinite(excess)]


def _at(values: Floats, places: Ints) -> Floats:
    return np.where(places >= 0, values[places], np.nan)


@dataclass(frozen=True)
class ComparedChips:
    """The chips that are compared with their neighbors: those of all files, or of some of a very large release."""

    values: npt.NDArray[np.float32]
    """[chips, values]: a few values of each, as `_standardized` gives them."""
    keys: Ints
    """As in `Lookup`."""
    rows: Ints
    """In the release."""
    files: list[slice]
    """Places of the chips of each file."""
    paths: list[str]
    """Of these files."""

    @classmethod
    def of(cls, facts: ReleaseFacts, keys: Ints) -> "ComparedChips":
        """Take what the pass kept of each vector; `keys` are those of all chips of the release."""
        slices = facts.slices()
        paths = [path for path in facts.some if len(facts.some[path]) == slices[path].stop - slices[path].start]
        if not paths:
            return cls(np.empty((0, 1), np.float32), np.empty(0, np.int64), np.empty(0, np.int64), [], [])
        rows = np.concatenate([np.arange(slices[path].start, slices[path].stop) for path in paths])
        ends = np.cumsum([len(facts.some[path]) for path in paths]).tolist()
        files = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        return cls(_standardized(np.concatenate([facts.some[path] for path in paths])), keys[rows], rows, files, paths)

    @cached_property
    def file(self) -> Ints:
        """Number of the file of each chip."""
        return np.repeat(np.arange(len(self.files)), [each.stop - each.start for each in self.files])

    @cached_property
    def differences(self) -> Differences:
        """How much they differ from their neighbors."""
        return Differences(self.values, self.keys)


def _standardized(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each column less its median, in robust standard deviations, cut at five."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.nan_to_num(values, posinf=0, neginf=0)
        centered = finite - np.median(finite, axis=0)
        spread = 1.4826 * np.median(np.abs(centered), axis=0) + 1e-12
        return np.asarray(np.clip(centered / spread, -5, 5), dtype=np.float32)


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
