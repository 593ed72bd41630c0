"""The area of a spec: `land`, a bbox or GeoJSON, as polygons between ±180° (OGC:CRS84)."""

import functools
import importlib.resources
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import shapely
from pyproj import Proj

from clay_publish.errors import SpecError
from clay_publish.geo.expected_cells import Rule
from clay_publish.geo.utm_grid import NORTH, SOUTH

_EQUAL_AREA = Proj(proj="cea", ellps="WGS84")
_CENTIMETRE = 1e-7
"""Degrees."""

_LAND_UNIT = 1e-4
"""Degrees a step of the coordinates in `data/land.parquet`."""


@dataclass(frozen=True)
class Area:
    """Ground that chips are asked for."""

    name: str
    """What a reader of the plan calls it: `land`, `bbox`, `geojson`, `items`; `area` for several together."""

    geometry: Any = field(repr=False)
    """Valid Polygon or MultiPolygon, degrees (OGC:CRS84), cut at the antimeridian; edges are straight in degrees."""

    @property
    def rule(self) -> Rule:
        """Items promise the cells they cover whole, anything else asks for each cell it shares ground with."""
        return "covered" if self.name == "items" else "intersects"

    @property
    def km2(self) -> float:
        """Ground on the WGS 84 ellipsoid."""
        return _km2(self.geometry)

    def within(self) -> "Area":
        """The part inside the limits of the `utm` grid."""
        return Area(self.name, shapely.intersection(self.geometry, shapely.box(-180, SOUTH, 180, NORTH)))

    def beyond(self) -> list[str]:
        """A sentence for each part outside the limits of the `utm` grid, with its size; usually none."""
        west, south, east, north = self.geometry.bounds
        said, whole = [], "images" if self.name == "items" else "area"
        for reaches, box, where in (
            (south < SOUTH, (west, -90, east, SOUTH), f"south of {-SOUTH:g}°S"),
            (north > NORTH, (west, NORTH, east, 90), f"north of {NORTH:g}°N"),
        ):
            outside = shapely.intersection(self.geometry, shapely.box(*box)) if reaches else None
            if outside is not None and outside.area > 0:
                size = _km2(outside)
                name = "Antarctica " if self.name == "land" and box[1] == -90 else ""
                said.append(f"{name}{where} lies outside the utm grid: {size:,.0f} km² of the {whole}")
        return said


def read_area(area: Any, where: str = "area") -> Area:
    """The ground that the `area` of an imagery block names. Nothing of it is read from the network.

    Raises:
        SpecError: not GeoJSON, crossing itself, empty, outside the degrees of the Earth, or across the antimeridian in
            one piece.
    """
    if area == "land":
        return Area("land", land())
    if isinstance(area, list):
        return Area("bbox", _box(area))
    geometry = parse_area(area, where)
    _check_turns(geometry, where)
    return Area("geojson", geometry)


def items_area(footprints: npt.NDArray[np.object_]) -> Area:
    """The ground that items cover together; empty where there are none.

    Args:
        footprints: [N] polygons (OGC:CRS84), cut at the antimeridian. Neighbors that miss each other by a centimeter
            touch.
    """
    whole = shapely.make_valid(shapely.from_wkb(np.unique(shapely.to_wkb(footprints)))) if len(footprints) else []
    united = shapely.union_all(whole, grid_size=_CENTIMETRE)
    parts = shapely.get_parts(united)
    return Area("items", shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]))


MAX_VERTICES = 200_000
"""Of an area: planning takes seconds with so many, minutes with a million."""


def parse_area(area: Any, where: str = "area") -> shapely.Geometry:
    """The polygons of a GeoJSON geometry, Feature or FeatureCollection, OGC:CRS84.

    Raises:
        SpecError: not GeoJSON, not polygons, not valid, or outside the degrees of the Earth.
    """
    if not isinstance(area, dict):
        raise SpecError(where, f"is {type(area).__name__}", "a GeoJSON object")
    if area.get("type") == "FeatureCollection":
        parts = [f.get("geometry") for f in area.get("features", []) if isinstance(f, dict)]
    else:
        parts = [area.get("geometry") if area.get("type") == "Feature" else area]
    try:
        polygons = [shapely.from_geojson(json.dumps(part)) for part in parts]
        vertices = int(shapely.get_num_coordinates(polygons).sum())
        if vertices > MAX_VERTICES:
            raise SpecError(
                where,
                f"has {vertices:,} vertices",
                f"at most {MAX_VERTICES:,}",
                "Simplify it: `ogr2ogr -simplify 0.0001 small.geojson large.geojson` keeps details of 10 m.",
            )
        geometry = shapely.union_all([_valid_polygon(polygon, where) for polygon in polygons])
    except shapely.errors.GEOSException as error:
        raise SpecError(where, f"is not a GeoJSON geometry ({error})") from error
    if geometry.is_empty:
        raise SpecError(where, "is empty", "at least one polygon")
    west, south, east, north = geometry.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise SpecError(
            where,
            f"reaches from {west}, {south} to {east}, {north}",
            "longitude and latitude in degrees (OGC:CRS84)",
        )
    return geometry


def _valid_polygon(geometry: shapely.Geometry, where: str) -> shapely.Geometry:
    if geometry.geom_type not in {"Polygon", "MultiPolygon"}:
        raise SpecError(where, f"holds a {geometry.geom_type}", "polygons")
    if not geometry.is_valid:
        reason = shapely.is_valid_reason(geometry)
        raise SpecError(where, f"is not valid ({reason})", "polygons that do not cross themselves")
    return geometry


@functools.cache
def land() -> Any:
    """The land of the Earth as a MultiPolygon (OGC:CRS84). Source: Natural Earth 1:10m, see `data/README.md`."""
    file = importlib.resources.files("clay_publish.geo") / "data" / "land.parquet"
    with file.open("rb") as stream:
        table = pq.read_table(stream)
    polygon, ring, x, y = (table[name].to_numpy() for name in ("polygon", "ring", "x", "y"))
    rings = shapely.linearrings(np.stack([x, y], axis=-1) * _LAND_UNIT, indices=ring)
    owner = polygon[np.flatnonzero(np.diff(ring, prepend=-1))]
    return shapely.multipolygons(shapely.polygons(rings, indices=owner))


def _box(sides: list[float]) -> Any:
    west, south, east, north = sides
    if west < east:
        return shapely.box(west, south, east, north)
    halves = [(west, 180.0), (-180.0, east)]
    return shapely.multipolygons([shapely.box(a, south, b, north) for a, b in halves if a < b])


def _check_turns(geometry: Any, where: str) -> None:
    """Refuse edges that go more than half way round: most likely an area across the antimeridian, not cut there.

    An edge from −180° to 180° is a full turn, and meant.
    """
    for line in shapely.get_rings(shapely.get_parts(geometry)):
        xy = shapely.get_coordinates(line)
        on_edge = np.abs(xy[:, 0]) >= 180
        bad = np.flatnonzero((np.abs(np.diff(xy[:, 0])) > 180) & ~(on_edge[1:] & on_edge[:-1]))
        if len(bad):
            (a, b), (c, d) = xy[bad[0]], xy[bad[0] + 1]
            raise SpecError(
                where,
                f"has an edge of more than 180° from {a:g}, {b:g} to {c:g}, {d:g}",
                "polygons that are cut at the antimeridian (RFC 7946, 3.1.9)",
                "Split it there, give a bbox instead, or put a point between.",
            )


def to_equal_area(geometry: Any) -> Any:
    """Return geometries in degrees (OGC:CRS84), or an array of them, in equal-area coordinates on WGS 84, meters."""
    return shapely.transform(shapely.segmentize(geometry, 0.5), _EQUAL_AREA, interleaved=False)


def _km2(geometry: Any) -> float:
    return float(to_equal_area(geometry).area) / 1e6
