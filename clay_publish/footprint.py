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
    """Closed rings of shape (n, points), split where they cross the antimeridian."""
    crosses = np.ptp(lon, axis=1) > 180
    unwrapped = np.where(crosses[:, None] & (lon < 0), lon + 360, lon)
    made = shapely.orient_polygons(shapely.polygons(np.stack([unwrapped, lat], axis=-1)))
    for place in np.flatnonzero(crosses):
        made[place] = _split(made[place])
    return np.asarray(made, dtype=object)


def _split(polygon: shapely.Geometry) -> shapely.Geometry:
    """Cut a polygon given in longitudes 0 to 360 at 180 and bring its eastern part back."""
    _, south, east, north = polygon.bounds
    if east <= 180:  # it only touches the antimeridian
        return polygon
    before = shapely.intersection(polygon, shapely.box(0, south - 1, 180, north + 1))
    after = shapely.intersection(polygon, shapely.box(180, south - 1, 540, north + 1))
    moved = shapely.transform(after, lambda xy: xy - [360, 0])
    parts = [part for part in (before, moved) if part.area > 0]
    whole = shapely.multipolygons(parts) if len(parts) > 1 else parts[0]
    return shapely.orient_polygons(whole)


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
