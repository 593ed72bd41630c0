"""Areas and the cells they ask for, against polygons in projections made by hand."""

import json
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from clay_publish.errors import SpecError
from clay_publish.geo.area import items_area, read_area
from clay_publish.geo.expected_cells import Rule, expected_cells, fill
from clay_publish.geo.utm_grid import Ints, UtmGrid

GRID = UtmGrid(1280)


def numbers_of(grid: UtmGrid, area: Any, rule: Rule = "intersects") -> Ints:
    found = [zone.numbers() for zone in expected_cells(grid, area, rule=rule)]
    return np.concatenate(found) if found else np.array([], dtype=np.int64)


def by_polygons(grid: UtmGrid, area: Any, zone: int, rule: Rule) -> tuple[Ints, Ints]:
    """The slow way: every cell around an area as a box, the area projected densely by EPSG code."""
    to_plane = Transformer.from_crs(4326, 32600 + zone, always_xy=True)
    middle = 6 * zone - 183
    west, south, east, north = area.bounds
    x, y = to_plane.transform(
        np.clip(np.linspace(west, east, 50), middle - 15, middle + 15).repeat(50),
        np.tile(np.linspace(south, north, 50), 50),
    )
    plane = shapely.transform(shapely.segmentize(area, 0.002), to_plane.transform, interleaved=False)
    shapely.prepare(plane)
    side = grid.cell
    cols = np.arange(max(np.floor(min(x) / side) - 2, 0), np.ceil(max(x) / side) + 2).astype(int)
    rows = np.arange(np.floor(min(y) / side) - 2, np.ceil(max(y) / side) + 2).astype(int)
    row, col = (grid_.ravel() for grid_ in np.meshgrid(rows, cols, indexing="ij"))
    epsg = np.where(row >= 0, 32600, 32700) + zone
    mine = grid.belongs(epsg, row, col)
    epsg, row, col = epsg[mine], row[mine], col[mine]
    boxes = shapely.box(col * side, row * side, (col + 1) * side, (row + 1) * side)
    share = shapely.area(shapely.intersection(boxes, plane)) / side**2
    # An outline may stray by a ten-thousandth of a side; what hangs on that may be counted or not.
    sure = share > 2e-4 if rule == "intersects" else share > 1 - 1e-9
    maybe = shapely.dwithin(boxes, plane, 2e-4 * side) if rule == "intersects" else share > 1 - 2e-4
    return grid.numbers(epsg, row, col)[sure], grid.numbers(epsg, row, col)[maybe]


AREAS = {
    "a bbox over a seam": shapely.box(5.7, 45.1, 6.4, 45.6),
    "a bbox over the equator": shapely.box(30.1, -0.3, 30.6, 0.2),
    "a bbox at the northern limit": shapely.box(20.0, 83.9, 23.0, 84.0),
    "a triangle": shapely.Polygon([(-75.9, 37.1), (-75.2, 37.3), (-75.6, 37.9)]),
    "a ring with a hole": shapely.box(12.0, 60.0, 12.8, 60.4).difference(shapely.box(12.2, 60.1, 12.6, 60.3)),
    "two parts": shapely.MultiPolygon(
        [shapely.box(149.1, -35.4, 149.3, -35.2), shapely.box(149.5, -35.4, 149.6, -35.3)]
    ),
    "less than a cell": shapely.box(10.0, 50.0, 10.001, 50.001),
}


@pytest.mark.parametrize("rule", ["intersects", "covered"])
@pytest.mark.parametrize("name", AREAS)
def test_cells_are_those_that_polygons_find(name: str, rule: Rule) -> None:
    area = AREAS[name]
    seen = 0
    for zone in expected_cells(GRID, area, rule=rule):
        sure, maybe = by_polygons(GRID, area, zone.zone, rule)
        made = zone.numbers()
        assert np.all(np.isin(sure, made))
        assert np.all(np.isin(made, maybe))
        seen += len(zone)
    assert seen or name == "less than a cell"


@pytest.mark.parametrize("side", [20_000, 64_000])
@pytest.mark.parametrize("south", [-80.0, 82.9])
def test_wide_cells_at_the_limits_are_those_that_polygons_find(side: float, south: float) -> None:
    grid = UtmGrid(side)
    for zone in expected_cells(grid, shapely.box(0.5, south, 17.5, south + 1.1), rule="intersects"):
        middle = 6 * zone.zone - 183
        near = shapely.box(max(0.5, middle - 15), south, min(17.5, middle + 15), south + 1.1)
        sure, maybe = by_polygons(grid, near, zone.zone, "intersects")
        assert np.all(np.isin(sure, zone.numbers()))
        assert np.all(np.isin(zone.numbers(), maybe))


@settings(deadline=None, max_examples=60)
@given(
    lon=st.floats(-179, 178),
    lat=st.floats(-79.5, 83),
    width=st.floats(0.01, 0.6),
    height=st.floats(0.01, 0.3),
    turn=st.floats(0, 90),
)
def test_any_box_asks_for_what_polygons_find(lon: float, lat: float, width: float, height: float, turn: float) -> None:
    area = shapely.affinity.rotate(shapely.box(lon, lat, lon + width, lat + height), turn)
    if area.bounds[0] < -180 or area.bounds[2] > 180:
        return
    for zone in expected_cells(GRID, area, rule="intersects"):
        sure, maybe = by_polygons(GRID, area, zone.zone, "intersects")
        assert np.all(np.isin(sure, zone.numbers()))
        assert np.all(np.isin(zone.numbers(), maybe))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), min_size=3, max_size=9, unique=True))
def test_outlines_that_lie_on_the_lines_of_the_grid_touch_nothing_outside(points: list[tuple[int, int]]) -> None:
    area = shapely.MultiPoint(points).convex_hull
    if area.geom_type != "Polygon":
        return
    squares = [(row, col) for row in range(-7, 8) for col in range(-7, 8)]
    shares = {rc: shapely.box(rc[1], rc[0], rc[1] + 1, rc[0] + 1).intersection(area).area for rc in squares}
    for rule, enough in (("intersects", 1e-6), ("covered", 1 - 1e-9)):
        row, first, stop = fill(area, rule=rule)
        made = {(r, c) for r, a, b in zip(row, first, stop, strict=True) for c in range(a, b)}
        assert made == {rc for rc, share in shares.items() if share > enough}


def test_the_equator_and_the_antimeridian_are_no_gaps() -> None:
    """A degree on each side of both; every point of it lies in a cell that is expected."""
    area = read_area([179.0, -1.0, -179.0, 1.0])
    made = numbers_of(GRID, area.geometry)
    rng = np.random.default_rng(0)
    lon = rng.uniform(179.0, 181.0, 20_000)
    lat = rng.uniform(-1.0, 1.0, 20_000)
    lon = np.concatenate([np.where(lon > 180, lon - 360, lon), [180.0, -180.0]])
    lat = np.concatenate([lat, [0.5, -0.5]])
    assert np.all(np.isin(GRID.numbers(*GRID.cells_at(lon, lat)), made))
    assert len(np.unique(made)) == len(made)
    ground = Geod(ellps="WGS84").polygon_area_perimeter([179, 181, 181, 179], [-1, -1, 1, 1])[0]
    assert len(made) * 1280**2 == pytest.approx(abs(ground), rel=0.03)


def test_covered_cells_across_the_antimeridian_are_whole() -> None:
    area = read_area([179.5, 10.0, -179.5, 11.0]).geometry
    covered = numbers_of(GRID, area, "covered")
    epsg, row, col = GRID.cells_at([179.99999, -179.99999], [10.5, 10.5])
    assert np.all(np.isin(GRID.numbers(epsg, row, col), covered))


def test_runs_know_what_they_hold() -> None:
    zone = next(iter(expected_cells(GRID, AREAS["a ring with a hole"], rule="intersects")))
    _, row, col = zone.cells()
    around = np.stack(np.meshgrid(np.arange(row.min() - 2, row.max() + 3), np.arange(col.min() - 2, col.max() + 3)))
    r, c = around.reshape(2, -1)
    truth = set(zip(row.tolist(), col.tolist(), strict=True))
    assert zone.holds(r, c).tolist() == [rc in truth for rc in zip(r.tolist(), c.tolist(), strict=True)]
    assert len(zone) == len(truth)


def test_land_is_the_land_of_the_earth() -> None:
    land = read_area("land")
    assert land.geometry.is_valid
    assert land.km2 == pytest.approx(146.9e6, rel=0.005)
    places = {
        "Paris": (2.35, 48.86),
        "Ayers Rock": (131.0, -25.3),
        "Chukotka": (-179.0, 68.0),
        "Hawaii": (-155.5, 19.6),
    }
    assert all(land.geometry.covers(shapely.Point(p)) for p in places.values())
    assert not land.geometry.intersects(shapely.Point(-30, 30))
    said = land.beyond()
    assert len(said) == 1
    assert "Antarctica south of 80°S lies outside the utm grid" in said[0]


@pytest.mark.slow
def test_all_land_is_expected_in_cells_of_ten_kilometers() -> None:
    grid = UtmGrid(10_000)
    land = read_area("land").geometry
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(-180, 180, 4000), np.degrees(np.arcsin(rng.uniform(-0.98, 0.99, 4000)))
    ashore = shapely.contains_xy(land, lon, lat)
    mine = grid.numbers(*grid.cells_at(lon, lat))
    cells = numbers_of(grid, land)
    assert ashore.sum() > 800
    assert np.all(np.isin(mine[ashore], cells))
    assert np.isin(mine[~ashore], cells).mean() < 0.05  # only those close to a coast


def test_items_promise_only_what_they_cover_together() -> None:
    left, right = shapely.box(10.0, 50.0, 10.1 + 1e-9, 50.2), shapely.box(10.1 + 3e-9, 50.0, 10.2, 50.2)
    area = items_area(np.array([left, right, left]))
    assert area.rule == "covered"
    together = numbers_of(GRID, area.geometry, area.rule)
    assert np.array_equal(together, numbers_of(GRID, shapely.box(10.0, 50.0, 10.2, 50.2), "covered"))
    apart = sum(len(numbers_of(GRID, side, "covered")) for side in (left, right))
    assert len(together) > apart


def test_no_items_promise_nothing() -> None:
    area = items_area(np.array([], dtype=object))
    assert list(expected_cells(GRID, area.geometry, rule=area.rule)) == []
    assert area.beyond() == []


def test_an_area_over_a_pole_says_what_is_out_of_range() -> None:
    said = read_area([-10.0, 80.0, 10.0, 90.0]).beyond()
    assert len(said) == 1
    assert "north of 84°N lies outside the utm grid" in said[0]
    assert read_area([-10.0, 85.0, 10.0, 90.0]).geometry.bounds[1] == 85.0
    assert len(numbers_of(GRID, read_area([-10.0, 85.0, 10.0, 90.0]).geometry)) == 0


def polygon(*ring: list[float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


@pytest.mark.parametrize(
    ("area", "said"),
    [
        (polygon([0, 0], [2, 2], [2, 0], [0, 2]), "Self-intersection"),
        (polygon([170, 10], [-170, 10], [-170, 20], [170, 20]), "cut at the antimeridian"),
        (polygon([170, 10], [190, 10], [190, 20], [170, 20]), "longitude and latitude in degrees"),
        ({"type": "FeatureCollection", "features": []}, "empty"),
        ({"type": "Point", "coordinates": [1, 2]}, "Point"),
    ],
)
def test_a_bad_area_is_refused_with_a_reason(area: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_area(json.loads(json.dumps(area)), "release.yaml: imagery.0.area")


def test_an_area_of_too_many_vertices_is_refused_before_any_geometry_is_computed() -> None:
    angles = np.linspace(0, 2 * np.pi, 300_000, endpoint=False)
    ring = np.stack([0.1 * np.cos(angles), 0.1 * np.sin(angles)], axis=1).tolist()
    with pytest.raises(SpecError, match=r"has 300,001 vertices .expected at most 200,000.*-simplify"):
        read_area({"type": "Polygon", "coordinates": [[*ring, ring[0]]]})


def test_km2_is_the_ground_of_the_ellipsoid() -> None:
    """The zone from the equator to 30°N, one degree wide. Independent: Geod on dense parallels."""
    lon = np.concatenate([np.linspace(0, 1, 200), np.linspace(1, 0, 200)])
    lat = np.concatenate([np.zeros(200), np.full(200, 30.0)])
    truth = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0]) / 1e6
    assert read_area([0.0, 0.0, 1.0, 30.0]).km2 == pytest.approx(truth, rel=1e-5)
