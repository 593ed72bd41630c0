"""The grid against pyproj by hand: nothing here goes through the grid's own projections."""

import math
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from pyproj import Transformer

from clay_publish.errors import SpecError
from clay_publish.geo.utm_grid import UtmGrid, parse_chip_id
from clay_publish.windows import Window

GRID = UtmGrid(1280)
WINDOW = Window.parse("2023-01-01/2023-02-01")

lons = st.floats(-180, 180, allow_nan=False)
lats = st.floats(-80, 84, allow_nan=False)
cells = st.sampled_from([4.8, 76.8, 500, 1000, 1280, 2560, 20_000, 64_000])


def by_hand(lon: Any, lat: Any, epsg: int) -> Any:
    """Easting and northing in an EPSG projection."""
    return Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)


def corners_by_hand(epsg: int, row: int, col: int, side: float) -> list[tuple[float, float]]:
    """Longitudes and latitudes of a cell's corners, from the words of the definition."""
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    base = 0 if epsg < 32700 else 10_000_000
    return [
        to_degrees.transform((col + dx) * side, base + (row + dy) * side) for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (-75.7, 37.5, 32618),  # Virginia's eastern shore
        (5.0, 60.4, 32631),  # Bergen lies in zone 31 here, the exception of Norway does not hold
        (10.0, 78.2, 32632),  # nor that of Svalbard
        (151.2, -33.9, 32756),
        (-180.0, 10.0, 32601),  # the antimeridian opens zone 1
        (180.0, 10.0, 32601),  # from either side
        (179.999999, 10.0, 32660),
        (-174.0, 10.0, 32602),  # a seam belongs to the zone on its east
        (-174.0000001, 10.0, 32601),
        (30.0, 0.0, 32636),  # the equator belongs to the north
        (30.0, -0.0000001, 32736),
        (-65.0, -80.0, 32720),
        (-65.0, 84.0, 32620),
    ],
)
def test_a_point_lies_in_the_cell_that_pyproj_names(lon: float, lat: float, epsg: int) -> None:
    codes, rows, cols = GRID.cells_at([lon], [lat])
    assert codes[0] == epsg
    wrapped = lon - 360 if lon == 180 else lon
    easting, northing = by_hand(wrapped, lat, epsg)
    base = 0 if epsg < 32700 else 10_000_000
    assert rows[0] == math.floor((northing - base) / 1280)
    assert cols[0] == math.floor(easting / 1280)


def test_row_minus_one_touches_the_equator_from_below() -> None:
    assert GRID.bounds(32736, -1, 300)[0].tolist() == [384_000, 9_998_720, 385_280, 10_000_000]
    assert GRID.bounds(32636, 0, 300)[0].tolist() == [384_000, 0, 385_280, 1280]
    top = shapely.get_coordinates(GRID.footprints(32736, -1, 300))[:, 1].max()
    assert top == pytest.approx(0, abs=1e-12)


def test_known_cell_of_a_real_scene() -> None:
    """T18SVG of 2016-01-12 begins at 399960, 4200000 in EPSG:32618."""
    assert GRID.bounds(32618, 3281, 312)[0].tolist() == [399_360, 4_199_680, 400_640, 4_200_960]
    lon, lat = Transformer.from_crs(32618, 4326, always_xy=True).transform(400_000, 4_200_320)
    made_lon, made_lat = GRID.centers(32618, 3281, 312)
    assert (made_lon[0], made_lat[0]) == pytest.approx((lon, lat), abs=1e-11)


@given(lon=lons, lat=lats, side=cells)
@example(lon=-174.0, lat=0.0, side=1280)
@example(lon=180.0, lat=84.0, side=64_000)
@example(lon=-180.0, lat=-80.0, side=64_000)
@example(lon=3.0, lat=84.0, side=20_000)
@example(lon=5.999999999, lat=83.99999, side=64_000)
def test_every_point_lies_in_a_cell_that_belongs_to_its_zone(lon: float, lat: float, side: float) -> None:
    grid = UtmGrid(side)
    epsg, row, col = grid.cells_at([lon], [lat])
    assert grid.belongs(epsg, row, col).all()
    easting, northing = by_hand(-180.0 if lon == 180 else lon, lat, int(epsg[0]))
    xmin, ymin, xmax, ymax = grid.bounds(epsg, row, col)[0]
    assert xmin - 1e-6 <= easting <= xmax + 1e-6
    assert ymin - 1e-6 <= northing <= ymax + 1e-6


@given(
    zone=st.integers(1, 60),
    lat=lats,
    east=st.booleans(),
    step=st.integers(-3, 3),
    side=cells,
)
def test_a_cell_belongs_where_the_definition_says(zone: int, lat: float, east: bool, step: int, side: float) -> None:
    """Cells on both sides of a zone's edges, corner by corner."""
    seam = 6 * zone - 180 if east else 6 * zone - 186
    easting, northing = by_hand(seam, lat, 32600 + zone)
    row, col = math.floor(northing / side), max(math.floor(easting / side) + step, 0)
    epsg = (32600 if row >= 0 else 32700) + zone
    corners = corners_by_hand(epsg, row, col, side)
    in_strip = any((lon - (6 * zone - 186)) % 360 < 6 for lon, _ in corners)
    in_limits = any(-80 <= y <= 84 for _, y in corners)
    assert bool(UtmGrid(side).belongs(epsg, row, col)[0]) == (in_strip and in_limits)


@pytest.mark.parametrize(("lat", "share"), [(0.0, 0.002), (83.0, 0.02)])
def test_cells_of_two_zones_overlap_a_little_at_the_seam(lat: float, share: float) -> None:
    """Width of the cells of a row beyond the width of the strip."""
    _, northing = by_hand(3.0, lat, 32631)
    rows = np.arange(int(northing // 1280), int(northing // 1280) + 60)
    excess = []
    for row in rows:
        cols = np.arange(0, 782)
        mine = GRID.belongs(np.full(len(cols), 32631), np.full(len(cols), row), cols)
        _, lat_here = GRID.centers(32631, row, 390)
        west, _ = by_hand(0.0, lat_here[0], 32631)
        east, _ = by_hand(6.0, lat_here[0], 32631)
        excess.append(mine.sum() * 1280 / (east - west) - 1)
    assert np.mean(excess) == pytest.approx(share, rel=0.35)


def test_a_footprint_is_true_to_a_thousandth_of_a_side() -> None:
    for side, lat in ((1280, 83.9), (64_000, 83.5), (64_000, 0.5)):
        grid = UtmGrid(side)
        epsg, row, col = grid.cells_at([5.0], [lat])
        outline = shapely.get_coordinates(shapely.segmentize(grid.footprints(epsg, row, col)[0], 0.001))
        x, y = by_hand(outline[:, 0], outline[:, 1], int(epsg[0]))
        true = shapely.box(*grid.bounds(epsg, row, col)[0]).boundary
        assert shapely.distance(true, shapely.points(x, y)).max() < side / 1000


def test_footprints_run_counterclockwise_and_are_cut_at_the_antimeridian() -> None:
    lon = np.array([179.9999, -179.9999, 12.0])
    lat = np.array([-16.5, 71.0, 48.0])
    outlines = GRID.footprints(*GRID.cells_at(lon, lat))
    assert [o.geom_type for o in outlines] == ["MultiPolygon", "MultiPolygon", "Polygon"]
    for outline in outlines:
        west, _, east, _ = outline.bounds
        assert -180 <= west <= east <= 180
        assert all(part.exterior.is_ccw for part in shapely.get_parts(outline))
        assert shapely.is_valid(outline)
    assert outlines[0].covers(shapely.Point(179.9999, -16.5))
    assert {part.bounds[0] for part in outlines[0].geoms} > {-180.0}


@given(lon=lons, lat=lats, side=cells)
def test_ids_round_trip(lon: float, lat: float, side: float) -> None:
    grid = UtmGrid(side)
    epsg, row, col = grid.cells_at([lon], [lat])
    made = grid.chip_id(int(epsg[0]), int(row[0]), int(col[0]), WINDOW)
    assert parse_chip_id(made) == (grid, epsg[0], row[0], col[0], WINDOW)


def test_numbers_ascend_with_rows_and_columns() -> None:
    numbers = GRID.numbers([32718, 32718, 32718, 32618, 32618, 32619], [-2, -1, -1, 0, 0, -5], [9, 1, 2, 0, 7, 0])
    assert np.all(np.diff(numbers) > 0)


def test_a_side_that_no_float_holds_has_one_name() -> None:
    assert UtmGrid(128 * 0.6) == UtmGrid(76.8)
    assert UtmGrid(128 * 0.6).chip_id(32618, 1, 2, WINDOW).startswith("utm-76.8m_")


@pytest.mark.parametrize(
    "text", ["utm-1280m_32618_1_2", "scene-128px_a_1_2", "utm-1280m_4326_1_2_2023-01-01_2023-02-01"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_chip_id(text)


@pytest.mark.parametrize(("lon", "lat"), [(0, 84.1), (0, -80.1), (math.nan, 0), (0, math.nan)])
def test_a_point_outside_the_limits_is_refused(lon: float, lat: float) -> None:
    with pytest.raises(ValueError, match="80°S to 84°N"):
        GRID.cells_at([lon], [lat])


def test_cells_as_wide_as_a_zone_are_refused() -> None:
    with pytest.raises(SpecError, match="69 km"):
        UtmGrid(500 * 256)
