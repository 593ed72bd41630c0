"""Chips beside each other on the ground, and how well pictures or patches fit together along their common edge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Tiles = npt.NDArray[np.float32]
"""[chips, rows, columns, values]: the first row is the northern one, the first column the western one."""

_SOUTH = 1 << 20
"""Difference of two keys whose rows differ by one."""
_EARTH = 6_371_000.0
_APART = 0.3
"""By which share of a side the distance of two neighbors in different zones may differ from a side."""
_OVERLAP = 4
"""Cells of a row that are tried beyond a zone's last one."""


@dataclass(frozen=True)
class Pairs:
    """Places of neighbors: the second is east of the first, or has the next row number."""

    east: tuple[Ints, Ints]
    next: tuple[Ints, Ints]

    @classmethod
    def of(cls, keys: Ints) -> "Pairs":
        """Find them by the keys of `ExtraTables.blocks_of_chips`: image or zone and window, row, column."""
        lookup = _Lookup(keys)
        return cls(lookup.moved(1), lookup.moved(_SOUTH))

    @property
    def count(self) -> int:
        """Pairs in all."""
        return len(self.east[0]) + len(self.next[0])


@dataclass(frozen=True)
class Seam:
    """Pairs of neighbors with a seam between them, and for each a pair just beside it, in the same direction."""

    across: tuple[Ints, Ints]
    inside: tuple[Ints, Ints]

    @classmethod
    def of(cls, keys: Ints, labels: Ints) -> "Seam":
        """Find the neighbors whose labels differ, by keys as in `Pairs.of`."""
        lookup = _Lookup(keys)
        found = []
        for step in (1, _SOUTH):
            first, second = lookup.moved(step)
            differ = labels[first] != labels[second]
            found.append(lookup.seam(first[differ], second[differ], step, labels))
        return cls.joined(found)

    @classmethod
    def of_zones(cls, keys: Ints, lon: Floats, lat: Floats, side: float) -> "Seam":
        """Find the neighbors in two zones: cells of one row, about a side apart, where the rows of both zones end.

        Args:
            keys: as in `Pairs.of`, of the `utm` layout. Rows of two zones have the same northings at the seam.
            lon: of the centers.
            lat: of the centers.
            side: of a cell, in meters.
        """
        lookup, whose, row = _Lookup(keys), keys >> 40, keys >> 20 & (_SOUTH - 1)
        zone, window = whose // 4096, whose % 4096
        eastern = zone // 100 * 100 + zone % 100 % 60 + 1
        west, east = (np.delete(np.arange(len(keys)), lookup.moved(step)[0]) for step in (1, -1))
        rows = _Lookup(((zone * 4096 + window) * _SOUTH + row)[east])
        found = rows.place(((eastern * 4096 + window) * _SOUTH + row)[west])
        first, start = west[found >= 0], east[found[found >= 0]]
        seams = []
        for step in range(_OVERLAP):  # cells of two zones overlap
            second = lookup.place(keys[start] + step)
            apart = np.radians((lon[second] - lon[first] + 180) % 360 - 180) * np.cos(np.radians(lat[first]))
            near = (second >= 0) & (np.abs(apart * _EARTH / side - 1) < _APART)
            seams.append(lookup.seam(first[near], second[near], 1, zone))
        return cls.joined(seams)

    @classmethod
    def joined(cls, seams: Sequence["Seam"]) -> "Seam":
        """Put several together."""
        across, inside = (
            tuple(np.concatenate([getattr(seam, name)[side] for seam in seams]) for side in (0, 1))
            for name in ("across", "inside")
        )
        return cls((across[0], across[1]), (inside[0], inside[1]))

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Seam":
        """Some of its pairs."""
        across, inside = (tuple(side[chosen] for side in pair) for pair in (self.across, self.inside))
        return Seam((across[0], across[1]), (inside[0], inside[1]))


class _Lookup:
    """Places of keys."""

    def __init__(self, keys: Ints) -> None:
        self.keys = keys
        self.order = np.argsort(keys, kind="stable")
        self.sorted = keys[self.order]

    def place(self, keys: Ints) -> Ints:
        """Where each of these is; -1 where it is not."""
        at = np.minimum(np.searchsorted(self.sorted, keys), max(len(self.sorted) - 1, 0))
        if not len(at):
            return np.empty(0, np.int64)
        return np.where(self.sorted[at] == keys, self.order[at], -1)

    def moved(self, step: int) -> tuple[Ints, Ints]:
        """Places that have a neighbor at this step, and where it is."""
        found = self.place(self.keys + step)
        there = np.flatnonzero(found >= 0)
        return there, found[there]

    def seam(self, first: Ints, second: Ints, step: int, labels: Ints) -> Seam:
        """Join pairs to the one just before or just behind them, by turns where there are both; leave out the others.

        Args:
            first: places.
            second: their neighbors.
            step: from the one to the other.
            labels: of all places; the pair beside has the label of the place that it shares.
        """
        before, behind = self.place(self.keys[first] - step), self.place(self.keys[second] + step)
        before_fits = (before >= 0) & (labels[before] == labels[first])
        behind_fits = (behind >= 0) & (labels[behind] == labels[second])
        use_before = before_fits & (~behind_fits | (np.arange(len(first)) % 2 == 0))
        inside = np.where(use_before, before, second), np.where(use_before, first, behind)
        return Seam((first, second), inside).where(before_fits | behind_fits)


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
