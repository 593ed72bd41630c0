"""How many chips a release asks for, and which of them have imagery: counted by cell, before any pixel is read."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from clay_publish.geo.area import Area
from clay_publish.geo.expected_cells import (
    NONE,
    Runs,
    ZoneCells,
    between_rows,
    difference,
    expected_cells,
    intersection,
    size,
    touched_cells,
    union,
    zones_near,
)
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import Square, squares_of
from clay_publish.producer.layouts.scene import SceneChips, inside
from clay_publish.producer.planning.units import WindowSources
from clay_publish.producer.sources.item import SourceItem
from clay_publish.windows import Window


@dataclass(frozen=True)
class SquareCount:
    """Chips of one 100 km square and window: one file of the release."""

    square: Square
    window: Window
    expected: int
    with_imagery: int
    excluded: int
    """Chips whose only images were left out as known to be bad."""
    items: frozenset[str]
    """Images that touch its chips."""

    @property
    def no_imagery(self) -> int:
        """Chips that no image covers."""
        return self.expected - self.with_imagery - self.excluded


@dataclass(frozen=True)
class UncoveredCells:
    """Cells of a zone and window without a candidate, as runs along rows."""

    zone: int
    window: Window
    reason: str
    """`no_imagery` or `excluded`."""
    runs: Runs


@dataclass(frozen=True)
class Counts:
    """All squares and windows of a release."""

    squares: tuple[SquareCount, ...]
    by_item: dict[str, int]
    """Chips that each used image could give."""
    missing: tuple[UncoveredCells, ...] = ()
    """Cells without a candidate; a scene has none."""

    @property
    def expected(self) -> int:
        """Chips the spec asks for."""
        return sum(each.expected for each in self.squares)

    @property
    def with_imagery(self) -> int:
        """Of these, the ones some image covers."""
        return sum(each.with_imagery for each in self.squares)

    @property
    def excluded(self) -> int:
        """Of these, the ones only excluded images cover."""
        return sum(each.excluded for each in self.squares)

    @property
    def per_scene(self) -> int:
        """Chips that cutting every image on its own would make."""
        return sum(self.by_item.values())


def count_cells(grid: UtmGrid, steps: Iterable[WindowSources]) -> Counts:
    """Chips in the `utm` layout."""
    squares: list[SquareCount] = []
    by_item: Counter[str] = Counter()
    missing: list[UncoveredCells] = []
    for step in steps:
        used, excluded = _near(step.used), _near(step.excluded)
        for zone in expected_cells(grid, step.area.geometry, rule=step.area.rule):
            here = list(_in_zone(zone, used[zone.zone]))
            by_item.update({item.id: size(runs) for item, runs in here})
            covered = _together([runs for _, runs in here])
            out = _together([runs for _, runs in _in_zone(zone, excluded[zone.zone])])
            left_out = difference(out, covered)
            squares += _squares(zone, step.window, covered, left_out, _images(zone, here))
            nothing = difference(difference(zone.runs, covered), left_out)
            reasons = (("no_imagery", nothing), ("excluded", left_out))
            missing += [UncoveredCells(zone.zone, step.window, reason, runs) for reason, runs in reasons if size(runs)]
    ordered = sorted(squares, key=lambda each: (each.window, each.square))
    return Counts(tuple(ordered), dict(by_item), tuple(missing))


def count_scenes(items: Sequence[SourceItem], chip: int, areas: Sequence[Area | None], gsd: float) -> Counts:
    """Chips in the `scene` layout. Where an item does not state its pixel grid, its footprint is measured."""
    found: Counter[tuple[Square, Window]] = Counter()
    images: dict[tuple[Square, Window], set[str]] = defaultdict(set)
    by_item: Counter[str] = Counter()
    for item in items:
        area = areas[item.block]
        mine = _scene_squares(item, chip, None if area is None else area.geometry, gsd)
        by_item[item.id] += sum(mine.values())
        for square, chips in mine.items():
            found[square, item.window] += chips
            images[square, item.window].add(item.id)
    rows = (SquareCount(*key, chips, chips, 0, frozenset(images[key])) for key, chips in found.items())
    return Counts(tuple(sorted(rows, key=lambda each: (each.window, each.square))), dict(by_item))


def _near(items: Sequence[SourceItem]) -> dict[int, list[SourceItem]]:
    """Images by the zones that they may reach."""
    found: dict[int, list[SourceItem]] = defaultdict(list)
    for item in items:
        if item.geometry is not None:
            west, _, east, _ = item.geometry.bounds
            for zone in zones_near(west, east):
                found[zone].append(item)
    return found


def _in_zone(zone: ZoneCells, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Runs]]:
    """Images that touch expected cells, and which. Images of one footprint are worked out once."""
    known: dict[bytes, Runs] = {}
    for item in items:
        key = shapely.to_wkb(item.geometry)
        if key not in known:
            runs = touched_cells(zone.grid, item.geometry, zone.zone)
            if size(runs):
                runs = intersection(runs, between_rows(zone.runs, int(runs[0][0]), int(runs[0][-1])))
            known[key] = runs
        if size(known[key]):
            yield item, known[key]


def _squares(
    zone: ZoneCells, window: Window, covered: Runs, left_out: Runs, images: dict[Square, set[str]]
) -> Iterator[SquareCount]:
    with_imagery, without = dict(_in_squares(zone, covered)), dict(_in_squares(zone, left_out))
    for square, expected in zone.squares():
        yield SquareCount(
            square,
            window,
            expected,
            with_imagery.get(square, 0),
            without.get(square, 0),
            frozenset(images.get(square, ())),
        )


def _images(zone: ZoneCells, here: list[tuple[SourceItem, Runs]]) -> dict[Square, set[str]]:
    """Images that touch cells of each square."""
    found: dict[Square, set[str]] = defaultdict(set)
    for item, runs in here:
        for square, _ in _in_squares(zone, runs):
            found[square].add(item.id)
    return found


def _in_squares(zone: ZoneCells, runs: Runs) -> list[tuple[Square, int]]:
    return ZoneCells(zone.grid, zone.zone, runs).squares()


def _together(parts: list[Runs]) -> Runs:
    if not parts:
        return NONE
    row, first, stop = (np.concatenate(column) for column in zip(*parts, strict=True))
    return union(row, first, stop)


def _scene_squares(item: SourceItem, chip: int, area: shapely.Geometry | None, gsd: float) -> dict[Square, int]:
    if item.grid is not None:
        chips = SceneChips(item, item.grid, chip)
        lon, lat = chips.centres(*chips.all())
        mine = inside(area, lon, lat)
        return dict(Counter(squares_of(lon[mine], lat[mine])))
    if item.geometry is None:
        return {}
    ground = item.geometry if area is None else shapely.intersection(item.geometry, area)
    if ground.is_empty:
        return {}
    cells = expected_cells(UtmGrid(chip * gsd), ground, rule="covered")
    return dict(square for zone in cells for square in zone.squares())
