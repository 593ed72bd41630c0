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
    between_rows,
    difference,
    expected_cells,
    intersection,
    size,
    spread,
    touched_cells,
    union,
    zones_near,
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
from clay_publish.windows import Window

MAX_CELLS = 16_384
"""Cells of a unit; a square of smaller cells is shared among several."""


@dataclass(frozen=True)
class UtmUnit(Unit):
    """Cells of one square and window, and the images that reach them."""

    cells: Cells

    @property
    def chips(self) -> int:
        """One per cell."""
        return len(self.cells.rows)

    @property
    def rivals(self) -> str:
        """All images of its window."""
        return self.window.token

    def read(self, reading: Reading) -> Generator[ChipBlock]:
        """Its chips, one superblock at a time."""
        return read_cells(self.cells, self.items, self.window, reading, read_combined)

    def missing(self, reason: str, detail: str) -> ChipBlock:
        """All of its cells."""
        square, count = self.cells.cut.square, len(self.cells.rows)
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
        cells = replace(self.cells, rows=self.cells.rows[chosen], cols=self.cells.cols[chosen])
        return _unit(cells, self.window, self.items, decided, reused=reused)


@dataclass(frozen=True)
class WindowSources:
    """One window: the images used and excluded, and the ground expected of it."""

    window: Window
    used: list[SourceItem]
    excluded: list[SourceItem]
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
    by_window: bool = True
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
            _unit(cells, each.window, each.used, decided)
            for each in self.windows(considered, areas)
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
        used: dict[Window, list[SourceItem]] = defaultdict(list)
        excluded: dict[Window, list[SourceItem]] = defaultdict(list)
        blocks: dict[Window, set[int]] = defaultdict(set)
        for number, block in enumerate(self.blocks):
            for window in block.parsed_windows():
                blocks[window].add(number)
        for each in considered:
            if each.status not in {"used", "excluded"}:
                continue
            own = _window_of(each.item, self.blocks[each.item.block])
            if own is not None:
                (used if each.status == "used" else excluded)[own].append(each.item)
                blocks[own].add(each.item.block)
        for window in sorted(blocks):
            grounds = [areas[number] for number in sorted(blocks[window])]
            asked = [ground.geometry for ground in grounds if ground is not None]
            if len(asked) == len(grounds):
                area = Area("area", shapely.union_all(asked) if len(asked) > 1 else asked[0])
            else:
                covered = [item.geometry for item in used[window] if item.geometry is not None]
                area = items_area(np.array([*covered, *asked], dtype=object))
            if not area.geometry.is_empty:
                yield WindowSources(window, used[window], excluded[window], area)

    def by_square(self, zone: ZoneCells, excluded: Sequence[SourceItem]) -> Iterator[Cells]:
        """Cells of a zone by square, and by share where a square holds too many."""
        _, rows, cols = zone.cells()
        column = np.floor_divide((cols + 0.5) * self.grid.cell, SQUARE).astype(np.int64)
        line = np.floor_divide((rows + 0.5) * self.grid.cell, SQUARE).astype(np.int64)
        column, line = column - column % self.across, line - line % self.across
        for east, north in np.unique(np.stack([column, line], axis=1), axis=0).tolist():
            mine = np.flatnonzero((column == east) & (line == north))
            cut = Cut.of(self.grid, Square(zone.zone, east, north), self.size, self.across, pixels=self.superblock)
            deep = cut.side * max(1, MAX_CELLS // (cut.side * cut.count))
            share = (rows[mine] - cut.row) // deep
            for number in np.unique(share):
                chosen = mine[share == number]
                yield Cells(self.grid, cut, rows[chosen], cols[chosen], tuple(excluded))

    def count(self, considered: Sequence[Considered], areas: Areas) -> Counts:
        """Cells of all windows, as runs along rows."""
        squares: list[SquareCount] = []
        by_item: Counter[str] = Counter()
        missing: list[UncoveredCells] = []
        for each in self.windows(considered, areas):
            used, excluded = _near(each.used), _near(each.excluded)
            for zone in expected_cells(self.grid, each.area.geometry, rule=each.area.rule):
                covered, images = NONE, Counter[Square]()
                for here in _in_zone(zone, used[zone.zone]):
                    by_item.update({item.id: size(runs) for item, runs in here})
                    covered = _together([covered, *(runs for _, runs in here)])
                    images += _images(zone, [runs for _, runs in here], self.across)
                out = NONE
                for here in _in_zone(zone, excluded[zone.zone]):
                    out = _together([out, *(runs for _, runs in here)])
                left_out = difference(out, covered)
                squares += _squares(zone, each.window, covered, left_out, images, across=self.across)
                nothing = difference(difference(zone.runs, covered), left_out)
                reasons = (("no_imagery", nothing), ("excluded", left_out))
                missing += [UncoveredCells(zone.zone, each.window, why, runs) for why, runs in reasons if size(runs)]
        ordered = sorted(squares, key=lambda each: (each.window, each.square))
        return Counts(tuple(ordered), by_item, tuple(missing), self.across)

    def beyond(self, considered: Sequence[Considered], areas: Areas) -> list[str]:
        """What lies too far north or south."""
        free = [each.item.geometry for each in considered if each.status == "used" and areas[each.item.block] is None]
        images = items_area(np.array([shape for shape in free if shape is not None], dtype=object))
        grounds = [*(area for area in areas if area is not None), images]
        return [sentence for ground in grounds if not ground.geometry.is_empty for sentence in ground.beyond()]

    def ground_size(self, units: Sequence[Unit]) -> float:  # noqa: ARG002 - of the protocol
        """The same everywhere."""
        return self.gsd

    def rivals(self, item: ItemTimes, block: Imagery) -> str | None:
        """All images of a window."""
        window = _window_of(item, block)
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


def _window_of(item: ItemTimes, block: Imagery) -> Window | None:
    """The window an image belongs to: the one of its block that holds it, else its own days."""
    windows = block.parsed_windows()
    if not windows:
        return item.window
    return next((window for window in windows if item.acquired in window), None)


def _unit(
    cells: Cells, window: Window, items: Iterable[SourceItem], decided: dict[str, Any], *, reused: bool = False
) -> UtmUnit:
    outline = _outline(cells)
    near = tuple(i for i in items if i.geometry is None or shapely.intersects(i.geometry, outline))
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


_AT_ONCE = 2048
"""Images whose cells are in memory at once."""


def _near(items: Sequence[SourceItem]) -> dict[int, list[SourceItem]]:
    """Images by the zones that they may reach: all zones, of those that do not say where they lie."""
    found: dict[int, list[SourceItem]] = defaultdict(list)
    for start in range(0, len(items), _AT_ONCE):
        some = items[start : start + _AT_ONCE]
        bounds = shapely.bounds(shapely.from_wkb([item.footprint for item in some])).tolist()
        for item, (west, _, east, _) in zip(some, bounds, strict=True):
            for zone in range(1, 61) if item.footprint is None else zones_near(west, east):
                found[zone].append(item)
    return found


def _in_zone(zone: ZoneCells, items: Sequence[SourceItem]) -> Iterator[list[tuple[SourceItem, Runs]]]:
    """Images that touch expected cells, and which, some at a time. Images of one footprint are worked out once."""
    ordered = sorted(items, key=lambda item: item.footprint or b"")
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        # One that does not say where it lies may be of any cell.
        known: dict[bytes | None, Runs] = {None: zone.runs}
        places = list(dict.fromkeys(item.footprint for item in some if item.footprint is not None))
        for place, touched in zip(places, touched_cells(zone.grid, shapely.from_wkb(places), zone.zone), strict=True):
            found = touched
            if size(touched):
                found = intersection(touched, between_rows(zone.runs, int(touched[0][0]), int(touched[0][-1])))
            known[place] = found
        yield [(item, known[item.footprint]) for item in some if size(known[item.footprint])]


def _squares(
    zone: ZoneCells, window: Window, covered: Runs, left_out: Runs, images: Counter[Square], *, across: int
) -> Iterator[SquareCount]:
    with_imagery, without = (dict(_in_squares(zone, runs, across)) for runs in (covered, left_out))
    for square, expected in zone.squares(across):
        yield SquareCount(
            square,
            window,
            expected,
            with_imagery.get(square, 0),
            without.get(square, 0),
            images[square],
        )


def _images(zone: ZoneCells, parts: Sequence[Runs], across: int) -> Counter[Square]:
    """How many images touch cells of each square; of each image its runs."""
    if not parts:
        return Counter()
    row, first, stop = (np.concatenate(column) for column in zip(*parts, strict=True))
    image = np.repeat(np.arange(len(parts)), [len(runs[0]) for runs in parts])
    cell, side = zone.grid.cell, across * SQUARE
    # By the centers of cells, as `ZoneCells.squares`.
    north, west, east = (np.floor((n + 0.5) * cell / side).astype(np.int64) for n in (row, first, stop - 1))
    run, column = spread(west, east + 1)
    touched = np.unique(np.stack([image[run], column, north[run]], axis=1), axis=0)
    squares, counts = np.unique(touched[:, 1:], axis=0, return_counts=True)
    named = (Square(zone.zone, across * column, across * row) for column, row in squares.tolist())
    return Counter(dict(zip(named, counts.tolist(), strict=True)))


def _in_squares(zone: ZoneCells, runs: Runs, across: int) -> list[tuple[Square, int]]:
    return ZoneCells(zone.grid, zone.zone, runs).squares(across)


def _together(parts: list[Runs]) -> Runs:
    if not parts:
        return NONE
    row, first, stop = (np.concatenate(column) for column in zip(*parts, strict=True))
    return union(row, first, stop)
