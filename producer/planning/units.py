"""From the chosen images to units of work."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from clay_publish.geo.area import Area, items_area
from clay_publish.geo.expected_cells import ZoneCells, expected_cells
from clay_publish.geo.footprints import polygons
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import SQUARE, Square, squares_of
from clay_publish.producer.layouts.scene import SceneChips, inside
from clay_publish.producer.layouts.utm import Cells, Cut
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.unit_plan import Unit, unit_id
from clay_publish.release.directory import DataFile
from clay_publish.spec.models import Imagery, Spec
from clay_publish.windows import Window

MAX_CELLS = 16_384
"""Cells of a unit; a square of smaller cells is shared among several."""


def scene_units(
    spec: Spec, considered: Sequence[Considered], areas: Sequence[shapely.Geometry | None], decided: dict[str, Any]
) -> Iterator[Unit]:
    """One unit an image."""
    for item in (each.item for each in considered if each.status == "used"):
        area = areas[item.block]
        yield Unit(
            id=unit_id([item], None if area is None else shapely.to_wkb(area), decided),
            items=(item,),
            window=item.window,
            area=area,
            files=_scene_files(item, spec.chips.size, area),
        )


def _scene_files(item: SourceItem, size: int, area: shapely.Geometry | None) -> tuple[DataFile, ...]:
    """The squares that hold chips of an image."""
    if item.grid is None:
        return ()
    chips = SceneChips(item, item.grid, size)
    lon, lat = chips.centres(*chips.all())
    mine = inside(area, lon, lat)
    return tuple(DataFile(square, item.window) for square in sorted(set(squares_of(lon[mine], lat[mine]))))


def utm_units(
    spec: Spec,
    grid: UtmGrid,
    considered: Sequence[Considered],
    areas: Sequence[shapely.Geometry | None],
    decided: dict[str, Any],
) -> Iterator[Unit]:
    """One unit, or a few, for each square and window that holds expected cells.

    A cell that two blocks ask for in the same window is made once, from the images of both.
    """
    for step in steps(spec, considered, areas):
        for zone in expected_cells(grid, step.area.geometry, rule=step.area.rule):
            for cells in _by_square(grid, zone, spec.chips.size, step.excluded):
                yield _utm_unit(cells, step.window, step.used, decided)


@dataclass(frozen=True)
class WindowSources:
    """One window: the images used and excluded, and the ground expected of it."""

    window: Window
    used: list[SourceItem]
    excluded: list[SourceItem]
    area: Area


def steps(
    spec: Spec, considered: Sequence[Considered], areas: Sequence[shapely.Geometry | None]
) -> Iterator[WindowSources]:
    """The windows of all blocks, in order. Blocks that share a window share its images and its ground."""
    used: dict[Window, list[SourceItem]] = defaultdict(list)
    excluded: dict[Window, list[SourceItem]] = defaultdict(list)
    blocks: dict[Window, set[int]] = defaultdict(set)
    for number, block in enumerate(spec.imagery):
        for window in block.parsed_windows():
            blocks[window].add(number)
    for each in considered:
        if each.status not in {"used", "excluded"}:
            continue
        own = window_of(each.item, spec.imagery[each.item.block])
        if own is not None:
            (used if each.status == "used" else excluded)[own].append(each.item)
            blocks[own].add(each.item.block)
    for window in sorted(blocks):
        grounds = [areas[number] for number in sorted(blocks[window])]
        asked = [ground for ground in grounds if ground is not None]
        if len(asked) == len(grounds):
            area = Area("area", shapely.union_all(asked) if len(asked) > 1 else asked[0])
        else:
            covered = [item.geometry for item in used[window] if item.geometry is not None]
            area = items_area(np.array([*covered, *asked], dtype=object))
        if not area.geometry.is_empty:
            yield WindowSources(window, used[window], excluded[window], area)


def window_of(item: SourceItem, block: Imagery) -> Window | None:
    """The window an image belongs to: the one of its block that holds it, else its own days."""
    windows = block.parsed_windows()
    if not windows:
        return item.window
    return next((window for window in windows if item.acquired in window), None)


def _by_square(grid: UtmGrid, zone: ZoneCells, size: int, excluded: Sequence[SourceItem]) -> Iterator[Cells]:
    """Cells of a zone by 100 km square, and by share where a square holds too many."""
    _, rows, cols = zone.cells()
    column = np.floor_divide((cols + 0.5) * grid.cell, SQUARE).astype(np.int64)
    line = np.floor_divide((rows + 0.5) * grid.cell, SQUARE).astype(np.int64)
    for east, north in np.unique(np.stack([column, line], axis=1), axis=0).tolist():
        mine = np.flatnonzero((column == east) & (line == north))
        cut = Cut.of(grid, Square(zone.zone, east, north), size)
        deep = cut.side * max(1, MAX_CELLS // (cut.side * cut.count))
        share = (rows[mine] - cut.row) // deep
        for number in np.unique(share):
            chosen = mine[share == number]
            yield Cells(grid, cut, rows[chosen], cols[chosen], tuple(excluded))


def _utm_unit(cells: Cells, window: Window, items: Iterable[SourceItem], decided: dict[str, Any]) -> Unit:
    outline = _outline(cells)
    near = tuple(i for i in items if i.geometry is None or shapely.intersects(i.geometry, outline))
    numbers = cells.grid.numbers(cells.cut.square.epsg, cells.rows, cells.cols)
    return Unit(
        id=unit_id(near, numbers.tobytes(), {**decided, "window": window.token}),
        items=near,
        window=window,
        area=None,
        files=(DataFile(cells.cut.square, window),),
        cells=cells,
    )


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
