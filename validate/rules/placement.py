"""Rules on where chips lie: where the image's pixels are, of the right size, and no place twice."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import SQUARE, squares_of
from clay_publish.release.findings import Severity
from clay_publish.validate.context import View
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.footprints import metres_per_degree
from clay_publish.validate.data.single_rows import value
from clay_publish.validate.registry import BadRows, Fault, Outcome, bad_rows, row_rule, rule

_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
_METRE = 0.1
"""How far a footprint may be from its pixels."""
_SIZE = 0.05
"""How much a side may differ from the stated ground size: projections stretch by less."""
_DAY = 86_400_000_000
"""Microseconds."""
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@row_rule(
    "GEO007",
    _ERROR,
    "Longitude comes first",
    reason="Swapped axes put Virginia into Antarctica, and often pass every other check of range.",
    fix="Write x = longitude, y = latitude (`always_xy=True` in pyproj).",
)
def axes_in_order(chips: ChipRows, view: View) -> Sequence[BadRows]:
    """A chip that lies in its source's footprint only with its axes swapped."""
    outside, swapped = chips.once("against sources", lambda: _against_sources(chips, view))
    return list(bad_rows(outside & swapped, lambda row: _centre(chips, row), "longitude, then latitude"))


@row_rule(
    "GEO008",
    _ERROR,
    "Chips lie inside the footprint of their source item",
    reason="A chip outside its image has another place than its pixels.",
    fix="Take the transform of the finest band, in its own CRS.",
)
def inside_source(chips: ChipRows, view: View) -> Sequence[BadRows]:
    """Centres, within one side of a chip of the item's geometry."""
    outside, swapped = chips.once("against sources", lambda: _against_sources(chips, view))
    return list(bad_rows(outside & ~swapped, lambda row: _centre(chips, row), "a place in its item's geometry"))


def _centre(chips: ChipRows, row: int) -> str:
    lon, lat = chips.footprints.centre[row]
    return f"centre {lon:.5f}, {lat:.5f}; item {chips.value('item_id', row)}"


def _against_sources(chips: ChipRows, view: View) -> tuple[Bools, Bools]:
    """Which chips lie outside their source's footprint, and which of them inside it with swapped axes."""
    prints = chips.footprints
    outside, swapped = np.zeros(len(chips), dtype=bool), np.zeros(len(chips), dtype=bool)
    for number, rows in _by_item(chips, view):
        outline = view.outlines[number]
        if outline is None:
            continue
        known = rows[np.isfinite(prints.centre[rows]).all(axis=1)]
        lon, lat = prints.centre[known].T
        reach = float(np.nanmedian(np.sqrt(prints.area[known]))) if known.size else 0.0
        away = known[~_near(outline, lon, lat, reach)]
        outside[away] = True
        if away.size:
            swapped[away] = _near(outline, prints.centre[away, 1], prints.centre[away, 0], reach)
    return outside, swapped


def _near(outline: Any, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], reach: float) -> Bools:
    """Which points lie within `reach` metres of a geometry, roughly; longitudes are taken round the Earth."""
    inside: Bools = shapely.intersects_xy(outline, lon, lat)
    rest = np.flatnonzero(~inside & np.isfinite(lon))
    if rest.size:
        middle = outline.centroid.y
        east, north = metres_per_degree(np.array([min(abs(middle), 85.0)]))
        # In metres around the outline's own latitude, so that the distance is one.
        plane = shapely.transform(outline, lambda xy: xy * [east[0], north[0]])
        for turn in (0.0, 360.0, -360.0):
            points = shapely.points((lon[rest] + turn) * east[0], lat[rest] * north[0])
            inside[rest] |= shapely.dwithin(plane, points, max(reach, 1.0))
    return inside


def _by_item(chips: ChipRows, view: View) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Place among the sources of each item that occurs, and its rows."""
    places = view.item_places(chips)
    for number in np.unique(places[places >= 0]).tolist():
        yield number, np.flatnonzero(places == number)


@row_rule(
    "GEO009",
    _ERROR,
    "Chips have the stated ground size",
    reason="Doubled footprints and unscaled web mercator went unnoticed in published embeddings: "
    "the vector then stands for a quarter of the ground it claims.",
    fix="Use the transform of the finest band, and the real ground size of its pixels.",
)
def ground_size(chips: ChipRows, view: View) -> Sequence[BadRows]:
    """Square root of the footprint's area against pixels a side times metres a pixel."""
    emb = view.footers[chips.path].get("emb", {})
    layout, gsd = emb.get("emb:chip_layout", {}), emb.get("gsd")
    size = layout.get("chip_size", [None])[0]
    if not isinstance(size, int | float) or not isinstance(gsd, int | float):
        raise ReleaseError(chips.path, "does not state chip size and gsd in its footer")
    side = np.sqrt(chips.footprints.area)
    expected = view.stated_side(chips, size, gsd)
    with np.errstate(invalid="ignore"):
        bad = np.abs(side / expected - 1) > _SIZE
    return list(
        bad_rows(bad, lambda row: f"{side[row]:,.0f} m a side", f"about {float(np.median(expected)):,.0f} m a side")
    )


@rule(
    "GEO010",
    _WARNING,
    "No ground is embedded twice for the same time",
    reason="The same ground twice counts twice in every statistic, leaks from training into test sets, "
    "and its two vectors need not agree.",
    fix="Use the utm layout, or one of the overlapping images.",
)
def ground_once(view: View) -> Iterator[Outcome]:
    """Chips of one moment whose centres are nearer than half a side: they share more than a quarter of their ground."""
    facts = view.scan.facts
    pairs = _shared_ground(view)
    if not pairs:
        return
    first, second = pairs[0]
    a, b = facts.place(first), facts.place(second)
    yield Fault(
        f"{b[0]}: row {b[1]} ({value(view, 'id', second)})",
        f"shows the ground of row {a[1]} of {a[0]} ({value(view, 'id', first)}); {len(pairs):,} pairs in all",
        "every place once a moment",
    )


def _shared_ground(view: View) -> list[tuple[int, int]]:
    facts = view.scan.facts
    lon, lat = facts["lon"], facts["lat"]
    day = facts["moments"] // _DAY
    zone = facts["epsg"] % 100 if view.fingerprint.layout == "utm" else None
    step = view.usual_side / 2
    _, north = metres_per_degree(np.zeros(1))
    found: set[tuple[int, int]] = set()
    # Boxes half a side wide, laid four ways, so that near centres meet in one of them.
    for shift_x, shift_y in ((0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5)):
        row = np.floor(np.nan_to_num(lat) * north / step + shift_y).astype(np.int64)
        lines = np.arange(row.min(), row.max() + 1)
        east, _ = metres_per_degree(np.clip((lines - shift_y) * step / north, -89, 89))
        column = np.floor(np.nan_to_num(lon) * east[row - lines[0]] / step + shift_x).astype(np.int64)
        for first, second in repeated(_mixed(column, row, day)).examples(100_000):
            if day[first] == day[second] and (zone is None or zone[first] == zone[second]):
                found.add((first, second))  # across the stated seam of two zones, ground is shared on purpose
    return sorted(found)


def _mixed(*parts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        mixed ^= part.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return mixed


@row_rule(
    "GEO011",
    _ERROR,
    "A chip's centre is where its row and column in the image's grid put it",
    reason="Rows and columns are how a chip is found again in its image; they have to mean the same place.",
    fix="Compute the place from the transform of the finest band, in the image's CRS.",
)
def centre_from_grid(chips: ChipRows, view: View) -> Sequence[BadRows]:
    """Recomputed with pyproj from the transform in sources.parquet, or from the utm grid; within 0.1 m."""
    away = np.zeros(len(chips))
    lon, lat = chips.floats("lon"), chips.floats("lat")
    row, col = chips.integers("row"), chips.integers("col")
    for grid, rows in view.grids(chips):
        x, y = grid.to_chips(lon[rows], lat[rows])
        away[rows] = np.hypot(x - col[rows] - 0.5, y - row[rows] - 0.5) * grid.side * grid.unit
    bad = ~(away <= _METRE)
    return list(bad_rows(bad, lambda n: f"{away[n]:,.1f} m away", "the middle of its pixels, within 0.1 m"))


@row_rule(
    "GEO012",
    _ERROR,
    "A chip's footprint is the outline of its pixels",
    reason="Published embeddings had footprints of the wrong size and place; the image's own transform is the truth.",
    fix="Compute the footprint from the transform of the finest band, in the image's CRS, with edges dense enough.",
    sampled=True,
)
def footprint_from_grid(chips: ChipRows, view: View) -> Sequence[BadRows]:
    """Every point of the outline on the border of the pixels, and the border covered all round; within 0.1 m."""
    away = np.zeros(len(chips))
    row, col = chips.integers("row"), chips.integers("col")
    chosen = np.zeros(len(chips), dtype=bool)
    chosen[view.sampled(chips)] = True
    for grid, rows in view.grids(chips):
        mine = np.zeros(len(chips), dtype=bool)
        mine[rows] = True
        for places, points in chips.footprints.outlines(mine & chosen):
            x, y = grid.to_chips(points[..., 0].ravel(), points[..., 1].ravel())
            x = x.reshape(points.shape[:2]) - col[places, None]
            y = y.reshape(points.shape[:2]) - row[places, None]
            away[places] = _from_border(x, y) * grid.side * grid.unit
    return list(bad_rows(away > _METRE, lambda n: f"{away[n]:,.1f} m from its pixels' outline", "within 0.1 m"))


def _from_border(x: Floats, y: Floats) -> Floats:
    """How far outlines (n, points) are from that of the unit square, in sides: off its border, or short of a corner."""
    off = np.abs(np.maximum(np.abs(x - 0.5), np.abs(y - 0.5)) - 0.5).max(axis=1)
    corners = [np.hypot(x - right, y - low).min(axis=1) for right in (0, 1) for low in (0, 1)]
    return np.asarray(np.maximum.reduce([off, *corners]))


@rule(
    "GEO013",
    _ERROR,
    "A chip lies in the file of its 100 km square",
    reason="Readers pick files by square; a chip in the wrong one is never found.",
    fix="Assign chips to files by their centre.",
)
def in_its_square(view: View) -> Iterator[Outcome]:
    """The square of every centre against the file's name."""
    facts = view.scan.facts
    for path, rows in facts.slices().items():
        if path not in view.data_files:
            continue
        square = view.data_files[path].square
        if view.fingerprint.layout == "utm":
            side = view.usual_side
            column = np.floor((facts["cols"][rows] + 0.5) * side / SQUARE)
            row = np.floor((facts["rows"][rows] + 0.5) * side / SQUARE)
            wrong = np.flatnonzero(
                (column != square.column) | (row != square.row) | (facts["epsg"][rows] % 100 != square.zone)
            )
        else:
            lon, lat = facts["lon"][rows], facts["lat"][rows]
            known = np.flatnonzero(np.isfinite(lon) & (np.abs(lat) < 90) & (np.abs(lon) <= 180))
            found = squares_of(lon[known], lat[known])
            wrong = known[[n for n, other in enumerate(found) if other != square]]
        if wrong.size:
            more = f"; {wrong.size:,} rows in all" if wrong.size > 1 else ""
            yield Fault(f"{path}: row {wrong[0]}", f"lies in another square{more}", f"a centre in {square.token}")
