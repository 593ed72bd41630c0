"""True footprints: rectangles of a projected grid as CRS84 polygons.

Edges get as many points as they need to stay within 5 cm of the curve they stand for; what crosses the antimeridian
is split there (RFC 7946, 3.1.9).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock, local
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer

Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]

_TOLERANCE = 0.05
_EARTH_RADIUS = 6_371_000.0
_MAX_POINTS = 256
_SAMPLE = 16
"""Footprints of a batch on which the number of points is checked."""
_BESIDE = 6
"""Half diagonals of a chip from its center to a pole: nearer ones get points of their own."""
_AT_POLE = 1e-3
"""Meters from a pole, at most, to take a point for the pole."""
_SAME = 1e-10
"""Degrees, 0.01 mm."""


_MAKING = Lock()
_MOST = 256
"""Transformers that a thread keeps."""


class _Own(local):
    """What a thread has made."""

    def __init__(self) -> None:
        self.transformers: dict[tuple[str, str], Transformer] = {}


_OWN = _Own()


def transformer(source: str, target: str) -> Transformer:
    """From one CRS to another (an authority code, WKT or PROJJSON), x or longitude first.

    Each thread has its own, as PROJ wants it, and they are made one at a time: with pyproj 3.7.2, processes have ended
    while threads made them.

    Raises:
        CRSError: one of the two is not a CRS.
    """
    made, between = _OWN.transformers, (source, target)
    if between not in made:
        with _MAKING:
            if len(made) >= _MOST:
                made.clear()
            made[between] = Transformer.from_crs(
                CRS.from_user_input(source), CRS.from_user_input(target), always_xy=True
            )
    return made[between]


def to_lonlat(crs: str) -> Transformer:
    """From `crs` to longitude and latitude in degrees. Errors as `transformer`."""
    return transformer(crs, "OGC:CRS84")


def centers(crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude of points in `crs`."""
    lon, lat = to_lonlat(crs).transform(x, y)
    return np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)


def footprints(crs: str, corners: Floats, tolerance: float = _TOLERANCE) -> Geometries:
    """Footprints of quadrilaterals in `crs`, OGC:CRS84.

    Args:
        crs: authority code, WKT or PROJJSON of the corners.
        corners: shape (n, 4, 2), x and y of each corner in order around the quadrilateral.
        tolerance: meters by which an edge may leave its curve.

    Returns:
        Shape (n,): a Polygon each, counterclockwise; a MultiPolygon where it crosses the antimeridian.
    """
    made = np.empty(len(corners), dtype=object)
    middle = corners.mean(axis=1)
    reach = _BESIDE * np.hypot(*(corners - middle[:, None]).T).max(axis=0)
    rest = np.ones(len(corners), dtype=bool)
    for pole in _poles(crs):
        beside = np.hypot(*(middle - pole.point).T) < reach
        for place in np.flatnonzero(beside):
            made[place] = pole.footprint(crs, corners[place])
        rest &= ~beside
    if rest.any():
        made[rest] = _footprints_elsewhere(crs, corners[rest], tolerance)
    return made


def _footprints_elsewhere(crs: str, corners: Floats, tolerance: float) -> Geometries:
    """Footprints with as many points on each edge."""
    points = _points_an_edge(crs, corners, tolerance)
    share = np.linspace(0, 1, points, endpoint=False)[None, None, :, None]
    following = np.roll(corners, -1, axis=1)
    ring = (corners[:, :, None] * (1 - share) + following[:, :, None] * share).reshape(len(corners), -1, 2)
    ring = np.concatenate([ring, ring[:, :1]], axis=1)
    lon, lat = to_lonlat(crs).transform(ring[..., 0], ring[..., 1])
    return polygons(np.asarray(lon), np.asarray(lat))


@dataclass(frozen=True)
class _Pole:
    """A pole that is one point of a projection."""

    point: Floats
    """x, y."""
    lat: float
    """±90."""
    unit: float
    """Meters in a unit of x and y."""

    def footprint(self, crs: str, corners: Floats, tolerance: float = _TOLERANCE) -> shapely.Geometry:
        """The footprint of a ring of corners that holds the pole, has it on its border, or lies beside it."""
        edges = zip(corners, np.roll(corners, -1, axis=0), strict=True)
        ring = np.concatenate([self.edge(*pair, tolerance) for pair in edges])
        here = np.hypot(*(ring - self.point).T) * self.unit < _AT_POLE
        kept = ~(here & np.roll(here, 1))
        ring, here = ring[kept], here[kept]
        lon, lat = to_lonlat(crs).transform(ring[:, 0], ring[:, 1])
        lat = np.where(here, self.lat, lat)
        return polygons(np.append(lon, lon[0])[None], np.append(lat, lat[0])[None])[0]

    def edge(self, start: Floats, end: Floats, tolerance: float) -> Floats:
        """Points of an edge from its start to before its end, (n, 2): at a distance r from the pole every √(8·r·t).

        A chord of that length leaves its arc by the tolerance t, in meters.
        """
        length = float(np.hypot(*(end - start)))
        along = (end - start) / length
        nearest = float((self.point - start) @ along)
        most = max(abs(nearest), abs(length - nearest))
        first = 2 * tolerance / self.unit
        away = first * np.arange(math.ceil(math.sqrt(most / first)) + 1) ** 2
        places = np.unique(np.concatenate([nearest - away, nearest + away]))
        places = places[(places > first / 100) & (places < length - first / 100)]
        return np.asarray(start + np.append(0.0, places)[:, None] * along)


def polar_outline(crs: str, geometry: shapely.Geometry, tolerance: float) -> shapely.Geometry:
    """Polygons of a projection around a pole, such as EPSG:3413, in OGC:CRS84, within a tolerance in meters."""
    (pole,) = _poles(crs)
    parts = []
    for polygon in shapely.get_parts(geometry):
        rings = [shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(polygon)]
        shell, *holes = (pole.footprint(crs, ring, tolerance) for ring in rings)
        parts.append(shapely.difference(shell, shapely.union_all(holes)) if holes else shell)
    every = shapely.get_parts(np.array(parts, dtype=object))
    return shapely.orient_polygons(every[0] if len(every) == 1 else shapely.multipolygons(every))


@lru_cache(maxsize=256)
def _poles(crs: str) -> tuple[_Pole, ...]:
    """The poles that are one point of a projection: not lines, circles or infinitely far away."""
    projected = CRS.from_user_input(crs)
    if not projected.is_projected:
        return ()
    found = []
    for lat in (90.0, -90.0):
        x, y = to_lonlat(crs).transform([-170.0, -50.0, 70.0], [lat] * 3, direction="INVERSE")
        points = np.stack([x, y], axis=-1)
        with np.errstate(invalid="ignore"):
            if np.isfinite(points).all() and np.ptp(points, axis=0).max() < _AT_POLE:
                unit = projected.axis_info[0].unit_conversion_factor
                found.append(_Pole(points.mean(axis=0), lat, unit))
    return tuple(found)


def polygons(lon: Floats, lat: Floats) -> Geometries:
    """Closed rings of shape (n, points), split where they cross the antimeridian, closed over a pole they hold.

    Neighboring points of a ring are less than 180° apart. The longitude of a ring's only point at a pole means nothing.
    """
    unwrapped = np.unwrap(lon, period=360, axis=1)
    turns = np.rint((unwrapped[:, -1] - unwrapped[:, 0]) / 360)
    unwrapped[:, -1] = unwrapped[:, 0] + 360 * turns  # but for rounding, which would leave a spike
    at_pole = (np.abs(lat[:, :-1]) > 90 - _SAME).sum(axis=1) == 1
    made = shapely.orient_polygons(shapely.polygons(np.stack([unwrapped, lat], axis=-1)))
    beyond = (unwrapped.min(axis=1) < -180) | (unwrapped.max(axis=1) > 180)
    for place in np.flatnonzero(beyond & (turns == 0) & ~at_pole):
        made[place] = _split(shapely.transform(made[place], _on_antimeridian))
    for place in np.flatnonzero((turns != 0) & ~at_pole):
        made[place] = _over_pole(unwrapped[place], lat[place])
    for place in np.flatnonzero(at_pole):
        made[place] = _from_pole(lon[place], lat[place])
    return np.asarray(made, dtype=object)


def _on_antimeridian(points: Floats) -> Floats:
    """Points nearly on the antimeridian moved onto it: what is beyond by rounding is not a part of its own."""
    antimeridian = np.rint((points[:, 0] - 180) / 360) * 360 + 180
    on = np.abs(points[:, 0] - antimeridian) < _SAME
    return np.stack([np.where(on, antimeridian, points[:, 0]), points[:, 1]], axis=-1)


def _from_pole(lon: Floats, lat: Floats) -> shapely.Geometry:
    """The polygon between ±180° of a ring with one point at a pole, which becomes an edge between its neighbors."""
    at = int(np.argmax(np.abs(lat[:-1])))
    ring = np.unwrap(np.roll(lon[:-1], -at)[1:], period=360), np.roll(lat[:-1], -at)[1:]
    closed = [*zip(*ring, strict=True), (ring[0][-1], lat[at]), (ring[0][0], lat[at])]
    return _split(shapely.orient_polygons(shapely.transform(shapely.Polygon(closed), _on_antimeridian)))


def _over_pole(lon: Floats, lat: Floats) -> shapely.Geometry:
    """The polygon between ±180° of an unwrapped ring that goes once around a pole."""
    turn = np.floor((lon + 180) / 360)
    before = int(np.flatnonzero(np.diff(turn))[0])  # the step that crosses the antimeridian
    east = lon[-1] > lon[0]
    seam = 360 * max(turn[before], turn[before + 1]) - 180
    share = (seam - lon[before]) / (lon[before + 1] - lon[before])
    edge = lat[before] + share * (lat[before + 1] - lat[before])
    order = np.concatenate([np.arange(before + 1, len(lon) - 1), np.arange(before + 1)])
    wrapped = np.mod(lon[order] + 180, 360) - 180
    first, last = (-180.0, 180.0) if east else (180.0, -180.0)
    pole = 90.0 if lat.mean() > 0 else -90.0
    ring = [(first, edge), *zip(wrapped, lat[order], strict=True), (last, edge), (last, pole), (first, pole)]
    return shapely.orient_polygons(shapely.Polygon(ring))


def normalize_footprint(geometry: Any, bbox: Any = None) -> shapely.Geometry | None:
    """The footprint of an item as valid 2D polygons between ±180°, cut at the antimeridian; None where it has none.

    Rings beyond ±180°, of either winding, with repeated points, elevations or crossings of themselves are taken for
    the ground that they go around. An edge of more than 180° goes the short way round; one from −180° to 180° is a full
    turn. Without a geometry, or where it is a point or a line, the bbox counts, whose west is greater than its east
    where it crosses the antimeridian.

    Args:
        geometry: GeoJSON, or None.
        bbox: 4 or 6 numbers, or None.

    Raises:
        ValueError, TypeError, LookupError, shapely.errors.ShapelyError: not a GeoJSON geometry or bbox.
    """
    shape = None if geometry is None else _shape(geometry, bbox)
    if shape is None or shape.is_empty:
        return None if bbox is None else _bbox_polygon(bbox)
    made = _normalize(shape)
    if made.area == 0 and bbox is not None and (box := _bbox_polygon(bbox)).area > 0:
        return box
    return made


def _normalize(shape: shapely.Geometry) -> shapely.Geometry:
    points = shapely.get_coordinates(shape)
    if not np.isfinite(points).all() or np.abs(points[:, 1]).max() > 90:
        msg = "latitudes beyond ±90°, or numbers that are not finite"
        raise ValueError(msg)
    parts = shapely.get_parts(shape)
    fixed = [_normalize_polygon(part) if part.geom_type == "Polygon" else _wrapped(part) for part in parts]
    united = fixed[0] if len(fixed) == 1 else shapely.union_all([shapely.make_valid(part) for part in fixed])
    valid = united if united.is_valid else shapely.make_valid(united)
    areas = [part for part in shapely.get_parts(valid, return_index=False) if part.area > 0]
    if valid.geom_type == "GeometryCollection" and areas:
        return shapely.union_all(areas)
    return valid


_NOTABLE = 0.05
"""Share of its ground by which a ring that crosses itself may differ from what it goes around."""


def crossing_rings(geometry: Any) -> str | None:
    """What to say of a GeoJSON geometry whose rings cross themselves, such as a quadrilateral of swapped corners."""
    shape = None if geometry is None else _shape(geometry, [0, 0, 0, 0])
    for ring in () if shape is None else shapely.get_rings(shape):
        points = shapely.get_coordinates(ring)
        x, y = np.unwrap(points[:, 0], period=360), points[:, 1]
        whole = shapely.Polygon(np.stack([x, y], axis=-1))
        if abs(x[-1] - x[0]) > 180 or whole.is_valid:
            continue
        around = abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2
        counted, spanned = shapely.make_valid(whole).area, whole.convex_hull.area
        if abs(counted - around) > _NOTABLE * counted > 0:
            return (
                "has a footprint that crosses itself:"
                f" the ground of its loops counts, {counted / spanned:.0%} of what its corners span"
            )
    return None


def _shape(geometry: Any, bbox: Any) -> shapely.Geometry | None:
    """A GeoJSON geometry in 2D; None where it is degenerate, such as a ring of two points, and a bbox is given."""
    try:
        return shapely.force_2d(shapely.geometry.shape(_flat(geometry)))
    except (ValueError, shapely.errors.ShapelyError):
        if bbox is None or not isinstance(geometry, dict) or geometry.get("type") not in {"Polygon", "MultiPolygon"}:
            raise
        return None


def _flat(geometry: Any) -> Any:
    """A GeoJSON geometry without elevations, which some of its points may lack."""
    if isinstance(geometry, dict):
        return {key: _flat(value) if key in {"coordinates", "geometries"} else value for key, value in geometry.items()}
    if isinstance(geometry, list | tuple) and geometry and not isinstance(geometry[0], list | tuple | dict):
        return geometry[:2]
    return [_flat(each) for each in geometry] if isinstance(geometry, list | tuple) else geometry


def _bbox_polygon(bbox: Any) -> shapely.Geometry:
    numbers = [float(value) for value in bbox]
    if len(numbers) not in {4, 6} or not np.isfinite(numbers).all():
        msg = f"bbox {bbox!r}; expected 4 or 6 numbers"
        raise ValueError(msg)
    west, south, east, north = (numbers[n] for n in ((0, 1, 2, 3) if len(numbers) == 4 else (0, 1, 3, 4)))
    if east < west:
        east += 360
    if not (-90 <= south <= north <= 90 and east - west <= 360):
        msg = f"bbox {bbox!r}; expected west, south, east, north in degrees"
        raise ValueError(msg)
    if east - west == 360:
        return shapely.box(-180, south, 180, north)
    return normalize_footprint(shapely.geometry.mapping(shapely.box(west, south, east, north)))


def _normalize_polygon(polygon: shapely.Geometry) -> shapely.Geometry:
    rings = shapely.get_rings(polygon)
    lon = shapely.get_coordinates(rings)[:, 0]
    if np.abs(lon).max() <= 180 and not any(_crosses(ring) for ring in rings):
        return polygon
    west, south, east, north = polygon.bounds
    if east - west >= 360:
        return shapely.box(-180, south, 180, north)
    shell, *holes = (_fix_ring(ring) for ring in rings)
    return shapely.difference(shell, shapely.union_all(holes)) if holes else shell


def _fix_ring(ring: shapely.Geometry) -> shapely.Geometry:
    """The ground inside a ring, cut at the antimeridian; over the nearer pole where the ring goes around it."""
    points = shapely.get_coordinates(shapely.remove_repeated_points(ring))
    lon = np.unwrap(points[:, 0], period=360)
    if abs(lon[-1] - lon[0]) > 180:
        return shapely.make_valid(polygons(lon[None], points[None, :, 1])[0])
    lon[-1] = lon[0]  # but for rounding
    # Crossings are resolved in the plane of the unwrapped ring: once it is cut, its pieces no longer tell them.
    whole = shapely.make_valid(shapely.polygons(np.stack([lon, points[:, 1]], axis=-1)))
    areas = [part for part in shapely.get_parts(shapely.get_parts(whole)) if part.geom_type == "Polygon"]
    return shapely.union_all([_split(part) for part in areas if part.area > 0])


def _wrapped(geometry: shapely.Geometry) -> shapely.Geometry:
    """A point or line with its longitudes between ±180°."""
    return shapely.transform(geometry, lambda xy: np.stack([np.mod(xy[:, 0] + 180, 360) - 180, xy[:, 1]], axis=-1))


def _crosses(ring: shapely.Geometry) -> bool:
    lon = shapely.get_coordinates(ring)[:, 0]
    whole_turn = (np.abs(lon[1:]) >= 180) & (np.abs(lon[:-1]) >= 180)
    return bool(np.any((np.abs(np.diff(lon)) > 180) & ~whole_turn))


def _split(polygon: shapely.Geometry) -> shapely.Geometry:
    """Bring a polygon that reaches beyond ±180° back between them, cut there."""
    west, _, east, _ = polygon.bounds
    earth = shapely.box(-180, -90, 180, 90)
    parts: list[shapely.Geometry] = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360))):
        moved = shapely.transform(polygon, lambda xy, by=360.0 * turn: xy - [by, 0.0])
        parts += [part for part in shapely.get_parts(shapely.intersection(moved, earth)) if part.area > 0]
    return shapely.orient_polygons(shapely.multipolygons(parts) if len(parts) > 1 else parts[0])


def _points_an_edge(crs: str, corners: Floats, tolerance: float) -> int:
    """How many points an edge needs: a chord of length L at latitude φ leaves its curve by about L²·tan φ / 8R."""
    lon, lat = to_lonlat(crs).transform(corners[:, :, 0], corners[:, :, 1])
    lon, lat = np.asarray(lon), np.asarray(lat)
    meters = np.pi / 180 * _EARTH_RADIUS
    dlat = np.abs(np.roll(lat, -1, axis=1) - lat) * meters
    dlon = np.abs(np.mod(np.roll(lon, -1, axis=1) - lon + 180, 360) - 180) * meters * np.cos(np.radians(lat))
    length = float(np.hypot(dlat, dlon).max())
    slope = max(1.0, float(np.tan(np.radians(np.minimum(np.abs(lat), 89))).max()))
    needed = length * np.sqrt(slope / (8 * _EARTH_RADIUS * tolerance))
    points = int(np.clip(np.ceil(needed), 1, _MAX_POINTS))
    some = corners[
        np.append(np.arange(0, len(corners), max(1, len(corners) // _SAMPLE)), np.abs(lat).max(axis=1).argmax())
    ]
    while points < _MAX_POINTS and _stray(crs, some, points) > tolerance:  # other projections bend otherwise
        points *= 2
    return points


def _stray(crs: str, corners: Floats, points: int) -> float:
    """Meters by which the middle of a chord leaves its curve, at most."""
    share = np.linspace(0, 1, 2 * points + 1)[None, None, :, None]
    edges = corners[:, :, None] * (1 - share) + np.roll(corners, -1, axis=1)[:, :, None] * share
    lon, lat = (np.asarray(side) for side in to_lonlat(crs).transform(edges[..., 0], edges[..., 1]))
    lon = np.unwrap(lon, period=360, axis=-1)
    meters = np.pi / 180 * _EARTH_RADIUS
    north = lat[..., 1::2] - (lat[..., :-1:2] + lat[..., 2::2]) / 2
    east = (lon[..., 1::2] - (lon[..., :-1:2] + lon[..., 2::2]) / 2) * np.cos(np.radians(lat[..., 1::2]))
    return float(np.hypot(north, east).max()) * meters
