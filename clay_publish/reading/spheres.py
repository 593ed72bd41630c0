"""Distances on the Earth, and how near a box can possibly be."""

import numpy as np
import numpy.typing as npt
from pyproj import Geod

Floats = npt.NDArray[np.float64]

_WGS84 = Geod(ellps="WGS84")
_RADIUS = 6_335_000.0
"""Metres: the smallest radius of curvature of WGS 84, so that distances on this sphere are never too long."""


def distances(lon: Floats, lat: Floats, other_lon: Floats, other_lat: Floats) -> Floats:
    """Geodesic distances in metres, pair by pair. Degrees, WGS 84."""
    _, _, metres = _WGS84.inv(lon, lat, other_lon, other_lat)
    return np.asarray(metres, dtype=np.float64)


def unit_vectors(lon: Floats, lat: Floats) -> Floats:
    """[n, 3]: where points lie on a sphere of radius 1."""
    u, v = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v)], axis=-1)


def at_least(lon: Floats, lat: Floats, boxes: Floats) -> Floats:
    """A distance in metres that no place in a box is nearer than, pair by pair.

    Args:
        lon: of the points, degrees.
        lat: of the points, degrees.
        boxes: [n, 4] west, south, east, north; west > east across the antimeridian.
    """
    west, south, east, north = boxes.T
    width = np.mod(east - west, 360)
    width = np.where((width == 0) & (east != west), 360, width)
    # Degrees of longitude to the nearer edge; 0 above, in or below the box.
    past = np.mod(lon - west, 360)
    outside = np.where(past <= width, 0.0, np.minimum(past - width, 360 - past))
    u, v = np.radians(outside), np.radians(lat)
    low, high = np.radians(south), np.radians(north)
    # On the meridian of the edge, the nearest latitude, then the nearest inside the box.
    nearest = np.arctan2(np.sin(v), np.cos(v) * np.cos(u))
    best = np.full(np.broadcast(v, low).shape, np.inf)
    for at in (np.clip(nearest, low, high), low, high):
        half = np.sin((at - v) / 2) ** 2 + np.cos(at) * np.cos(v) * np.sin(u / 2) ** 2
        best = np.minimum(best, 2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))
    # Geodesics on WGS 84 are within 0.6 % of great circles; the small radius leaves room for that.
    return np.asarray(best * _RADIUS, dtype=np.float64)
