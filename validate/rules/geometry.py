"""Rules on footprints: sound, in degrees, where the image's pixels are, of the right size, and no place twice."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.major_tom_grid import bounds_of_cell
from clay_publish.geo.utm_zones import SQUARE, squares_of
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.footprints import Footprints, meters_apart, meters_per_degree
from clay_publish.validate.outcomes import BadRows, Fault, Outcome, bad_rows
from clay_publish.validate.registry import row_rule, rule
from clay_publish.validate.spilled import spilled, together

_METRE = 0.1
"""Tolerance of a footprint, against its pixels."""
_SAME = 1e-7
"""Degrees, about a centimeter."""

Bools = npt.NDArray[np.bool_]


@row_rule("GEO001", alone=True)
def valid(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Readable, polygonal, simple."""
    prints, null = chips.footprints, chips.nulls("geometry")
    bad = ~null & ~(prints.readable & prints.polygonal & prints.valid)
    return bad_rows(bad, lambda row: why_unsound(prints, row), "a valid Polygon or MultiPolygon")


def why_unsound(prints: Footprints, row: int) -> str:
    """What is wrong with a footprint that is not a valid polygon."""
    if not prints.readable[row]:
        return "cannot be read as WKB"
    geometry = prints.geometries[row]
    if geometry.is_empty:
        return f"an empty {geometry.geom_type}"
    return str(shapely.is_valid_reason(geometry) if prints.polygonal[row] else geometry.geom_type)


@row_rule("GEO002", alone=True)
def counterclockwise(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """RFC 7946, 3.1.6; GeoParquet's `orientation`."""
    bad = chips.footprints.polygonal & ~chips.footprints.counterclockwise
    return bad_rows(bad, "a clockwise ring", "counterclockwise exterior rings")


@row_rule("GEO003", alone=True)
def in_degrees(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Ranges of footprints and centers."""
    box = chips.footprints.bounds
    with np.errstate(invalid="ignore"):
        outside = (np.abs(box[:, [0, 2]]) > 180 + _SAME).any(axis=1) | (np.abs(box[:, [1, 3]]) > 90 + _SAME).any(axis=1)
    outside |= chips.footprints.polygonal & ~np.isfinite(box).all(axis=1)
    found = bad_rows(outside, lambda row: f"bounds {_numbers(box[row])}", "degrees, ±180 and ±90")
    if chips.has("lon") and chips.has("lat"):
        away = ~((np.abs(chips.floats("lon")) <= 180) & (np.abs(chips.floats("lat")) <= 90))
        away &= ~chips.nulls("lon") & ~chips.nulls("lat")
        stated = lambda row: f"lon {chips.value('lon', row)}, lat {chips.value('lat', row)}"  # noqa: E731
        found += bad_rows(away, stated, "degrees, ±180 and ±90")
    return found


@row_rule("GEO004", alone=True)
def bbox_is_bounds(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """To a centimeter."""
    bounds, boxes = chips.footprints.bounds, chips.boxes
    known = np.isfinite(bounds).all(axis=1)
    same: Bools = np.all(np.abs(bounds - boxes) <= _SAME, axis=1)
    return bad_rows(known & ~same, lambda row: _numbers(boxes[row]), "the bounds of its geometry")


@row_rule("GEO005", alone=True)
def center_is_center(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Within 2 % of the chip's side, as a projected square bends."""
    prints = chips.footprints
    lon, lat = chips.floats("lon"), chips.floats("lat")
    with np.errstate(invalid="ignore"):
        away = np.fmin(meters_apart(lon, lat, *prints.center.T), meters_apart(lon, lat, *prints.center_in_degrees.T))
        bad = away > np.maximum(0.02 * np.sqrt(prints.area), _METRE)
    return bad_rows(bad, lambda row: f"{away[row]:,.1f} m from the center", "the center of its pixels")


@row_rule("GEO006", alone=True)
def antimeridian(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """A chip that holds no pole is never half the Earth wide."""
    box = chips.footprints.bounds
    with np.errstate(invalid="ignore"):
        around = (box[:, 2] - box[:, 0] >= 360 - _SAME) & (box[:, 1] * box[:, 3] > 0)
        polar = around & (np.abs(box[:, [1, 3]]).max(axis=1) > 90 - _SAME)
        wide = np.asarray(chips.footprints.polygonal & (box[:, 2] - box[:, 0] > 180) & ~polar)
    return bad_rows(wide, lambda row: f"{box[row, 2] - box[row, 0]:.1f} degrees wide", "two parts, cut at ±180")


@row_rule("GEO018", alone=True)
def cell_holds_center(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """`grid_cell`, where the release has it; a place on an edge belongs to either cell."""
    if not chips.has("grid_cell"):
        return []
    lon, lat = chips.floats("lon"), chips.floats("lat")
    names = [str(name) for name in chips.column("grid_cell").to_pylist()]
    away = np.array([_from_cell(*place) for place in zip(names, lon.tolist(), lat.tolist(), strict=True)], dtype=bool)
    return bad_rows(away, lambda row: f"{names[row]} for {lon[row]:.5f}, {lat[row]:.5f}", "the cell of its center")


def _from_cell(name: str, lon: float, lat: float) -> bool:
    """Whether a place is outside a cell of the Major TOM grid, or there is no such cell."""
    try:
        west, south, east, north = bounds_of_cell(name)
    except ValueError:
        return True
    return not (south - _SAME <= lat <= north + _SAME and (lon - west + _SAME) % 360 <= east - west + 2 * _SAME)


@rule("GEO014")
def footer_bbox(context: ReleaseContext) -> Iterator[Outcome]:
    """`geo.columns.geometry.bbox` against the rows."""
    facts = context.scan.facts
    for path, box in facts.boxes.items():
        stated = context.tables.keys[path].get("geo", {}).get("columns", {}).get("geometry", {}).get("bbox")
        if stated is None or len(stated) != 4:
            continue
        west, south, east, north = stated
        outside = (box[:, 1] < south - _SAME) | (box[:, 3] > north + _SAME)
        if west <= east:
            outside |= (box[:, 0] < west - _SAME) | (box[:, 2] > east + _SAME)
        else:
            outside |= (box[:, 0] < west - _SAME) & (box[:, 0] > east + _SAME)
        if outside.any():
            yield Fault(f"{path}: footer geo", f"bbox {_numbers(np.array(stated))}", "the bounds of all footprints")


def _numbers(values: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


_SIZE = 0.05
"""How much a side may differ from the stated ground size: projections stretch by less."""
_DAY = 86_400_000_000
"""Microseconds."""
Floats = npt.NDArray[np.float64]


@row_rule("GEO007")
def axes_in_order(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """A chip that lies in its source's footprint only with its axes swapped."""
    outside, swapped = chips.once("against sources", lambda: _against_sources(chips, context))
    return bad_rows(outside & swapped, lambda row: _center(chips, row), "longitude, then latitude")


@row_rule("GEO008")
def inside_source(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Centers, within one side of a chip of the item's geometry."""
    outside, swapped = chips.once("against sources", lambda: _against_sources(chips, context))
    return bad_rows(outside & ~swapped, lambda row: _center(chips, row), "a place in its item's geometry")


def _center(chips: ChipRows, row: int) -> str:
    lon, lat = chips.footprints.center[row]
    return f"center {lon:.5f}, {lat:.5f}; item {chips.value('item_id', row)}"


def _against_sources(chips: ChipRows, context: ReleaseContext) -> tuple[Bools, Bools]:
    """Which chips lie outside their source's footprint, and which of them inside it with swapped axes."""
    prints, sources = chips.footprints, context.sources
    outside, swapped = np.zeros(len(chips), dtype=bool), np.zeros(len(chips), dtype=bool)
    places = sources.places(chips)
    known = np.flatnonzero((places >= 0) & np.isfinite(prints.center).all(axis=1))
    different, own = np.unique(places[known], return_inverse=True)
    outlines = sources.outlines(sources.row_of[different])
    shapely.prepare(outlines)
    rest = ~shapely.is_missing(outlines)[own] & ~shapely.intersects_xy(outlines[own], *prints.center[known].T)
    for number in np.unique(own[rest]).tolist():
        mine, outline = known[own == number], outlines[number]
        lon, lat = prints.center[mine].T
        reach = float(np.nanmedian(np.sqrt(prints.area[mine])))
        away = mine[~_near(outline, lon, lat, reach)]
        outside[away] = True
        if away.size:
            swapped[away] = _near(outline, prints.center[away, 1], prints.center[away, 0], reach)
    return outside, swapped


def _near(outline: Any, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], reach: float) -> Bools:
    """Which points lie within `reach` meters of a geometry, roughly; longitudes are taken round the Earth."""
    inside: Bools = shapely.intersects_xy(outline, lon, lat)
    rest = np.flatnonzero(~inside & np.isfinite(lon))
    if rest.size:
        middle = outline.centroid.y
        east, north = meters_per_degree(np.array([min(abs(middle), 85.0)]))
        # In meters around the outline's own latitude, so that the distance is one.
        plane = shapely.transform(outline, lambda xy: xy * [east[0], north[0]])
        for turn in (0.0, 360.0, -360.0):
            points = shapely.points((lon[rest] + turn) * east[0], lat[rest] * north[0])
            inside[rest] |= shapely.dwithin(plane, points, max(reach, 1.0))
    return inside


@row_rule("GEO009")
def ground_size(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Square root of the footprint's area against pixels per side times meters a pixel."""
    emb = context.tables.keys[chips.path].get("emb", {})
    layout, gsd = emb.get("emb:chip_layout", {}), emb.get("gsd")
    size = layout.get("chip_size", [None])[0]
    if not isinstance(size, int | float) or not isinstance(gsd, int | float):
        raise ReleaseError(chips.path, "does not state chip size and gsd in its footer")
    side = np.sqrt(chips.footprints.area)
    expected = context.grids.stated_side(chips, size, gsd)
    with np.errstate(invalid="ignore"):
        bad = np.abs(side / expected - 1) > _SIZE
    return bad_rows(bad, lambda row: f"{side[row]:,.0f} m a side", f"about {float(np.median(expected)):,.0f} m a side")


@rule("GEO010")
def ground_once(context: ReleaseContext) -> Iterator[Outcome]:
    """Chips of one moment whose centers are nearer than half a side: they share more than a quarter of their ground."""
    pairs = _shared_ground(context)
    if pairs:
        first, second = pairs[0]
        found = f"shows the ground of {context.name(first)}; {len(pairs):,} pairs in all"
        yield Fault(context.name(second), found, "every place once a moment")


def _shared_ground(context: ReleaseContext) -> list[tuple[int, int]]:
    facts = context.scan.facts
    # Across the stated seam of two zones, ground is shared on purpose.
    names = ("lon", "lat", "moments", *(("epsg",) if context.fingerprint.layout == "utm" else ()))
    lon, lat, moments, *zone = (facts[name] for name in names)
    step, found = context.grids.usual_side / 2, set[tuple[int, int]]()
    # Boxes half a side wide, laid four ways, so that near centers meet in one of them.
    for shift in ((0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5)):
        boxes = spilled((_boxes(each, step, shift) for each in together(lon, lat, moments)), np.uint64)
        pairs = np.array(list(repeated(boxes).examples(100_000)), np.int64).reshape(-1, 2)
        same = moments[pairs[:, 0]] // _DAY == moments[pairs[:, 1]] // _DAY
        for epsg in zone:
            same &= epsg[pairs[:, 0]] % 100 == epsg[pairs[:, 1]] % 100
        found.update((first, second) for first, second in pairs[same].tolist())
    return sorted(found)


def _boxes(chips: tuple[npt.NDArray[Any], ...], step: float, shift: tuple[float, float]) -> npt.NDArray[np.uint64]:
    """Number of the box and day of each chip, by longitude, latitude and moment: a box has a side of `step` meters."""
    lon, lat, moments = chips
    _, north = meters_per_degree(np.zeros(1))
    row = np.floor(np.nan_to_num(lat) * north / step + shift[1]).astype(np.int64)
    lines = np.arange(row.min(), row.max() + 1)
    east, _ = meters_per_degree(np.clip((lines - shift[1]) * step / north, -89, 89))
    column = np.floor(np.nan_to_num(lon) * east[row - lines[0]] / step + shift[0]).astype(np.int64)
    return _mixed(column, row, moments // _DAY)


def _mixed(*parts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        mixed ^= part.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return mixed


@row_rule("GEO011")
def center_from_grid(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Recomputed with pyproj from the transform in sources.parquet, or from the utm grid; within 0.1 m."""
    away = np.zeros(len(chips))
    lon, lat = chips.floats("lon"), chips.floats("lat")
    row, col = chips.integers("row"), chips.integers("col")
    for grid, rows in context.grids.of(chips):
        x, y = grid.to_chips(lon[rows], lat[rows])
        away[rows] = np.hypot(x - col[rows] - 0.5, y - row[rows] - 0.5) * grid.side * grid.unit
    bad = ~(away <= _METRE)
    return bad_rows(bad, lambda n: f"{away[n]:,.1f} m away", "the middle of its pixels, within 0.1 m")


@row_rule("GEO012", sampled=True)
def footprint_from_grid(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Every point of the outline on the border of the pixels, and the border covered all round; within 0.1 m."""
    away = np.zeros(len(chips))
    row, col = chips.integers("row"), chips.integers("col")
    chosen = np.zeros(len(chips), dtype=bool)
    chosen[context.sampled(chips)] = True
    for grid, rows in context.grids.of(chips):
        mine = np.zeros(len(chips), dtype=bool)
        mine[rows] = True
        for places, points in chips.footprints.outlines(mine & chosen):
            x, y = grid.to_chips(points[..., 0].ravel(), points[..., 1].ravel())
            x = x.reshape(points.shape[:2]) - col[places, None]
            y = y.reshape(points.shape[:2]) - row[places, None]
            away[places] = _from_border(x, y) * grid.side * grid.unit
    return bad_rows(away > _METRE, lambda n: f"{away[n]:,.1f} m from its pixels' outline", "within 0.1 m")


def _from_border(x: Floats, y: Floats) -> Floats:
    """Distance of outlines (n, points) from that of the unit square, in sides: off its border, or short of a corner."""
    off = np.abs(np.maximum(np.abs(x - 0.5), np.abs(y - 0.5)) - 0.5).max(axis=1)
    corners = [np.hypot(x - right, y - low).min(axis=1) for right in (0, 1) for low in (0, 1)]
    return np.asarray(np.maximum.reduce([off, *corners]))


@rule("GEO013")
def in_its_square(context: ReleaseContext) -> Iterator[Outcome]:
    """The square of every center against the file's name."""
    facts, across = context.scan.facts, context.documents.spec.outputs.across
    for path, rows in facts.slices().items():
        if path not in context.tables.named:
            continue
        square = context.tables.named[path].square
        if context.fingerprint.layout == "utm":
            side = context.grids.usual_side
            column = np.floor((facts["cols"][rows] + 0.5) * side / SQUARE)
            row = np.floor((facts["rows"][rows] + 0.5) * side / SQUARE)
            column, row = column - column % across, row - row % across
            wrong = np.flatnonzero(
                (column != square.column) | (row != square.row) | (facts["epsg"][rows] % 100 != square.zone)
            )
        else:
            lon, lat = facts["lon"][rows], facts["lat"][rows]
            known = np.flatnonzero(np.isfinite(lon) & (np.abs(lat) < 90) & (np.abs(lon) <= 180))
            found = squares_of(lon[known], lat[known], across)
            wrong = known[[n for n, other in enumerate(found) if other != square]]
        if wrong.size:
            more = f"; {wrong.size:,} rows in all" if wrong.size > 1 else ""
            yield Fault(f"{path}: row {wrong[0]}", f"lies in another square{more}", f"a center in {square.token}")
