"""The cells that an area asks for, counted by number and computed without reading a pixel.

Work goes on in the plane of one UTM zone at a time. There the area's outline is walked row by row: a cell that an edge
passes through is a boundary cell; every other cell is inside or outside as a whole, and runs of them are filled between
the crossings of the line through the row's middle. So nothing is ever asked of a single inner cell, and memory is that
of one zone's runs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import shapely

from clay_publish.geo.utm_grid import NORTH, SOUTH, Bools, Floats, Ints, UtmGrid, epsg_of, in_zone
from clay_publish.geo.utm_zones import SQUARE, Square, utm

Runs = tuple[Ints, Ints, Ints]

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


def intersection(runs: Runs, others: Runs) -> Runs:
    """What lies in both."""
    return difference(runs, difference(runs, others))


def between_rows(runs: Runs, low: int, high: int) -> Runs:
    """The runs of rows from `low` to `high`, both included."""
    a, b = np.searchsorted(runs[0], [low, high + 1])
    return runs[0][a:b], runs[1][a:b], runs[2][a:b]


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
        row, first, stop = self.runs
        side, cell = across * SQUARE, self.grid.cell
        north = np.floor_divide((row + 0.5) * cell, side).astype(np.int64)
        found = []
        for column in range(-(-10 // across)):  # eastings lie from 0 to 1000 km
            low, high = (math.ceil(edge * side / cell - 0.5) for edge in (column, column + 1))
            here = np.minimum(stop, high) - np.maximum(first, low)
            lines, place = np.unique(north[here > 0], return_inverse=True)
            counts = np.bincount(place, here[here > 0]).astype(int)
            named = [Square(self.zone, across * column, across * int(n)) for n in lines]
            found += list(zip(named, counts.tolist(), strict=True))
        return sorted(found)


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
    for zone in zones_near(west, east):
        piece = _piece(grid, area, zone)
        if piece is not None:
            runs = _clip_to_zone(grid, zone, *fill(_in_plane(grid, piece, zone), rule=rule))
            if len(runs[0]):
                yield ZoneCells(grid, zone, runs)


def touched_cells(grid: UtmGrid, areas: Sequence[Any], zone: int) -> Iterator[Runs]:
    """Cells of one zone that share ground with polygons, whether they belong to the zone or not; of each of the areas.

    To be compared with expected cells, which do: this is faster where there are many small areas.
    """
    outlines = np.array([_piece(grid, area, zone) for area in areas], dtype=object)
    for piece in _in_plane(grid, outlines, zone):
        yield NONE if piece is None else fill(piece, rule="intersects")


def zones_near(west: float, east: float) -> list[int]:
    """Zones whose cells may reach a range of longitudes: its own, and neighbors on both sides."""
    first, last = math.floor((west + 180) / 6), math.floor((east + 180) / 6)
    reach = 2  # cells stick out of their zone by less than two zones' width
    return sorted({number % 60 + 1 for number in range(first - reach, last + reach + 1)})


def _in_plane(grid: UtmGrid, outlines: Any, zone: int) -> Any:
    """Outlines in degrees in the plane of a zone, in units of cells."""
    return shapely.transform(
        outlines, lambda x, y: tuple(c / grid.cell for c in utm(zone).transform(x, y)), interleaved=False
    )


def _piece(grid: UtmGrid, area: Any, zone: int) -> Any | None:
    """What the cells of one zone can see of an area, in degrees around the zone."""
    bounds = area.bounds
    south, north = max(bounds[1], SOUTH), min(bounds[3], NORTH)
    if south >= north:
        return None
    # Cells stick out of the strip and of the limits by their diagonal at most.
    overhang = 1.5 * grid.cell / _DEGREE + 1e-6
    low, high = south - overhang, north + overhang
    wide = overhang / math.cos(math.radians(max(-low, high)))
    west, east = 6.0 * zone - 186.0 - wide, 6.0 * zone - 180.0 + wide
    pieces = []
    for turn in (-360.0, 0.0, 360.0):
        window = (max(west + turn, -180.0), low, min(east + turn, 180.0), high)
        near = window[0] <= bounds[2] and bounds[0] <= window[2]
        if near and window[0] < window[2] and shapely.intersects(area, box := shapely.box(*window)):
            piece = shapely.intersection(area, box)
            pieces.append(shapely.transform(piece, lambda xy, by=turn: xy - [by, 0.0]) if turn else piece)
    outline = shapely.union_all(pieces) if len(pieces) > 1 else (pieces[0] if pieces else None)
    if outline is None or outline.area == 0:
        return None
    return shapely.segmentize(outline, _longest_piece(grid, max(abs(low), abs(high))))


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
    starts, ends = _edges(area)
    row, left, right = _touched(starts, ends)
    inside_row, inside_first, inside_stop = _inside(starts, ends)
    if rule == "intersects":
        return union(
            np.concatenate([row, inside_row]),
            np.concatenate([left, inside_first]),
            np.concatenate([right, inside_stop]),
        )
    return difference((inside_row, inside_first, inside_stop), union(row, left, right))


def _edges(area: Any) -> tuple[Floats, Floats]:
    """Start and end of every edge, upwards; [E, 2] each."""
    parts = shapely.get_parts(area)
    rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    start, end = xy[:-1][same], xy[1:][same]
    down = (start[:, 1] > end[:, 1])[:, None]
    return np.where(down, end, start), np.where(down, start, end)


def _touched(start: Floats, end: Floats) -> Runs:
    """Runs of squares whose interior an edge passes through, an entry an edge and row."""
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
    return row[some], left[some], right[some]


def _inside(start: Floats, end: Floats) -> Runs:
    """Runs of squares whose center lies inside, by the crossings of the lines through the middles of rows."""
    low = np.ceil(start[:, 1] - 0.5).astype(np.int64)
    high = np.ceil(end[:, 1] - 0.5).astype(np.int64)
    edge, row = spread(low, high)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
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
