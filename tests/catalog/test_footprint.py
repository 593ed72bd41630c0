import numpy as np
import pytest
import shapely
from pyproj import Transformer

from clay_publish.catalog.file_summary import MAX_POINTS, lattice_union, union
from clay_publish.geo.footprints import footprints
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release.geoparquet import total_bbox

GRID = UtmGrid(1280)


def ground(epsg: int, row: np.ndarray, col: np.ndarray) -> shapely.Geometry:
    box = GRID.bounds(epsg, row, col)
    x, y = (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2
    made = lattice_union(f"EPSG:{epsg}", row, col, x, y)
    assert made is not None
    return made


def test_a_full_square_is_drawn_with_few_points_and_to_the_metre() -> None:
    row, col = (a.ravel() for a in np.meshgrid(np.arange(3204, 3281), np.arange(313, 390), indexing="ij"))
    whole = ground(32618, row, col)
    assert shapely.get_num_coordinates(whole) < 60
    chips = GRID.footprints(32618, row, col)
    outline = union(chips)
    assert shapely.hausdorff_distance(whole.exterior, outline.exterior, densify=0.1) < 3e-5
    assert shapely.get_num_interior_rings(outline) == 0
    assert shapely.symmetric_difference(whole, outline).area < 1e-5 * outline.area


def test_holes_stay_holes() -> None:
    row, col = (a.ravel() for a in np.meshgrid(np.arange(20), np.arange(20), indexing="ij"))
    keep = ~((row == 7) & (col == 9))
    whole = ground(32631, row[keep], col[keep] + 300)
    hole = GRID.footprints(32631, np.array([7]), np.array([309]))[0]
    assert not whole.contains(hole.centroid)
    assert shapely.get_num_interior_rings(whole) == 1


@pytest.mark.parametrize("coast", [0, 1, -1])
@pytest.mark.parametrize("first", [310, 390])
def test_scattered_chips_are_outlined_in_blocks_within_their_bounds(coast: int, first: int) -> None:
    random = np.random.default_rng(3)
    row, col = (a.ravel() for a in np.meshgrid(np.arange(78), np.arange(78), indexing="ij"))
    keep = (random.random(len(row)) < 0.5) & (coast * (row - 0.9 * col) >= 0)
    row, col = row[keep] + 3200, col[keep] + first
    whole = ground(32618, row, col)
    assert shapely.get_num_coordinates(whole) <= 4 * MAX_POINTS
    chips = GRID.footprints(32618, row, col)
    assert shapely.contains(whole.buffer(2e-5), chips).all()
    west, south, east, north = shapely.total_bounds(chips)
    np.testing.assert_allclose(whole.bounds, (west, south, east, north), atol=1e-6)  # as validate does


@pytest.mark.parametrize("epsg", [32601, 32660, 32701, 32760])
def test_ground_across_the_antimeridian_is_cut_there(epsg: int) -> None:
    south = epsg > 32700
    rows = np.arange(-1400, -1396) if south else np.arange(4000, 4004)
    lon = GRID.centers(np.full(800, epsg), np.full(800, rows[0]), np.arange(800))[0]
    cols = np.flatnonzero(np.abs(np.abs(lon) - 180) < 0.1)
    row, col = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij"))
    whole = ground(epsg, row, col)
    assert whole.geom_type == "MultiPolygon"
    west, _, east, _ = whole.bounds
    assert (west, east) == (-180.0, 180.0)
    assert whole.is_valid
    assert whole.area == pytest.approx(shapely.area(GRID.footprints(epsg, row, col)).sum(), rel=1e-4)


@pytest.mark.parametrize(("crs", "south"), [("EPSG:32661", False), ("EPSG:3031", True)])
def test_ground_around_a_pole_is_united(crs: str, *, south: bool) -> None:
    """With a hole, and the pole on a corner of four chips; by numbers, and by their outlines."""
    plane = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    pole = np.array(plane.transform(0, -90 if south else 90))
    row, col = (a.ravel() for a in np.meshgrid(np.arange(-6, 6), np.arange(-6, 6), indexing="ij"))
    keep = (row != 2) | (col != 3)
    row, col = row[keep], col[keep]
    lower = pole + np.column_stack([col, row]) * 1_280.0
    corners = lower[:, None] + np.array([[0, 1_280], [0, 0], [1_280, 0], [1_280, 1_280]])
    x, y = corners.mean(axis=1).T
    for whole in (lattice_union(crs, row, col, x, y), union(footprints(crs, corners))):
        assert whole is not None
        assert whole.is_valid
        points = pole + np.random.default_rng(1).uniform(-9_000, 9_000, (5_000, 2))
        flat = shapely.union_all(shapely.polygons(corners))
        sure = shapely.distance(flat.boundary, shapely.points(points)) > 3
        lon, lat = plane.transform(*points[sure].T, direction="INVERSE")
        inside = shapely.intersects_xy(whole, lon, lat)
        np.testing.assert_array_equal(inside, shapely.intersects_xy(flat, *points[sure].T))


def test_a_box_all_around_a_pole_and_one_across_the_antimeridian_have_one() -> None:
    boxes = np.array([[-180.0, 89.9, 180.0, 90.0], [170.0, 89.8, -170.0, 89.9]])
    assert total_bbox(boxes) == [-180, 89.8, 180, 90]


def test_numbers_that_are_no_grid_tell_none() -> None:
    numbers = np.arange(12)
    x = np.random.default_rng(1).normal(size=12) * 1e4
    assert lattice_union("EPSG:32618", numbers % 4, numbers // 4, x, x[::-1]) is None
