"""The `utm` layout: one unit, or a few, for each 100 km square and window that holds expected cells."""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.errors import SourceError
from clay_publish.geo.area import Area, items_area
from clay_publish.geo.expected_cells import (
    NONE,
    Runs,
    ZoneCells,
    difference,
    expected_cells,
    intersection,
    is_near,
    size,
    touched_cells,
    union,
)
from clay_publish.geo.footprints import polygons
from clay_publish.geo.utm_grid import SUPERBLOCK, Cut, UtmGrid
from clay_publish.geo.utm_zones import SQUARE, Square
from clay_publish.producer.imagery.chips import ChipBlock, Reading
from clay_publish.producer.layouts.base import (
    Areas,
    Chosen,
    Counts,
    Ints,
    ItemTimes,
    Places,
    SquareCount,
    UncoveredCells,
    Unit,
    unit_id,
)
from clay_publish.producer.layouts.utm import Cells, read_cells, touches
from clay_publish.producer.layouts.utm_composite import read_combined
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.release.directory import DataFile
from clay_publish.spec.models import Imagery
from clay_publish.windows import Window, window_of

MAX_CELLS = 16_384
"""Cells of a unit; a square of smaller cells is shared among several."""


@dataclass(frozen=True)
class UtmUnit(Unit):
    """Cells of one square and window, and the images that reach them."""

    cells: Cells

    @property
    def chips(self) -> int:
        """One per cell."""
        return len(self.cells)

    @property
    def rivals(self) -> str:
        """All images of its window."""
        return self.window.token

    def read(self, reading: Reading) -> Generator[ChipBlock]:
        """Its chips, one superblock at a time."""
        return read_cells(self.cells, self.items, self.window, reading, read_combined)

    def missing(self, reason: str, detail: str) -> ChipBlock:
        """All of its cells."""
        square, count = self.cells.cut.square, len(self.cells)
        places = _places(self.cells.grid, np.full(count, square.epsg), self.cells.rows, self.cells.cols, self.window)
        tried = tuple(sorted({item.id for item in self.items}))
        return places.missing([square] * count, square.epsg, tried, (reason, detail))

    def touched(self, images: Sequence[shapely.Geometry | None], outlines: npt.NDArray[np.object_]) -> Chosen:
        """Those that share ground with an image; all where one does not say where it lies."""
        found = np.zeros(len(outlines), dtype=bool)
        for image in images:
            if not found.all():
                found[~found] = touches(image, outlines[~found])
        return found

    def part(self, chosen: Chosen, decided: dict[str, Any], *, reused: bool) -> "UtmUnit":
        """Some of its cells."""
        every = self.cells
        cells = Cells.of(every.grid, every.cut, every.rows[chosen], every.cols[chosen], every.excluded)
        return _unit(cells, self.window, _Footprints(self.items), decided, reused=reused)


@dataclass(frozen=True)
class WindowSources:
    """One window: the images used and excluded, and the ground expected of it."""

    window: Window
    numbers: list[int]
    """Of `used`, among all images that were considered."""
    used: list[SourceItem]
    excluded: tuple[SourceItem, ...]
    area: Area


@dataclass(frozen=True)
class UtmLayout:
    """The Earth cut once; images are brought to its cells."""

    gsd: float
    size: int
    """Pixels per side of a cell."""
    blocks: tuple[Imagery, ...]
    across: int = 1
    """100 km squares along a side of the ground of one file."""
    superblock: int = SUPERBLOCK
    """Pixels along a side of what is read in one go, at most."""
    resampling: str = "all bands are warped to the cell's pixels, bilinear, at the ground scale of each axis"

    @cached_property
    def grid(self) -> UtmGrid:
        """The cells of the Earth."""
        return UtmGrid(self.size * self.gsd)

    def units(self, considered: Sequence[Considered], areas: Areas, decided: dict[str, Any]) -> tuple[UtmUnit, ...]:
        """One unit, or a few, for each square and window.

        A cell that two blocks ask for in the same window is made once, from the images of both.

        Raises:
            SourceError: the images cover no whole cell.
        """
        made = tuple(
            _unit(cells, each.window, images, decided)
            for each in self.windows(considered, areas)
            for images in [_Footprints(each.used)]
            for zone in expected_cells(self.grid, each.area.geometry, rule=each.area.rule)
            for cells in self.by_square(zone, each.excluded)
        )
        if not made:
            raise SourceError(
                "imagery",
                f"holds no whole cell of {self.grid.cell:g} m",
                "an area, or images larger than a chip",
                ". ".join(
                    [*self.beyond(considered, areas), "Choose a smaller chips.size or chips.gsd, or scene layout."]
                ),
            )
        return made

    def windows(self, considered: Sequence[Considered], areas: Areas) -> Iterator[WindowSources]:
        """The windows of all blocks, in order. Blocks that share a window share its images and its ground."""
        used: dict[Window, list[int]] = defaultdict(list)
        excluded: dict[Window, list[SourceItem]] = defaultdict(list)
        blocks: dict[Window, set[int]] = defaultdict(set)
        stated = [block.parsed_windows() for block in self.blocks]
        for number, windows in enumerate(stated):
            for window in windows:
                blocks[window].add(number)
        for number, each in enumerate(considered):
            if each.status not in {"used", "excluded"}:
                continue
            own = _window_of(each.item, stated[each.item.block])
            if own is not None:
                if each.status == "used":
                    used[own].append(number)
                else:
                    excluded[own].append(each.item)
                blocks[own].add(each.item.block)
        for window in sorted(blocks):
            grounds = [areas[number] for number in sorted(blocks[window])]
            asked = [ground.geometry for ground in grounds if ground is not None]
            images = [considered[number].item for number in used[window]]
            if len(asked) == len(grounds):
                area = Area("area", shapely.union_all(asked) if len(asked) > 1 else asked[0])
            else:
                area = items_area(np.array([*_shapes(images), *asked], dtype=object))
            if not area.geometry.is_empty:
                yield WindowSources(window, used[window], images, tuple(excluded[window]), area)

    def by_square(self, zone: ZoneCells, excluded: tuple[SourceItem, ...]) -> Iterator[Cells]:
        """Cells of a zone by square, and by share where a square holds too many."""
        _, rows, cols = zone.cells()
        column = np.floor_divide((cols + 0.5) * self.grid.cell, SQUARE).astype(np.int64)
        line = np.floor_divide((rows + 0.5) * self.grid.cell, SQUARE).astype(np.int64)
        column, line = column - column % self.across, line - line % self.across
        order = np.lexsort((line, column))
        begins = np.flatnonzero((np.diff(column[order]) != 0) | (np.diff(line[order]) != 0)) + 1
        for mine in np.split(order, begins) if len(order) else ():
            square = Square(zone.zone, int(column[mine[0]]), int(line[mine[0]]))
            cut = Cut.of(self.grid, square, self.size, self.across, pixels=self.superblock)
            deep = cut.side * max(1, MAX_CELLS // (cut.side * cut.count))
            share = (rows[mine] - cut.row) // deep
            for number in np.unique(share):
                chosen = mine[share == number]
                yield Cells.of(self.grid, cut, rows[chosen], cols[chosen], excluded)

    def count(self, considered: Sequence[Considered], areas: Areas) -> Counts:
        """Cells of all windows, as runs along rows."""
        squares: list[SquareCount] = []
        by_item = np.zeros(len(considered), np.int64)
        missing: list[UncoveredCells] = []
        ground, zones = None, list[ZoneCells]()
        for each in self.windows(considered, areas):
            if each.area.geometry is not ground:  # which all windows of one block share
                ground = each.area.geometry
                zones = list(expected_cells(self.grid, ground, rule=each.area.rule))
            used, excluded, numbers = _Footprints(each.used), _Footprints(each.excluded), np.array(each.numbers)
            for zone in zones:
                covered, out, images = NONE, NONE, Counter[Square]()
                for alike, which, runs in used.touching(zone):
                    covered = _together(covered, runs)
                    cells = np.bincount(which, runs[2] - runs[1], minlength=len(alike)).astype(int)
                    counts = np.array([len(same) for same in alike])
                    by_item[numbers[np.concatenate(alike)]] += np.repeat(cells, counts)
                    images.update(_images(zone, which, runs, counts, self.across))
                for _, _, runs in excluded.touching(zone):
                    out = _together(out, runs)
                left_out = difference(out, covered)
                squares += _squares(zone, each.window, covered, left_out, images, across=self.across)
                nothing = difference(difference(zone.runs, covered), left_out)
                reasons = (("no_imagery", nothing), ("excluded", left_out))
                missing += [UncoveredCells(zone.zone, each.window, why, runs) for why, runs in reasons if size(runs)]
        ordered = sorted(squares, key=lambda each: (each.window, each.square))
        return Counts(tuple(ordered), by_item, tuple(missing), self.across)

    def beyond(self, considered: Sequence[Considered], areas: Areas) -> list[str]:
        """What lies too far north or south."""
        images = items_area(
            _shapes(each.item for each in considered if each.status == "used" and areas[each.item.block] is None)
        )
        grounds = [*(area for area in areas if area is not None), images]
        return [sentence for ground in grounds if not ground.geometry.is_empty for sentence in ground.beyond()]

    def ground_size(self, units: Sequence[Unit]) -> float:  # noqa: ARG002 - of the protocol
        """The same everywhere."""
        return self.gsd

    def rivals(self, item: ItemTimes, block: Imagery) -> str | None:
        """All images of a window."""
        window = _window_of(item, block.parsed_windows())
        return None if window is None else window.token

    def together(self, file: DataFile) -> int | None:
        """Those of one zone, in whose folder all of its cells lie."""
        return file.square.zone

    def owners(self, chips: pa.Table) -> Ints:
        """The number of the reference system."""
        return np.asarray(chips["epsg"].to_numpy().astype(np.int64))

    def places(self, chips: pa.Table, side: int, window: Window, units: Sequence[Unit]) -> Places:  # noqa: ARG002
        """Cells of the grid that is `side` times coarser."""
        row, col = (chips[name].to_numpy().astype(np.int64) // side for name in ("row", "col"))
        found = _places(UtmGrid(self.grid.cell * side), chips["epsg"].to_numpy(), row, col, window)
        return replace(found, across=self.across)


def _places(grid: UtmGrid, epsg: Any, rows: Ints, cols: Ints, window: Window) -> Places:
    lon, lat = grid.centers(epsg, rows, cols)
    cells = zip(epsg.tolist(), rows.tolist(), cols.tolist(), strict=True)
    ids = np.array([grid.chip_id(*cell, window) for cell in cells], dtype=object)
    return Places(ids, epsg, rows, cols, lon, lat, grid.footprints(epsg, rows, cols))


def _window_of(item: ItemTimes, windows: Sequence[Window]) -> Window | None:
    """The window an image belongs to: the one of its block that holds it, else its own days."""
    return window_of(item.acquired, windows) if windows else item.window


def _unit(
    cells: Cells, window: Window, images: "_Footprints", decided: dict[str, Any], *, reused: bool = False
) -> UtmUnit:
    near = images.near(_outline(cells))
    numbers = cells.grid.numbers(cells.cut.square.epsg, cells.rows, cells.cols)
    name = unit_id(near, numbers.tobytes(), {**decided, "window": window.token})
    return UtmUnit(name, near, window, (DataFile(cells.cut.square, window),), cells, reused=reused)


def _outline(cells: Cells) -> shapely.Geometry:
    """Ground of a unit's cells, generously: what its outermost corners span, and 0.05° around it."""
    rows = np.array([cells.rows.min(), cells.rows.max()])[[0, 0, 1, 1]]
    cols = np.array([cells.cols.min(), cells.cols.max()])[[0, 1, 0, 1]]
    lon, lat = cells.grid.centers(cells.cut.square.epsg, rows, cols)
    middle = 6.0 * cells.cut.square.zone - 183.0
    lon = middle + np.mod(lon - middle + 180.0, 360.0) - 180.0  # in one piece, around the zone
    beyond = 2 * cells.grid.cell / 111_000 / np.cos(np.radians(np.abs(lat).max())) + 0.05
    ring = shapely.get_coordinates(shapely.multipoints(np.stack([lon, lat], axis=-1)).convex_hull.buffer(beyond))
    outline: shapely.Geometry = polygons(np.mod(ring[None, :, 0] + 180, 360) - 180, ring[None, :, 1])[0]
    return outline


_AT_ONCE = 256
"""Footprints whose cells are worked out at once."""
_BOUNDED = 4096
"""Footprints that are in memory at once to find their bounds."""


class _Footprints:
    """The ground of images."""

    def __init__(self, items: Sequence[SourceItem]) -> None:
        self._items = items
        parts = (items[start : start + _BOUNDED] for start in range(0, len(items), _BOUNDED))
        bounds = [shapely.bounds(shapely.from_wkb([item.footprint for item in part])) for part in parts]
        self._west, self._south, self._east, self._north = np.concatenate([np.empty((0, 4)), *bounds]).T
        self._nowhere = np.array([item.footprint is None for item in items], dtype=bool)

    def near(self, outline: shapely.Geometry) -> tuple[SourceItem, ...]:
        """Images that share ground with an outline, or do not say where they lie."""
        west, south, east, north = outline.bounds
        inside = (self._west <= east) & (self._east >= west) & (self._south <= north) & (self._north >= south)
        some = [self._items[n] for n in np.flatnonzero(inside | self._nowhere).tolist()]
        return tuple(i for i in some if i.footprint is None or shapely.intersects(i.geometry, outline))

    def touching(self, zone: ZoneCells) -> Iterator[tuple[list[list[int]], Ints, Runs]]:
        """Images of one footprint, some of these at a time; the expected cells they touch, and which of them do."""
        if self._nowhere.any():  # images that do not say where they lie: any cell may be of them
            yield [np.flatnonzero(self._nowhere).tolist()], np.zeros_like(zone.runs[0]), zone.runs
        alike: dict[bytes | None, list[int]] = defaultdict(list)
        for number in np.flatnonzero(is_near(zone.zone, self._west, self._east) & ~self._nowhere).tolist():
            alike[self._items[number].footprint].append(number)
        groups = list(alike.items())
        for start in range(0, len(groups), _AT_ONCE):
            outlines, some = zip(*groups[start : start + _AT_ONCE], strict=True)
            which, touched = touched_cells(zone.grid, shapely.from_wkb(outlines), zone.zone)
            run, runs = intersection(touched, zone.runs)
            yield list(some), which[run], runs


def _shapes(items: Iterable[SourceItem]) -> npt.NDArray[np.object_]:
    """The footprints of images, each once."""
    return np.asarray(shapely.from_wkb(sorted({item.footprint for item in items} - {None})))  # type: ignore[type-var]


def _images(zone: ZoneCells, which: Ints, runs: Runs, counts: Ints, across: int) -> dict[Square, int]:
    """How many images touch cells of each square; `counts` are those of each footprint, `which` that of each run."""
    run, square, _ = replace(zone, runs=runs).by_square(across)
    squares, footprint = np.divmod(np.unique(square * len(counts) + which[run]), len(counts))
    found = np.unique(squares)
    images = np.bincount(np.searchsorted(found, squares), counts[footprint]).astype(int)
    return dict(zip(zone.named(found, across), images.tolist(), strict=True))


def _squares(
    zone: ZoneCells, window: Window, covered: Runs, left_out: Runs, images: Counter[Square], *, across: int
) -> Iterator[SquareCount]:
    with_imagery, without = (dict(replace(zone, runs=runs).squares(across)) for runs in (covered, left_out))
    for square, expected in zone.squares(across):
        yield SquareCount(square, window, expected, with_imagery.get(square, 0), without.get(square, 0), images[square])


def _together(runs: Runs, others: Runs) -> Runs:
    row, first, stop = (np.concatenate(pair) for pair in zip(runs, others, strict=True))
    return union(row, first, stop)
