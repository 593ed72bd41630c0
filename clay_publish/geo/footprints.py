"""True footprints: rectangles of a projected grid as CRS84 polygons.

Edges get as many points as they need to stay within 5 cm of the curve they stand for; what crosses the antimeridian
is split there (RFC 7946, 3.1.9).
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer

Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]

_TOLERANCE = 0.05
_EARTH_RADIUS = 6_371_000.0
_MAX_POINTS = 64


@lru_cache(maxsize=256)
def to_lonlat(crs: str) -> Transformer:
    """From `crs` (an authority code, WKT or PROJJSON) to longitude and latitude in degrees."""
    return Transformer.from_crs(CRS.from_user_input(crs), CRS("OGC:CRS84"), always_xy=True)


def centres(crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude of points in `crs`."""
    lon, lat = to_lonlat(crs).transform(x, y)
    return np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)


def footprints(crs: str, corners: Floats) -> Geometries:
    """Footprints of quadrilaterals in `crs`, OGC:CRS84.

    Args:
        crs: authority code, WKT or PROJJSON of the corners.
        corners: shape (n, 4, 2), x and y of each corner in order around the quadrilateral.

    Returns:
        Shape (n,): a Polygon each, counterclockwise; a MultiPolygon where it crosses the antimeridian.
    """
    if not len(corners):
        return np.empty(0, dtype=object)
    points = _points_an_edge(crs, corners)
    share = np.linspace(0, 1, points, endpoint=False)[None, None, :, None]
    following = np.roll(corners, -1, axis=1)
    ring = (corners[:, :, None] * (1 - share) + following[:, :, None] * share).reshape(len(corners), -1, 2)
    ring = np.concatenate([ring, ring[:, :1]], axis=1)
    lon, lat = to_lonlat(crs).transform(ring[..., 0], ring[..., 1])
    return polygons(np.asarray(lon), np.asarray(lat))


def polygons(lon: Floats, lat: Floats) -> Geometries:
    """Closed rings of shape (n, points), split where they cross the antimeridian, closed over a pole they hold.

    Neighbouring points of a ring are less than 180° apart.
    """
    unwrapped = np.unwrap(lon, period=360, axis=1)
    turns = np.rint((unwrapped[:, -1] - unwrapped[:, 0]) / 360)
    made = shapely.orient_polygons(shapely.polygons(np.stack([unwrapped, lat], axis=-1)))
    beyond = (unwrapped.min(axis=1) < -180) | (unwrapped.max(axis=1) > 180)
    for place in np.flatnonzero(beyond & (turns == 0)):
        made[place] = _split(made[place])
    for place in np.flatnonzero(turns):
        made[place] = _over_pole(unwrapped[place], lat[place])
    return np.asarray(made, dtype=object)


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


def cut_at_antimeridian(geometry: shapely.Geometry) -> shapely.Geometry:
    """A geometry whose polygons cross the antimeridian in one piece, cut there; any other as it is.

    An edge of more than 180° is taken for one that goes the short way round. An edge from −180° to 180° is a full turn,
    and meant.
    """
    parts = shapely.get_parts(geometry)
    if not any(_crosses(ring) for ring in shapely.get_rings(parts)):
        return geometry
    return shapely.union_all([_cut_polygon(part) if part.geom_type == "Polygon" else part for part in parts])


def _crosses(ring: shapely.Geometry) -> bool:
    lon = shapely.get_coordinates(ring)[:, 0]
    whole_turn = (np.abs(lon[1:]) >= 180) & (np.abs(lon[:-1]) >= 180)
    return bool(np.any((np.abs(np.diff(lon)) > 180) & ~whole_turn))


def _cut_polygon(polygon: shapely.Geometry) -> shapely.Geometry:
    shell, *holes = (
        polygons(xy[None, :, 0], xy[None, :, 1])[0] if _crosses(ring) else shapely.polygons(ring)
        for ring in shapely.get_rings(polygon)
        for xy in [shapely.get_coordinates(ring)]
    )
    return shapely.difference(shell, shapely.union_all(holes)) if holes else shell


def _split(polygon: shapely.Geometry) -> shapely.Geometry:
    """Bring a polygon that reaches beyond ±180° back between them, cut there."""
    west, _, east, _ = polygon.bounds
    earth = shapely.box(-180, -90, 180, 90)
    parts: list[shapely.Geometry] = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360))):
        moved = shapely.transform(polygon, lambda xy, by=360.0 * turn: xy - [by, 0.0])
        parts += [part for part in shapely.get_parts(shapely.intersection(moved, earth)) if part.area > 0]
    return shapely.orient_polygons(shapely.multipolygons(parts) if len(parts) > 1 else parts[0])


def _points_an_edge(crs: str, corners: Floats) -> int:
    """How many points an edge needs: a chord of length L at latitude φ leaves its curve by about L²·tan φ / 8R."""
    lon, lat = to_lonlat(crs).transform(corners[:, :, 0], corners[:, :, 1])
    lon, lat = np.asarray(lon), np.asarray(lat)
    metres = np.pi / 180 * _EARTH_RADIUS
    dlat = np.abs(np.roll(lat, -1, axis=1) - lat) * metres
    dlon = np.abs(np.mod(np.roll(lon, -1, axis=1) - lon + 180, 360) - 180) * metres * np.cos(np.radians(lat))
    length = float(np.hypot(dlat, dlon).max())
    slope = max(1.0, float(np.tan(np.radians(np.minimum(np.abs(lat), 89))).max()))
    needed = length * np.sqrt(slope / (8 * _EARTH_RADIUS * _TOLERANCE))
    return int(np.clip(np.ceil(needed), 1, _MAX_POINTS))
