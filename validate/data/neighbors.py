"""Chips beside each other on the ground, and how well pictures or patches fit together along their common edge."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Tiles = npt.NDArray[np.float32]
"""[chips, rows, columns, values]: the first row is the northern one, the first column the western one."""

_SOUTH = 1 << 20
"""Difference of two keys whose rows differ by one."""


@dataclass(frozen=True)
class Pairs:
    """Places of neighbors: the second is east of the first, or has the next row number."""

    east: tuple[Ints, Ints]
    next: tuple[Ints, Ints]

    @classmethod
    def of(cls, keys: Ints) -> "Pairs":
        """Find them by the keys of `ExtraTables.blocks_of_chips`: image or zone and window, row, column."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]

        def shifted(step: int) -> tuple[Ints, Ints]:
            at = np.minimum(np.searchsorted(ordered, ordered + step), max(len(ordered) - 1, 0))
            there = np.flatnonzero(ordered[at] == ordered + step) if len(ordered) else at
            return order[there], order[at[there]]

        return cls(shifted(1), shifted(_SOUTH))

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
