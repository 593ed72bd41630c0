"""The cells that an area asks for, counted by number and computed without reading a pixel.

Work goes on in the plane of one UTM zone at a time. There the area's outline is walked row by row: a cell that an edge
passes through is a boundary cell; every other cell is inside or outside as a whole, and runs of them are filled between
the crossings of the line through the row's middle. So nothing is ever asked of a single inner cell, and memory is that
of one zone's runs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.geo.utm_grid import NORTH, SOUTH, Bools, Floats, Ints, UtmGrid, epsg_of, in_zone
from clay_publish.geo.utm_zones import SQUARE, Square, utm

Runs = tuple[Ints, Ints, Ints]
Shapes = npt.NDArray[np.object_]

NONE: Runs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


def spread(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """For each i, the numbers from low[i] to high[i] - 1: their i, and they themselves."""
    count = np.maximum(high - low, 0)
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) + np.repeat(low - (np.cumsum(count) - count), count)


def union(row: Ints, first: Ints, stop: Ints) -> Runs:
    """Merge runs in any order that may overlap or touch."""
    if not len(row):
        return NONE
    base = _line(row, first, stop)
    order = np.argsort(base + first, kind="stable")
    begin, finish = (base + first)[order], np.maximum.accumulate((base + stop)[order])
    opens = np.flatnonzero(np.concatenate([[True], begin[1:] > finish[:-1]]))
    closes = np.concatenate([opens[1:] - 1, [len(begin) - 1]])
    shift, rows = base[order][opens], row[order][opens]
    return rows, begin[opens] - shift, finish[closes] - shift


def difference(runs: Runs, without: Runs) -> Runs:
    """Runs less other runs."""
    if not len(runs[0]) or not len(without[0]):
        return runs
    rows, firsts, stops = (np.concatenate(pair) for pair in zip(runs, without, strict=True))
    base = _line(rows, firsts, stops)
    # Sweep along the line: inside a run, and not inside one that is taken away.
    opens = np.where(np.arange(len(rows)) < len(runs[0]), 1, -2)
    change = np.concatenate([opens, -opens])
    place = np.concatenate([base + firsts, base + stops])
    order = np.argsort(place, kind="stable")
    place, shift, row = place[order], np.tile(base, 2)[order], np.tile(rows, 2)[order]
    level = np.cumsum(change[order])
    keep = np.flatnonzero((level[:-1] == 1) & (place[1:] > place[:-1]))
    return union(row[keep], place[keep] - shift[keep], place[keep + 1] - shift[keep])


def intersection(runs: Runs, others: Runs) -> tuple[Ints, Runs]:
    """Return what runs in any order have in common with others, and which of the runs each piece is of."""
    if not len(runs[0]) or not len(others[0]):
        return NONE[0], NONE
    base = _line(*(np.concatenate(pair) for pair in zip(runs, others, strict=True)))
    own, other = base[: len(runs[0])], base[len(runs[0]) :]
    low = np.searchsorted(other + others[2], own + runs[1], side="right")
    high = np.searchsorted(other + others[1], own + runs[2], side="left")
    run, place = spread(low, high)
    return run, (runs[0][run], np.maximum(runs[1][run], others[1][place]), np.minimum(runs[2][run], others[2][place]))


def size(runs: Runs) -> int:
    """How many cells."""
    return int((runs[2] - runs[1]).sum())


def _line(row: Ints, first: Ints, stop: Ints) -> Ints:
    """Offsets that lay rows one after another on a line, with a gap between them."""
    origin = first.min()
    width = int(stop.max() - origin) + 1
    line: Ints = (row - row.min()) * width - origin
    return line


Rule = Literal["intersects", "covered"]
"""`intersects`: each cell that shares ground with the area. `covered`: cells that lie wholly inside it."""

_EPSILON = 1e-6
"""Of a cell's side: what touches less than this is not shared."""

_TOLERANCE = 1e-4
"""Share of a cell's side: tolerance of a straight piece of outline."""

_EARTH_RADIUS = 6_371_000.0
_DEGREE = 111_320.0
"""Meters, at most."""


@dataclass(frozen=True)
class ZoneCells:
    """Cells of one UTM zone as runs along rows."""

    grid: UtmGrid
    zone: int
    runs: Runs = field(repr=False)

    def __len__(self) -> int:
        return size(self.runs)

    def cells(self) -> tuple[Ints, Ints, Ints]:
        """EPSG code, row and column of every cell; [N] each, in the order of their numbers."""
        row, first, stop = self.runs
        run, col = spread(first, stop)
        return epsg_of(np.full(len(run), self.zone), row[run]), row[run], col

    def numbers(self) -> Ints:
        """The number of every cell, ascending; [N]."""
        return self.grid.numbers(*self.cells())

    def holds(self, row: Ints, col: Ints) -> Bools:
        """Whether cells of this zone are among these; [N]."""
        rows, first, stop = self.runs
        if not len(rows):
            return np.zeros(len(row), dtype=bool)
        width = int(max(stop.max(), np.max(col, initial=0))) + 2
        place = np.searchsorted(rows * width + first, row * width + col, side="right") - 1
        found = np.maximum(place, 0)
        inside: Bools = (place >= 0) & (rows[found] == row) & (col < stop[found])
        return inside

    def squares(self, across: int = 1) -> list[tuple[Square, int]]:
        """How many cells lie in each square of `across` × 100 km, by their centers; ordered by square."""
        _, square, cells = self.by_square(across)
        found = np.unique(square)
        counts = np.bincount(np.searchsorted(found, square), cells).astype(int)
        return list(zip(self.named(found, across), counts.tolist(), strict=True))

    def by_square(self, across: int) -> tuple[Ints, Ints, Ints]:
        """The parts of runs in squares: which run, the number of the square (`named`), and how many cells; [P] each."""
        row, first, stop = self.runs
        side, cell = across * SQUARE, self.grid.cell
        north = np.floor_divide((row + 0.5) * cell, side).astype(np.int64)
        # Eastings lie from 0 to 1000 km.
        edges = np.ceil(np.arange(-(-10 // across) + 1) * side / cell - 0.5).astype(np.int64)
        low = np.searchsorted(edges, first, side="right") - 1
        high = np.searchsorted(edges, stop, side="left")
        run, column = spread(np.maximum(low, 0), np.minimum(high, len(edges) - 1))
        cells = np.minimum(stop[run], edges[column + 1]) - np.maximum(first[run], edges[column])
        return run, column * _NORTH + north[run] + _NORTH // 2, cells

    def named(self, squares: Ints, across: int) -> list[Square]:
        """Squares by their numbers, which ascend in their order."""
        column, north = np.divmod(squares, _NORTH)
        places = zip(column.tolist(), (north - _NORTH // 2).tolist(), strict=True)
        return [Square(self.zone, across * east, across * line) for east, line in places]


_NORTH = 1 << 16
"""More than there are squares along a meridian."""


def expected_cells(grid: UtmGrid, area: Any, *, rule: Rule) -> Iterator[ZoneCells]:
    """The cells of the grid that an area asks for, zone by zone from 1 to 60, without the zones that have none.

    Args:
        area: valid polygons in degrees (OGC:CRS84) between ±180°, edges straight in degrees. Ground that no cell of
            the grid reaches asks for nothing.
        rule: which cells the area asks for.
    """
    if area.is_empty:
        return
    shapely.prepare(area)
    west, _, east, _ = area.bounds
    for zone in range(1, 61):
        if not is_near(zone, west, east):
            continue
        piece = _pieces(grid, np.array([area], dtype=object), zone)[0]
        if piece is not None:
            runs = _clip_to_zone(grid, zone, *fill(_in_plane(grid, piece, zone), rule=rule))
            if len(runs[0]):
                yield ZoneCells(grid, zone, runs)


def touched_cells(grid: UtmGrid, areas: Shapes, zone: int) -> tuple[Ints, Runs]:
    """Cells of one zone that share ground with polygons, whether they belong to the zone or not.

    To be compared with expected cells, which do: this is faster where there are many small areas.

    Returns:
        Which of the areas each run is of, ascending; and the runs.
    """
    return _fill(_in_plane(grid, _pieces(grid, areas, zone), zone), rule="intersects")


def is_near(zone: int, west: Floats, east: Floats) -> Bools:
    """Whether cells of a zone may reach ranges of longitudes: of their own zones, and of neighbors on both sides."""
    reach = 2  # cells stick out of their zone by less than two zones' width
    first, last = np.floor((west + 180) / 6) - reach, np.floor((east + 180) / 6) + reach
    found: Bools = (zone - 1 - first) % 60 <= last - first
    return found


def _in_plane(grid: UtmGrid, outlines: Any, zone: int) -> Any:
    """Outlines in degrees in the plane of a zone, in units of cells."""
    return shapely.transform(
        outlines, lambda x, y: tuple(c / grid.cell for c in utm(zone).transform(x, y)), interleaved=False
    )


def _pieces(grid: UtmGrid, areas: Shapes, zone: int) -> Shapes:
    """What the cells of one zone can see of areas, in degrees around the zone; None of those of which it is nothing."""
    left, bottom, right, top = shapely.bounds(areas).T
    south, north = np.maximum(bottom, SOUTH), np.minimum(top, NORTH)
    # Cells stick out of the strip and of the limits by their diagonal at most.
    overhang = 1.5 * grid.cell / _DEGREE + 1e-6
    low, high = south - overhang, north + overhang
    wide = overhang / np.cos(np.radians(np.maximum(-low, high)))
    pieces = np.full((len(areas), 3), None)
    for place, turn in enumerate((-360.0, 0.0, 360.0)):
        west = np.maximum(6.0 * zone - 186.0 - wide + turn, -180.0)
        east = np.minimum(6.0 * zone - 180.0 + wide + turn, 180.0)
        here = np.flatnonzero((south < north) & (west <= right) & (left <= east) & (west < east))
        boxes = shapely.box(west[here], low[here], east[here], high[here])
        shares = shapely.intersects(areas[here], boxes)
        here, boxes = here[shares], boxes[shares]
        found = shapely.intersection(areas[here], boxes)
        pieces[here, place] = shapely.transform(found, lambda xy, by=turn: xy - [by, 0.0]) if turn else found
    there = ~shapely.is_missing(pieces)
    outlines: Shapes = pieces[np.arange(len(areas)), there.argmax(axis=1)]
    several = there.sum(axis=1) > 1
    outlines[several] = shapely.union_all(pieces[several], axis=1)
    outlines[shapely.area(outlines) == 0] = None
    seen = np.flatnonzero(~shapely.is_missing(outlines))
    longest = [_longest_piece(grid, lat) for lat in np.maximum(np.abs(low), np.abs(high))[seen].tolist()]
    outlines[seen] = shapely.segmentize(outlines[seen], longest)
    return outlines


def _longest_piece(grid: UtmGrid, lat: float) -> float:
    """Degrees: how long a straight piece of outline may be at a latitude. It bulges by L² tan(lat) / 8R."""
    bend = max(math.tan(math.radians(min(lat, 85.0))), math.tan(math.radians(5.0)))
    meters = math.sqrt(8 * _EARTH_RADIUS * _TOLERANCE * grid.cell / bend)
    return min(meters / _DEGREE, 0.5)


def fill(area: Any, *, rule: Rule) -> Runs:
    """Unit squares that share ground with polygons in a plane, or lie wholly inside them.

    Args:
        area: valid polygons; square (row, col) is [col, col + 1] × [row, row + 1].
        rule: as in `expected_cells`.

    Returns:
        Row, first column and one past the last column of runs, sorted, neither overlapping nor touching; [R] each.
    """
    return _fill(np.array([area], dtype=object), rule=rule)[1]


def _fill(areas: Shapes, *, rule: Rule) -> tuple[Ints, Runs]:
    """Which of the areas each run is of, ascending, and the runs, as of `fill`."""
    starts, ends, owner = _edges(areas)
    if not len(owner):
        return NONE[0], NONE
    # The rows of each area follow those of the one before it.
    lowest = int(np.floor(starts[:, 1].min())) - 1
    tall = int(np.ceil(ends[:, 1].max())) + 1 - lowest
    row, left, right = _touched(starts, ends, owner * tall)
    inside_row, inside_first, inside_stop = _inside(starts, ends, owner * tall)
    if rule == "intersects":
        row, first, stop = union(
            np.concatenate([row, inside_row]),
            np.concatenate([left, inside_first]),
            np.concatenate([right, inside_stop]),
        )
    else:
        row, first, stop = difference((inside_row, inside_first, inside_stop), union(row, left, right))
    which = (row - lowest) // tall
    return which, (row - which * tall, first, stop)


def _edges(areas: Shapes) -> tuple[Floats, Floats, Ints]:
    """Start and end of every edge, upwards, [E, 2] each; and which area it is of."""
    parts, area = shapely.get_parts(areas, return_index=True)
    whole = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    rings, part = shapely.get_rings(parts[whole], return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    start, end, owner = xy[:-1][same], xy[1:][same], area[whole][part][ring[:-1][same]]
    down = (start[:, 1] > end[:, 1])[:, None]
    return np.where(down, end, start), np.where(down, start, end), owner


def _touched(start: Floats, end: Floats, offset: Ints) -> Runs:
    """Runs of squares whose interior an edge passes through, an entry an edge and row; rows count from the offsets."""
    low = np.floor(start[:, 1] + _EPSILON).astype(np.int64)
    high = np.ceil(end[:, 1] - _EPSILON).astype(np.int64)  # one past the last row
    edge, row = spread(low, high)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(y1 - y0 > _EPSILON, (x1 - x0) / (y1 - y0), 0.0)
    steep = y1 - y0 > _EPSILON
    first = np.where(steep, x0 + (np.maximum(y0, row) - y0) * slope, x0)
    last = np.where(steep, x0 + (np.minimum(y1, row + 1) - y0) * slope, x1)
    left = np.floor(np.minimum(first, last) + _EPSILON).astype(np.int64)
    right = np.ceil(np.maximum(first, last) - _EPSILON).astype(np.int64)
    some = right > left
    return (row + offset[edge])[some], left[some], right[some]


def _inside(start: Floats, end: Floats, offset: Ints) -> Runs:
    """Runs of squares whose center lies inside, by the crossings of the lines through the middles of rows."""
    low = np.ceil(start[:, 1] - 0.5).astype(np.int64)
    high = np.ceil(end[:, 1] - 0.5).astype(np.int64)
    edge, row = spread(low, high)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    row = row + offset[edge]
    order = np.lexsort((x, row))
    row, x = row[order], x[order]
    first = np.ceil(x[0::2] - 0.5).astype(np.int64)
    stop = np.ceil(x[1::2] - 0.5).astype(np.int64)
    some = stop > first
    return union(row[0::2][some], first[some], stop[some])


def _clip_to_zone(grid: UtmGrid, zone: int, row: Ints, first: Ints, stop: Ints) -> Runs:
    """Leave out what does not belong to the zone."""
    if not len(row):
        return row, first, stop
    rows = np.unique(row)
    lines = np.unique(np.concatenate([rows, rows + 1]))
    west, east = _corners_in_strip(grid, zone, lines)
    here = np.searchsorted(lines, rows)
    low = np.minimum(west[here], west[here + 1]) - 1
    high = np.maximum(east[here], east[here + 1])
    place = np.searchsorted(rows, row)
    first, stop = np.maximum(first, np.maximum(low[place], 0)), np.minimum(stop, high[place])
    some = stop > first
    return _within_limits(grid, zone, row[some], first[some], stop[some])


def _corners_in_strip(grid: UtmGrid, zone: int, lines: Ints) -> tuple[Ints, Ints]:
    """On horizontal lines of the grid, the first corner in the zone's strip and one past the last; [L] each."""
    northing = lines * grid.cell
    middle = np.full(len(lines), 500_000.0)
    _, lat = utm(zone).transform(middle, northing, direction="INVERSE")
    found = []
    for meridian in (6.0 * zone - 186.0, 6.0 * zone - 180.0):
        guess = lat
        for _ in range(4):  # the northing of a meridian's point varies slowly: this settles far below a metre
            easting, reached = utm(zone).transform(np.full(len(lines), meridian), np.clip(guess, -89.0, 89.0))
            guess = guess + (northing - reached) / _DEGREE
        found.append(np.floor(easting / grid.cell).astype(np.int64))
    west, east = found
    tried = np.arange(-2, 4)
    from_west = in_zone(zone, _corner_lon(grid, zone, west[:, None] + tried, lines))
    from_east = in_zone(zone, _corner_lon(grid, zone, east[:, None] + tried, lines))[:, ::-1]
    # Where cells are so wide that no corner is inside, close to 84°N, this says too many; `_within_limits` asks each.
    return west - 2 + np.argmax(from_west, axis=1), east + 4 - np.argmax(from_east, axis=1)


def _corner_lon(grid: UtmGrid, zone: int, col: Ints, lines: Ints) -> Floats:
    northing = np.broadcast_to((lines * grid.cell)[:, None], col.shape)
    lon, _ = utm(zone).transform((col * grid.cell).ravel(), northing.ravel(), direction="INVERSE")
    return np.asarray(lon).reshape(col.shape)


def _within_limits(grid: UtmGrid, zone: int, row: Ints, first: Ints, stop: Ints) -> Runs:
    """Ask each cell of the few rows along 84°N and 80°S; all between belong. Parallels bend away from the equator."""
    if not len(row):
        return row, first, stop
    _, north = utm(zone).transform(6.0 * zone - 183.0, NORTH)
    _, south = utm(zone).transform(6.0 * zone - 183.0, SOUTH)
    near = ((row + 1) * grid.cell >= north) | (row * grid.cell <= south)
    if not near.any():
        return row, first, stop
    rows, firsts, stops = [row[~near]], [first[~near]], [stop[~near]]
    for r, a, b in zip(row[near], first[near], stop[near], strict=True):
        col = np.arange(a, b)
        col = col[grid.belongs(epsg_of(np.full(len(col), zone), np.full(len(col), r)), np.full(len(col), r), col)]
        rows.append(np.full(len(col), r))
        firsts.append(col)
        stops.append(col + 1)
    return union(np.concatenate(rows), np.concatenate(firsts), np.concatenate(stops))
