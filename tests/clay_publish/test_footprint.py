"""Footprints at the edges of longitude and latitude."""

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer

from clay_publish.geo.footprints import crossing_rings, footprints, normalize_footprint, polygons
from clay_publish.release.geoparquet import bbox_array

GEOD = Geod(ellps="WGS84")


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[[x, y + side], [x, y], [x + side, y], [x + side, y + side]]])


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3031", -90), ("EPSG:3413", 90)])
def test_a_chip_that_holds_a_pole_is_closed_over_it(crs: str, pole: float) -> None:
    (outline,) = footprints(crs, square(-5_000, -7_000, 12_800))
    assert outline.is_valid
    assert outline.geom_type == "Polygon"
    west, south, east, north = outline.bounds
    assert (west, east) == (-180, 180)
    assert pole in (south, north)
    area, _ = GEOD.geometry_area_perimeter(outline)
    assert area == pytest.approx(12_800**2, rel=0.07)  # these projections are true at 70° and 71°
    (box,) = bbox_array(np.array([outline])).to_pylist()
    assert (box["xmin"], box["xmax"]) == (-180, 180)


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413"])
def test_chips_around_a_pole_tile_the_ground(crs: str) -> None:
    """No chip is lost or counted twice, wherever the antimeridian and the pole fall."""
    places = [(x * 12_800.0 - 25_600, y * 12_800.0 - 25_600) for x in range(4) for y in range(4)]
    corners = np.concatenate([square(x + 300, y + 700, 12_800) for x, y in places])
    outlines = footprints(crs, corners)
    assert shapely.is_valid(outlines).all()
    areas = [GEOD.geometry_area_perimeter(outline)[0] for outline in outlines]
    np.testing.assert_allclose(areas, areas[0], rtol=0.001)
    overlaps = [a.intersection(b).area for n, a in enumerate(outlines) for b in outlines[n + 1 :]]
    assert max(overlaps) < 0.05  # square degrees at 89.8°: meters on the ground
    bounds = shapely.bounds(outlines)
    assert bounds[:, 0].min() >= -180
    assert bounds[:, 2].max() <= 180


def test_a_wide_chip_beside_a_pole_does_not_cross_the_antimeridian() -> None:
    (outline,) = footprints("EPSG:3413", square(-6_400, -13_000, 12_800))  # towards 45°W, 500 m from the pole
    assert outline.geom_type == "Polygon"
    assert outline.bounds[2] - outline.bounds[0] > 160


_AT_POLES = {
    "a corner": (0, 0, 0),
    "an edge": (-0.5, 0, 0),
    "a turned edge": (-0.5, 0, 45),
    "a corner but for rounding": (1e-10, -1e-10, 0),
    "the middle": (-0.5, -0.5, 0),
    "3 m inside": (-0.3, -3 / 2_560, 0),
    "2 cm outside": (-0.3, 0.02 / 2_560, 0),
    "a mile away": (0.6, 0.4, 10),
    "five sides away": (-5.1, 1.7, 30),
}
"""Where the lower left corner of a square lies from a pole, in sides, and by how many degrees it is turned."""


@pytest.mark.parametrize("where", _AT_POLES)
@pytest.mark.parametrize(
    ("crs", "lat"), [("EPSG:3413", 90), ("EPSG:32661", 90), ("EPSG:3031", -90), ("EPSG:32761", -90)]
)
def test_a_footprint_at_a_pole_is_its_ground(crs: str, lat: float, where: str) -> None:
    """Points on both sides of its edges, and around the pole, are inside or outside as in the projection."""
    side, (x, y, turn) = 2_560.0, _AT_POLES[where]
    plane = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    pole, random = np.array(plane.transform(0, lat)), np.random.default_rng(1)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    corners = pole + (square(x * side, y * side, side) @ np.array([[cos, sin], [-sin, cos]]))
    (outline,) = footprints(crs, corners)
    assert outline.is_valid
    flat = shapely.Polygon(corners[0])
    along = shapely.get_coordinates(shapely.line_interpolate_point(flat.exterior, random.uniform(0, 4 * side, 2_000)))
    around = pole + random.normal(0, 5, (1_000, 2))
    points = np.concatenate([along + random.normal(0, 0.2, along.shape), around])
    sure = shapely.distance(flat.exterior, shapely.points(points)) > 0.06
    lon, lat_ = plane.transform(*points[sure].T, direction="INVERSE")
    np.testing.assert_array_equal(
        shapely.intersects_xy(outline, lon, lat_), shapely.intersects_xy(flat, *points[sure].T)
    )


def test_a_ring_that_closes_but_for_rounding_has_no_spike() -> None:
    """Longitudes are unwrapped by sums, whose rounding left the last point beside the first."""
    random = np.random.default_rng(4)
    middle = random.uniform([-20_000, 5_000], [20_000, 20_000], (3_000, 2))
    corners = square(-1_280, -1_280, 2_560) + middle[:, None]
    outlines = footprints("EPSG:6931", corners)  # the antimeridian points upwards
    assert shapely.is_valid(outlines).all()
    assert shapely.bounds(outlines)[:, 1].min() > 89


def test_a_ring_across_the_antimeridian_becomes_two_polygons() -> None:
    lon = np.array([[179.9, 179.9, -179.9, -179.9, 179.9]])
    lat = np.array([[1.0, 0.0, 0.0, 1.0, 1.0]])
    (outline,) = polygons(lon, lat)
    assert outline.geom_type == "MultiPolygon"
    assert outline.area == pytest.approx(0.2)
    (box,) = bbox_array(np.array([outline])).to_pylist()
    assert box == {"xmin": 179.9, "ymin": 0.0, "xmax": -179.9, "ymax": 1.0}


def test_a_ring_that_only_touches_the_antimeridian_stays_whole() -> None:
    lon = np.array([[179.0, 179.0, 180.0, 180.0, 179.0]])
    lat = np.array([[1.0, 0.0, 0.0, 1.0, 1.0]])
    (outline,) = polygons(lon, lat)
    assert outline.equals(shapely.box(179, 0, 180, 1))


def _ring(*points: tuple[float, ...]) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [[list(point) for point in points]]}


@pytest.mark.parametrize(
    ("geometry", "bbox", "parts"),
    [
        (_ring((179, 0), (181, 0), (181, 1), (179, 1), (179, 0)), None, [(179, 180), (-180, -179)]),
        (_ring((-181.5, 0), (-179, 0), (-179, 1), (-181.5, 1), (-181.5, 0)), None, [(178.5, 180), (-180, -179)]),
        (_ring((179, 0), (-179, 0), (-179, 1), (179, 1), (179, 0)), None, [(179, 180), (-180, -179)]),
        (_ring((179, 0), (179, 1), (-179, 1), (-179, 0), (179, 0)), None, [(179, 180), (-180, -179)]),
        (
            _ring((179, 0, 7), (181, 0, 7), (181, 0, 7), (181, 1, 7), (179, 1, 7), (179, 0, 7)),
            None,
            [(179, 180), (-180, -179)],
        ),
        (_ring((181, 0), (183, 0), (183, 1), (181, 1), (181, 0)), None, [(-179, -177)]),
        (_ring((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)), None, [(0, 1)]),
        (None, [179, 0, -179, 1], [(179, 180), (-180, -179)]),
        (None, [179, 0, 5, -179, 1, 9], [(179, 180), (-180, -179)]),
        (_ring((0, 0), (1, 0)), [3, 0, 4, 1], [(3, 4)]),
        (_ring((0, 0), (1, 0), (0, 0), (0, 0)), [3, 0, 4, 1], [(3, 4)]),
        ({"type": "Point", "coordinates": [3.5, 0.5]}, [3, 0, 4, 1], [(3, 4)]),
        (_ring((-180, -80), (0, -80), (180, -80), (-180, -80)), [-180, -90, 180, -80], [(-180, 180)]),
        (_ring((0, 0, 7), (1, 0), (1, 1, 7), (0, 1), (0, 0, 7)), None, [(0, 1)]),
        (None, [-180, -90, 180, 90], [(-180, 180)]),
    ],
)
def test_item_footprints_are_normalized(geometry: object, bbox: object, parts: list[tuple[float, float]]) -> None:
    found = normalize_footprint(geometry, bbox)
    assert found is not None
    assert found.is_valid
    assert sorted(part.bounds[::2] for part in shapely.get_parts(found)) == sorted(parts)


def test_a_hole_on_the_other_side_of_the_antimeridian_is_cut_out() -> None:
    rings = [_ring((178, 0), (182, 0), (182, 1), (178, 1), (178, 0))["coordinates"]]
    rings.append(_ring((-179.5, 0.2), (-179, 0.2), (-179, 0.8), (-179.5, 0.8), (-179.5, 0.2))["coordinates"])
    found = normalize_footprint({"type": "Polygon", "coordinates": [ring for (ring,) in rings]})  # type: ignore[misc]
    assert found is not None
    assert found.area == pytest.approx(4 - 0.3)
    assert found.bounds == (-180, 0, 180, 1)


def test_only_rings_that_lose_ground_are_doubtful() -> None:
    bow_tie = _ring((179, 0), (-179, 1), (-179, 0), (179, 1), (179, 0))
    assert "50% of what its corners span" in str(crossing_rings(bow_tie))
    whole = _ring((0, 0), (1, 0), (1, 1), (0.999, 1.0001), (1, 0.9999), (0, 1), (0, 0))
    across = _ring((179, 0), (-179, 0), (-179, 1), (179, 1), (179, 0))
    point = {"type": "Point", "coordinates": [0, 0]}
    assert [crossing_rings(each) for each in (whole, across, point, None)] == [None] * 4


def test_no_geometry_and_no_bbox_is_no_footprint() -> None:
    assert normalize_footprint(None, None) is None


@pytest.mark.parametrize("style", ["east", "west", "wrapped"])
def test_rings_that_cross_themselves_keep_their_ground(style: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        corners = int(random.integers(4, 9))
        lon, lat = 180 + random.uniform(-3, 3, corners), random.uniform(40, 45, corners)
        ring = np.stack([lon, lat], axis=-1)
        ring = np.concatenate([ring, ring[:1]])
        whole = shapely.make_valid(shapely.polygons(ring))
        moved = ring.copy()
        if style != "east":
            moved[:, 0] = moved[:, 0] - 360 if style == "west" else np.mod(moved[:, 0] + 180, 360) - 180
        found = normalize_footprint({"type": "Polygon", "coordinates": [moved.tolist()]})
        assert found is not None
        assert found.is_valid
        assert found.area == pytest.approx(whole.area, abs=1e-6)
        assert np.abs(shapely.get_coordinates(found)[:, 0]).max() <= 180
