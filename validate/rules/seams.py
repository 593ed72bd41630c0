"""Rules on lines that should not show: around runs of rows, files and superblocks, between zones and images.

Chips beside each other look more or less alike, whatever the ground. A pair of neighbors across a line is compared with
the pairs just beside it: on ground that knows nothing of the line, each of them differs most as often as the others.
What follows a line over a long way, such as a shore or the fields along a road, shows on lines parallel to it as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from clay_publish.errors import shown
from clay_publish.geo.utm_grid import SOUTH, Cut, UtmGrid
from clay_publish.release.directory import EMBEDDINGS
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.lines import FEWEST_AROUND, SHARED, Line, evidence_of, least_evidence, likely_runs
from clay_publish.validate.data.neighbors import EAST, ComparedChips, Crossing, Floats, Ints, Lookup, on_all_cores
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled, SkippedError
from clay_publish.validate.registry import rule

_FEWEST = 200
"""Chips below which nothing is said, and pairs of neighbors across the lines of a kind in a window."""
_RATIO = 1.25
"""How many times as much neighbors may differ across a line inside an image as beside it, or as little."""
_OF_IMAGES = 4.0
"""The same between images of one acquisition, which were corrected for the atmosphere apart from each other."""
_MOST = 10
"""Files, superblocks or images of which one finding each is made."""


@dataclass(frozen=True)
class _Seam:
    """Edges of one kind."""

    kind: str
    """In the plural."""
    pairs: Crossing
    labels: Ints
    """Of all chips: which file, superblock, zone or image."""
    limit: float = _RATIO
    apart: bool = True
    """Whether the edges of a single file, superblock or image are looked at, too."""
    elsewhere: "Callable[[], Iterator[_Seam]]" = field(default=lambda: iter(()))
    """Gives edges of the same shape that lie elsewhere, and have to show less."""

    @cached_property
    def _ends(self) -> tuple[Ints, Ints, Ints]:
        """Labels that occur, and for each pair which of them its first and its second has."""
        found, ends = np.unique(self.labels[np.stack([self.pairs.first, self.pairs.second])], return_inverse=True)
        first, second = ends.reshape(2, -1)
        return found, first, second

    def _around(self, left: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Sums of the excess of the pairs around each label, and their counts, among those that are left."""
        found, *ends = self._ends
        weights = np.where(left, np.stack([self.pairs.excess, *self.pairs.counts]), 0)
        sums = np.stack([sum(np.bincount(end, each, len(found)) for end in ends) for each in weights])
        return sums[0], sums[1:]

    @cached_property
    def tests(self) -> int:
        """Lines that are looked at."""
        if not self.apart:
            return 1
        _, counts = self._around(np.ones(len(self.pairs), dtype=bool))
        return 1 + int((counts.sum(axis=0) >= FEWEST_AROUND).sum())

    def faults(self, chips: ComparedChips, tests: int, place: Callable[[str, int, int], str]) -> Iterator[Fault]:
        """Name the files, superblocks or images whose edges show; or say that edges show, where none stands out."""
        expected = f"{1 / self.limit:.2f} to {self.limit:.2f} times as much"
        found = list(self._labels_that_show(chips, tests))
        whole = None if found else Line.of(chips, self.pairs, self.labels, tests, self.limit)
        least = max((each.strongest for each in self.elsewhere()), default=0.0) / SHARED if found or whole else 0.0
        for label, line in found:
            first = int(np.flatnonzero(self.labels == label)[0])
            if line.evidence > least:
                yield Fault(place(self.kind, label, first), str(line).format("its edge"), expected)
        if whole is not None and whole.evidence > least:
            yield Fault(EMBEDDINGS, str(whole).format(f"edges of {self.kind}"), expected)

    @property
    def strongest(self) -> float:
        """Evidence of the edge that shows most."""
        excess, counts = self._around(np.ones(len(self.pairs), dtype=bool))
        whole = evidence_of(self.pairs.excess.sum(), self.pairs.counts.sum(axis=1))
        return float(evidence_of(excess, counts).max(initial=float(whole)))

    def _labels_that_show(self, chips: ComparedChips, tests: int) -> Iterator[tuple[int, Line]]:
        """The most certain first; its pairs say nothing of those behind it any more."""
        if not self.apart or len(self._ends[0]) < 2:
            return
        found, first, second = self._ends
        left, tried = np.ones(len(self.pairs), dtype=bool), np.zeros(len(found), dtype=bool)
        for _ in range(_MOST):
            excess, counts = self._around(left)
            certain = evidence_of(excess, counts)
            certain[tried | (counts.sum(axis=0) < FEWEST_AROUND)] = 0
            best = int(certain.argmax())
            if certain[best] <= least_evidence(tests):
                return
            tried[best] = True
            mine = left & ((first == best) | (second == best))
            line = Line.of(chips, self.pairs.where(mine), self.labels, tests, self.limit)
            if line is not None:
                left &= ~mine
                yield int(found[best]), line


@rule("VEC025")
def seams_do_not_show(context: ReleaseContext) -> Iterator[Outcome]:
    """Differences of neighbors across edges of files, superblocks, zones and images, over those beside the edge."""
    chips = _compared(context)
    yield Sampled(len(chips.rows), context.scan.facts.rows)
    named, order = context.tables.named, context.tables.windows
    windows = np.array([order.index(named[path].window) if path in named else -1 for path in chips.paths])
    groups: list[_Seam] = []
    for seam in _seams(context, chips):
        whose = windows[chips.file[seam.pairs.first]]
        parts = (replace(seam, pairs=seam.pairs.where(whose == window)) for window in np.unique(whose).tolist())
        groups += [part for part in parts if len(part.pairs) >= _FEWEST]
    if not groups:
        yield NotChecked(f"no kind of edge has {_FEWEST} pairs of neighbors")
        return
    tests = sum(group.tests for group in groups)

    def place(kind: str, label: int, first: int) -> str:
        if kind == "images":
            return f"item {shown(context.sources.item(label).id)}"
        path, row = context.scan.facts.place(int(chips.rows[first]))
        return path if kind == "files" else f"{path}: the superblock of row {row}"

    for group in groups:
        yield from group.faults(chips, tests, place)


def _compared(context: ReleaseContext) -> ComparedChips:
    """Return the chips that are compared with their neighbors.

    Raises:
        SkippedError: they are too few.
    """
    chips = context.compared
    if len(chips.rows) < _FEWEST:
        raise SkippedError(EMBEDDINGS, f"hold {len(chips.rows):,} chips that can be compared, too few to tell")
    return chips


def _seams(context: ReleaseContext, chips: ComparedChips) -> Iterator[_Seam]:
    """Where chips were made apart from each other."""
    yield _Seam("files", chips.differences.across(chips.file), chips.file)
    if context.fingerprint.layout == "scene":
        return  # where neighbors are of one image
    if not context.fingerprint.combines:
        elsewhere = partial(map, partial(_superblocks, context, chips), (0.2, 0.4, 0.6, 0.8))
        yield replace(_superblocks(context, chips), elsewhere=elsewhere)
    zones, pairs = chips.keys >> 40, _across_zones(context, chips)
    same = chips.images[pairs.first] == chips.images[pairs.second]
    yield _Seam("zones", pairs.where(same), zones, apart=False)
    looks = context.sources.acquisitions(chips.images)
    pairs = Crossing.joined([chips.differences.across(chips.images, images=True), pairs.where(~same)])
    yield _Seam("images", pairs.where(looks[pairs.first] == looks[pairs.second]), chips.images, _OF_IMAGES)


def _superblocks(context: ReleaseContext, chips: ComparedChips, moved: float = 0.0) -> _Seam:
    """Edges of the parts of a file that were warped in one go, or edges moved by a share of a side both ways.

    A file whose name says no square is one part.
    """
    facts, fingerprint, across = context.scan.facts, context.fingerprint, context.documents.spec.outputs.across
    made = np.zeros(len(chips.rows), np.int64)
    for path, places in zip(chips.paths, chips.files, strict=True):
        if path in context.tables.named and fingerprint.gsd is not None:
            grid = UtmGrid(fingerprint.size * fingerprint.gsd)
            cut = Cut.of(grid, context.tables.named[path].square, fingerprint.size, across)
            rows, cols = (facts[name][chips.rows[places]].astype(np.int64) for name in ("rows", "cols"))
            down, right = cut.superblocks(rows + round(moved * cut.side), cols + round(moved * cut.side))
            made[places] = down * 4096 + right
    blocks = chips.file * (4096 * 4096) + made
    pairs = chips.differences.across(blocks)
    return _Seam("superblocks", pairs.where(chips.file[pairs.first] == chips.file[pairs.second]), blocks)


def _across_zones(context: ReleaseContext, chips: ComparedChips) -> Crossing:
    """Chips at the eastern end of their zone, and the cell of the next zone that lies about a side east of them."""
    facts, fingerprint = context.scan.facts, context.fingerprint
    lon, lat = facts["lon"][chips.rows], facts["lat"][chips.rows]
    ends = (chips.differences.along[EAST].after < 0) & np.isfinite(lon) & (np.abs(lat) < -SOUTH)
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
    return chips.differences.crossing(first[near], second[near])


_METERS = 111_320.0
"""In a degree of latitude, about."""
_OFF = 0.3
"""Share of a side by which neighbors in two zones may be nearer, farther, or beside each other."""


@rule("VEC013")
def no_batch_effects(context: ReleaseContext) -> Iterator[Outcome]:
    """Differences of neighbors across the edge of each run of 64 rows and more, over those beside it."""
    chips = _compared(context)
    yield Sampled(len(chips.rows), context.scan.facts.rows)
    runs = on_all_cores(partial(likely_runs, chips), chips.files)
    tests = sum(each.tests for each in runs)
    likely = (run for each in runs for run in each.found if run[0] > least_evidence(tests))
    for _, start, stop in sorted(likely, reverse=True)[:_MOST]:
        labels = np.zeros(len(chips.rows), np.int64)
        labels[start:stop] = 1
        pairs = chips.differences.across(labels)
        pairs = pairs.where(chips.file[pairs.first] == chips.file[pairs.second])
        line = Line.of(chips, pairs, labels, tests, _RATIO)
        if line is not None and line.ratio > 1:
            path, row = context.scan.facts.place(int(chips.rows[start]))
            found = f"about {stop - start:,} rows are shifted: {line}".format("their edge")
            yield Fault(f"{path}: from about row {row}", found, f"at most {_RATIO} times as much")
            return
