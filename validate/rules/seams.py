"""Rules on lines that should not show: around runs of rows, files and superblocks, between zones and images.

Chips beside each other look more or less alike, whatever the ground. A pair of neighbors across a line is compared with
the pairs just beside it: on ground that knows nothing of the line, each of them differs most as often as the others.
What follows a line over a long way, such as a shore or the fields along a road, shows on lines parallel to it as well.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clay_publish.errors import shown
from clay_publish.geo.utm_grid import SOUTH, Cut, UtmGrid
from clay_publish.release.directory import EMBEDDINGS
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.neighbors import EAST, STEPS, ComparedChips, Crossing, Floats, Ints, Lookup
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome
from clay_publish.validate.registry import rule

_FEWEST = 200
"""Chips below which nothing is said, and pairs of neighbors across the lines of a kind in a window."""
_FEWEST_AROUND = 30
"""Pairs of neighbors across the edge of one file, superblock, image or run of rows, at least."""
_CHANCE = 1e-6
"""Of a finding on good vectors, after correction for the lines that are looked at."""
_RATIO = 1.25
"""How many times as much neighbors may differ across a line inside an image as beside it, or as little."""
_OF_IMAGES = 4.0
"""The same between images of one acquisition, which were corrected for the atmosphere apart from each other."""
_AWAY = tuple(away for distance in range(2, 9) for away in (-distance, distance))
"""How many chips away from a line parallel ones are compared with it."""
_MOST = 10
"""Files, superblocks or images of which one finding each is made."""


def _evidence(excess: Floats | float, count: npt.NDArray[np.integer] | int) -> Floats:
    """Return minus the logarithm of the largest probability that chance gives such a mean, on one side.

    Chernoff's bound for means of values from -1 to 1 that are 0 on average. On real ground, means of neighbors along a
    line spread less than that allows.
    """
    more, less = (1 + np.asarray(excess, np.float64)) / 2, (1 - np.asarray(excess, np.float64)) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(share > 0, share * np.log(2 * share), 0.0) for share in (more, less)]
    return np.asarray(count * (terms[0] + terms[1]), np.float64)


@dataclass(frozen=True)
class _Line:
    """Where neighbors differ more, or less, across a line than beside it, and by how much."""

    ratio: float
    pairs: int

    @classmethod
    def of(cls, chips: ComparedChips, pairs: Crossing, labels: Ints, tests: int, limit: float) -> "_Line | None":
        """Return what shows; None if nothing does, chance may explain it, or lines parallel to it show as well."""
        excess = float(pairs.excess.mean())
        if _evidence(excess, len(pairs)) <= math.log(2 * tests / _CHANCE):
            return None
        ratio = pairs.ratio
        if 1 / limit <= ratio <= limit:
            return None
        for away in _AWAY:
            parallel = chips.differences.parallel(pairs, away, labels)
            if len(parallel) >= len(pairs) / 2 and abs(float(parallel.mean())) > abs(excess) / 2:
                return None
        return cls(ratio, len(pairs))

    def __str__(self) -> str:
        return f"neighbors differ {self.ratio:.2f} times as much across {{}} as beside them ({self.pairs:,} pairs)"


@dataclass(frozen=True)
class _Seam:
    """Edges of one kind."""

    kind: str
    """In the plural."""
    pairs: Crossing
    labels: Ints
    """Of all chips: which file, superblock, zone or image."""
    inside: Ints
    """Of all chips: the same where no edge of any kind lies between them that may show."""
    limit: float = _RATIO
    apart: bool = True
    """Whether the edges of a single file, superblock or image are looked at, too."""

    def where(self, chosen: npt.NDArray[np.bool_]) -> "_Seam":
        """Some of its pairs."""
        return replace(self, pairs=self.pairs.where(chosen))

    @cached_property
    def _ends(self) -> tuple[Ints, Ints, Ints]:
        """Labels that occur, and for each pair which of them its first and its second has."""
        found, ends = np.unique(self.labels[np.stack([self.pairs.first, self.pairs.second])], return_inverse=True)
        first, second = ends.reshape(2, -1)
        return found, first, second

    def _around(self, left: npt.NDArray[np.bool_]) -> tuple[Ints, Floats]:
        """Pairs around each label among those that are left, and the sums of their excess."""
        found, *ends = self._ends
        excess = np.where(left, self.pairs.excess, 0)
        counts = sum(np.bincount(end, left, len(found)) for end in ends)
        return np.asarray(counts, np.int64), np.asarray(sum(np.bincount(end, excess, len(found)) for end in ends))

    @cached_property
    def tests(self) -> int:
        """Lines that are looked at."""
        if not self.apart:
            return 1
        counts, _ = self._around(np.ones(len(self.pairs), dtype=bool))
        return 1 + int((counts >= _FEWEST_AROUND).sum())

    def faults(self, chips: ComparedChips, tests: int, place: Callable[[str, int, int], str]) -> Iterator[Fault]:
        """Name the files, superblocks or images whose edges show; or say that edges show, where none stands out."""
        expected = f"{1 / self.limit:.2f} to {self.limit:.2f} times as much"
        named = False
        for label, line in self._labels_that_show(chips, tests):
            named = True
            first = int(np.flatnonzero(self.labels == label)[0])
            yield Fault(place(self.kind, label, first), str(line).format("its edge"), expected)
        line = None if named else _Line.of(chips, self.pairs, self.inside, tests, self.limit)
        if line is not None:
            yield Fault(EMBEDDINGS, str(line).format(f"edges of {self.kind}"), expected)

    def _labels_that_show(self, chips: ComparedChips, tests: int) -> Iterator[tuple[int, _Line]]:
        """The most certain first; its pairs say nothing of those behind it any more."""
        if not self.apart or len(self._ends[0]) < 2:
            return
        found, first, second = self._ends
        left, tried = np.ones(len(self.pairs), dtype=bool), np.zeros(len(found), dtype=bool)
        for _ in range(_MOST):
            counts, sums = self._around(left)
            certain = _evidence(sums / np.maximum(counts, 1), counts)
            certain[tried | (counts < _FEWEST_AROUND)] = 0
            best = int(certain.argmax())
            if certain[best] <= math.log(2 * tests / _CHANCE):
                return
            tried[best] = True
            mine = left & ((first == best) | (second == best))
            line = _Line.of(chips, self.pairs.where(mine), self.inside, tests, self.limit)
            if line is not None:
                left &= ~mine
                yield int(found[best]), line


@rule("VEC025")
def seams_do_not_show(context: ReleaseContext) -> Iterator[Outcome]:
    """Differences of neighbors across edges of files, superblocks, zones and images, over those beside the edge."""
    chips = context.compared
    if len(chips.values) < _FEWEST:
        yield NotChecked(f"{len(chips.values):,} chips are too few to tell")
        return
    named, order = context.tables.named, context.tables.windows
    windows = np.array([order.index(named[path].window) if path in named else -1 for path in chips.paths])
    groups: list[_Seam] = []
    for seam in _seams(context, chips):
        whose = windows[chips.file[seam.pairs.first]]
        parts = (seam.where(whose == window) for window in np.unique(whose).tolist())
        groups += [part for part in parts if len(part.pairs) >= _FEWEST]
    if not groups:
        yield NotChecked(f"no kind of edge has {_FEWEST} pairs of neighbors")
        return
    tests = sum(group.tests for group in groups)

    def place(kind: str, label: int, first: int) -> str:
        if kind == "images":
            return f"item {shown(context.sources.items[label].id)}"
        path, row = context.scan.facts.place(int(chips.rows[first]))
        return path if kind == "files" else f"{path}: the superblock of row {row}"

    for group in groups:
        yield from group.faults(chips, tests, place)


def _seams(context: ReleaseContext, chips: ComparedChips) -> Iterator[_Seam]:
    """Where chips were made apart from each other."""
    images = _images(context, chips)
    inside = _both(chips.file, images)
    yield _Seam("files", chips.differences.across(chips.file, images), chips.file, inside)
    if context.fingerprint.layout == "scene":
        return  # where neighbors are of one image
    if not context.fingerprint.combines:
        blocks = _superblocks(context, chips)
        yield _Seam("superblocks", chips.differences.across(blocks, inside), blocks, _both(blocks, images))
    zones, pairs = chips.keys >> 40, _across_zones(context, chips)
    same = images[pairs.first] == images[pairs.second]
    yield _Seam("zones", pairs.where(same), zones, _both(zones, images), apart=False)
    if images.max(initial=-1) < 0:
        return  # chips are made of several images
    known = [source.counted_as for source in context.sources.items]
    looks = np.unique([*known, ""], return_inverse=True)[1][images]
    joined = Crossing.joined([chips.differences.across(images, looks), pairs.where(~same)])
    joined = joined.where(looks[joined.first] == looks[joined.second])
    yield _Seam("images", joined, images, images, _OF_IMAGES)


def _images(context: ReleaseContext, chips: ComparedChips) -> Ints:
    """Number of the image of each chip; -1 of chips that are made of several."""
    return np.asarray(context.scan.facts["items"][chips.rows], np.int64)


def _both(labels: Ints, others: Ints) -> Ints:
    """A number for each pair of labels from -1 on."""
    return np.asarray(labels * (others.max(initial=0) + 2) + others, np.int64)


def _superblocks(context: ReleaseContext, chips: ComparedChips) -> Ints:
    """Number of the part of a file that was warped in one go; a file is one where its name says no square."""
    facts, fingerprint, across = context.scan.facts, context.fingerprint, context.documents.spec.outputs.across
    made = np.zeros(len(chips.rows), np.int64)
    for path, places in zip(chips.paths, chips.files, strict=True):
        if path in context.tables.named and fingerprint.gsd is not None:
            grid = UtmGrid(fingerprint.size * fingerprint.gsd)
            cut = Cut.of(grid, context.tables.named[path].square, fingerprint.size, across)
            rows, cols = (facts[name][chips.rows[places]].astype(np.int64) for name in ("rows", "cols"))
            down, right = cut.superblocks(rows, cols)
            made[places] = down * 4096 + right
    return chips.file * (4096 * 4096) + made


def _across_zones(context: ReleaseContext, chips: ComparedChips) -> Crossing:
    """Chips at the eastern end of their zone, and the cell of the next zone that lies about a side east of them."""
    facts, fingerprint = context.scan.facts, context.fingerprint
    lon, lat = facts["lon"][chips.rows], facts["lat"][chips.rows]
    ends = (chips.differences.after[EAST] < 0) & np.isfinite(lon) & (np.abs(lat) < -SOUTH)
    zones = chips.keys >> 40
    if fingerprint.gsd is None or len(np.unique(zones)) < 2:
        ends[:] = False
    first = np.flatnonzero(ends)
    grid = UtmGrid(fingerprint.size * (fingerprint.gsd or 1))
    degrees = grid.cell / _METERS / np.cos(np.radians(lat[first]))
    epsg, row, col = grid.cells_at(lon[first] + degrees, lat[first])
    down, right = (a - facts[name][chips.rows[first]] for a, name in ((row, "rows"), (col, "cols")))
    zone = epsg % 1000 - zones[first] // 4096
    second = Lookup(chips.keys).places(chips.keys[first] + (zone * 4096 << 40) + (down << 20) + right)
    apart = ((lon[second] - lon[first] + 180) % 360 - 180) / degrees, (lat[second] - lat[first]) * _METERS / grid.cell
    near = (second >= 0) & (zone != 0) & (np.abs(apart[0] - 1) < _OFF) & (np.abs(apart[1]) < _OFF)
    return chips.differences.beside(first[near], second[near], EAST, zones)


_METERS = 111_320.0
"""In a degree of latitude, about."""
_OFF = 0.3
"""Share of a side by which neighbors in two zones may be nearer, farther, or beside each other."""


_CELL = 16
"""Rows that begin or end a run together."""
_WIDTHS = (4, 6, 8, 12, 16, 24, 32)
"""Cells of a run; longer ones are of cells four times as long."""


@rule("VEC013")
def no_batch_effects(context: ReleaseContext) -> Iterator[Outcome]:
    """Differences of neighbors across the edge of each run of 64 rows and more, over those beside it."""
    chips = context.compared
    if len(chips.values) < _FEWEST:
        yield NotChecked(f"{len(chips.values):,} chips are too few to tell")
        return
    images = _images(context, chips)
    tests, found = 0, []
    for places in chips.files:
        for number, certain, start, stop in _runs(chips, images, places):
            tests += number
            found.append((certain, start, stop))
    for certain, start, stop in sorted(found, reverse=True)[:_MOST]:
        if certain <= math.log(2 * tests / _CHANCE):
            return
        labels = np.zeros(len(chips.rows), np.int64)
        labels[start:stop] = 1
        inside = _both(_both(chips.file, labels), images)
        pairs = chips.differences.across(labels, _both(chips.file, images))
        line = _Line.of(chips, pairs, inside, tests, _RATIO)
        if line is not None and line.ratio > 1:
            path, row = context.scan.facts.place(int(chips.rows[start]))
            found = f"about {stop - start:,} rows are shifted: {line}".format("their edge")
            yield Fault(f"{path}: from about row {row}", found, f"at most {_RATIO} times as much")
            return


def _runs(chips: ComparedChips, images: Ints, places: slice) -> Iterator[tuple[int, float, int, int]]:
    """Of each length: the number of runs of a file, the evidence that the likeliest is shifted, its start and end."""
    pairs = []
    for step in STEPS:
        first = np.arange(places.start, places.stop)
        second, excess = chips.differences.after[step][first], chips.differences.excess[step][first]
        own = (second >= places.start) & (second < places.stop) & (images[first] == images[second])
        pairs.append(np.stack([first, second, excess], axis=1)[own & np.isfinite(excess)])
    first, second, excess = np.concatenate(pairs).T
    rows, cell = places.stop - places.start, _CELL
    while rows > _WIDTHS[0] * cell:
        count = -(-rows // cell)
        cells = ((np.sort(np.stack([first, second]), axis=0) - places.start) // cell).astype(np.int64)
        for width in _WIDTHS:
            if width >= count:
                break
            number, total = (_crossing(*cells, weights, width, count) for weights in (np.ones(len(excess)), excess))
            certain = np.where(
                (number >= _FEWEST_AROUND) & (total > 0), _evidence(total / np.maximum(number, 1), number), 0
            )
            best = int(certain.argmax())
            start, stop = (best - width + 1) * cell, (best + 1) * cell
            yield len(certain), float(certain[best]), places.start + max(start, 0), places.start + min(stop, rows)
        cell *= 4


def _crossing(low: Ints, high: Ints, weights: Floats, width: int, count: int) -> Floats:
    """Sum the weights of the pairs of which one alone lies in a run of `width` cells that ends with each of the cells.

    Args:
        low: first cell of each pair.
        high: second cell.
        weights: of each pair.
        width: cells in a run.
        count: cells.
    """
    both = high < low + width
    size = count + 2 * width
    begins = np.bincount(low, weights, size) + np.bincount(high, weights, size)
    begins -= 2 * np.bincount(high[both], weights[both], size)
    ends = np.bincount(low + width, weights, size) + np.bincount(high + width, weights, size)
    ends -= 2 * np.bincount(low[both] + width, weights[both], size)
    return np.asarray(np.cumsum(begins - ends)[:count], np.float64)
