"""Many small polygons at once: bounds, validity, direction, center and ground area from WKB.

Nearly all footprints are one ring of a few points, as many in every row. Those are read as one array, which is a
hundred times faster than one geometry object each; what looks otherwise goes through shapely.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_HEADER = 13
"""Bytes of WKB before the first point of a polygon of one ring: order, type, rings, points."""
_POINT = 16
_WGS84_A = 6378137.0
_WGS84_E2 = 0.00669437999014
_POLAR = 80.0
"""Degrees from the equator: beyond, area and center are measured in the plane around the pole."""
_POLAR_RADIUS = _WGS84_A / np.sqrt(1 - _WGS84_E2)
"""Of curvature at the poles, in meters."""
_EARTH_RADIUS = 6_371_008.8
_TURN = 360 - 1e-7
"""Degrees of longitude of a polygon that holds a pole."""


@dataclass(frozen=True)
class Ring:
    """Rings of one length: `rows` in the batch, `points` of shape (m, k, 2), longitude and latitude."""

    rows: Ints
    points: Floats


class Footprints:
    """The footprints of a batch of chips; every attribute has one entry a row."""

    def __init__(self, wkb: pa.BinaryArray) -> None:
        self.count = len(wkb)
        self.readable: Bools = np.zeros(self.count, dtype=bool)
        self.polygonal: Bools = np.zeros(self.count, dtype=bool)
        self.valid: Bools = np.zeros(self.count, dtype=bool)
        self.counterclockwise: Bools = np.zeros(self.count, dtype=bool)
        self.crosses: Bools = np.zeros(self.count, dtype=bool)
        """Split in two at the antimeridian, as GeoJSON asks for."""
        self.bounds: Floats = np.full((self.count, 4), np.nan)
        """xmin, ymin, xmax, ymax; xmin > xmax where it crosses the antimeridian."""
        self.center: Floats = np.full((self.count, 2), np.nan)
        """Centroid: longitude, latitude."""
        self.center_in_degrees: Floats = np.full((self.count, 2), np.nan)
        """Near a pole, the centroid of the longitudes and latitudes, which is the center of pixels in degrees."""
        self.area: Floats = np.full(self.count, np.nan)
        """Square meters on the ellipsoid, by the local radii of curvature: right to 1e-4 for chips below 50 km."""
        self._wkb = wkb
        self.rings: list[Ring] = []
        odd = self._read_rings()
        self.others: dict[int, Any] = {}
        """Geometries that are not one plain ring, by row."""
        if odd.size:
            self._read_others(odd)

    @cached_property
    def geometries(self) -> npt.NDArray[np.object_]:
        """Shapely geometries; None where unreadable."""
        read: npt.NDArray[np.object_] = shapely.from_wkb(np.array(self._wkb.to_pylist(), object), on_invalid="ignore")
        return read

    def _read_rings(self) -> Ints:
        """Read all plain rings; the rows that are something else."""
        if self.count == 0:
            return np.empty(0, np.int64)
        offsets = np.frombuffer(self._wkb.buffers()[1], np.int32)[self._wkb.offset : self._wkb.offset + self.count + 1]
        data = self._wkb.buffers()[2]
        lengths = np.diff(offsets)
        present = self._wkb.is_valid().to_numpy(zero_copy_only=False)
        odd = [np.flatnonzero(~present)]
        if data is None:
            return np.arange(self.count)
        raw = np.frombuffer(data, np.uint8)
        for length in np.unique(lengths[present]):
            rows = np.flatnonzero(present & (lengths == length))
            count = (int(length) - _HEADER) // _POINT
            if count < 4 or length != _HEADER + count * _POINT:
                odd.append(rows)
                continue
            first = int(offsets[rows[0]])
            if rows.size == self.count:
                bytes_ = raw[first : first + self.count * int(length)].reshape(self.count, -1)
            else:
                bytes_ = raw[offsets[rows].astype(np.int64)[:, None] + np.arange(length)]
            head = np.frombuffer(b"\x01" + np.array([3, 1, count], "<u4").tobytes(), np.uint8)
            plain = (bytes_[:, :_HEADER] == head).all(axis=1)
            odd.append(rows[~plain])
            points = np.ascontiguousarray(bytes_[plain, _HEADER:]).view("<f8").reshape(-1, count, 2)
            self._measure(rows[plain], points)
        return np.sort(np.concatenate(odd))

    def _measure(self, rows: Ints, points: Floats) -> None:
        if not rows.size:
            return
        self.rings.append(Ring(rows, points))
        self.readable[rows] = self.polygonal[rows] = True
        # One array a coordinate, points first: everything below runs along the many rows.
        x, y = np.ascontiguousarray(points[..., 0].T), np.ascontiguousarray(points[..., 1].T)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            sides = (x.min(axis=0), y.min(axis=0), x.max(axis=0), y.max(axis=0))
            self.bounds[rows] = np.stack(sides, axis=1)
            middle_x, middle_y = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
            x -= middle_x
            y -= middle_y
            cross = x[:-1] * y[1:] - x[1:] * y[:-1]
            twice = cross.sum(axis=0)
            self.center[rows, 0] = middle_x + ((x[:-1] + x[1:]) * cross).sum(axis=0) / (3 * twice)
            self.center[rows, 1] = middle_y + ((y[:-1] + y[1:]) * cross).sum(axis=0) / (3 * twice)
            self.area[rows] = np.abs(twice) / 2 * _square_meters(middle_y)
        self.counterclockwise[rows] = twice > 0
        self._measure_polar(rows, points)
        # Seen from its middle every edge turns left, once round: the ring cannot cross itself.
        once = ((y[:-1] < 0) & (y[1:] >= 0)).sum(axis=0) == 1
        star = (cross > 0).all(axis=0) & once & (x[0] == x[-1]) & (y[0] == y[-1])
        self.valid[rows] = star
        unsure = np.flatnonzero(~star & np.isfinite(points).all(axis=(1, 2)))
        closed = unsure[(points[unsure, 0] == points[unsure, -1]).all(axis=1)]
        if closed.size:
            self.valid[rows[closed]] = shapely.is_valid(shapely.polygons(points[closed]))

    def _read_others(self, rows: Ints) -> None:
        texts = [self._wkb[int(row)].as_py() for row in rows]
        for row, geometry in zip(rows.tolist(), shapely.from_wkb(texts, on_invalid="ignore"), strict=True):
            if geometry is None:
                continue
            self.readable[row] = True
            self.others[row] = geometry
            if geometry.geom_type == "Point":
                self.bounds[row] = geometry.bounds or np.nan
            if geometry.geom_type not in {"Polygon", "MultiPolygon"} or geometry.is_empty:
                continue
            self.polygonal[row] = True
            self.valid[row] = geometry.is_valid
            parts = shapely.get_parts(geometry)
            self.counterclockwise[row] = all(shapely.is_ccw(shapely.get_exterior_ring(part)) for part in parts)
            boxes = shapely.bounds(parts)
            east = boxes[:, 2] >= 180
            west = boxes[:, 0] <= -180
            whole = shapely.bounds(geometry)
            self.bounds[row] = whole
            whole_again = geometry
            if east.any() and west.any() and not (east & west).any():
                self.crosses[row] = True
                self.bounds[row] = (boxes[east, 0].min(), whole[1], boxes[west, 2].max(), whole[3])
                whole_again = shapely.multipolygons([shapely.transform(p, _eastward) for p in parts])
            centroid = shapely.centroid(whole_again)
            if max(abs(whole[1]), abs(whole[3])) > _POLAR:
                if (boxes[:, 2] - boxes[:, 0] < _TURN).all():
                    self.center_in_degrees[row] = ((centroid.x + 180) % 360 - 180, centroid.y)
                flat = shapely.transform(geometry, _to_plane)
                self.area[row] = flat.area
                self.center[row] = _from_plane(shapely.get_coordinates(flat.centroid), north=whole[3] > _POLAR)[0]
                continue
            self.center[row] = ((centroid.x + 180) % 360 - 180, centroid.y)
            self.area[row] = whole_again.area * _square_meters(np.array([centroid.y]))[0]

    def _measure_polar(self, rows: Ints, points: Floats) -> None:
        """Area and center of rings near a pole, where meridians meet."""
        with np.errstate(invalid="ignore"):
            polar = np.flatnonzero((np.abs(points[..., 1]).max(axis=1) > _POLAR) & np.isfinite(points).all(axis=(1, 2)))
        for place in polar:
            flat = shapely.Polygon(_to_plane(points[place]))
            north = bool(points[place, :, 1].max() > _POLAR)
            self.area[rows[place]] = flat.area
            if np.ptp(points[place, :, 0]) < _TURN:
                self.center_in_degrees[rows[place]] = self.center[rows[place]]
            self.center[rows[place]] = _from_plane(shapely.get_coordinates(flat.centroid), north=north)[0]

    def outlines(self, wanted: Bools) -> Iterator[tuple[Ints, Floats]]:
        """Rows among the wanted polygons, and their points (rows, points, 2), grouped by the number of points.

        The points at a pole that a polygon holds are left out: they close it in degrees, and lie inside on the ground.
        """
        for ring in self.rings:
            around = np.ptp(ring.points[..., 0], axis=1) >= _TURN
            mine = wanted[ring.rows] & ~around
            if mine.any():
                yield ring.rows[mine], ring.points[mine]
            for place in np.flatnonzero(wanted[ring.rows] & around):
                yield ring.rows[[place]], _below_poles(ring.points[place])[None]
        for row, geometry in self.others.items():
            if wanted[row] and self.polygonal[row]:
                points = np.asarray(shapely.get_coordinates(geometry))
                holds = any(np.ptp(part.bounds[::2]) >= _TURN for part in shapely.get_parts(geometry))
                yield np.array([row]), (_below_poles(points) if holds else points)[None]


def _below_poles(points: Floats) -> Floats:
    return points[np.abs(points[:, 1]) < 90]


def _eastward(points: Floats) -> Floats:
    return np.stack([np.where(points[:, 0] < 0, points[:, 0] + 360, points[:, 0]), points[:, 1]], axis=1)


def _to_plane(points: Floats) -> Floats:
    """Points around a pole in an equal-area plane, in meters: right to 3e-4 beyond 80°."""
    # An azimuthal projection of the sphere that fits the ellipsoid at the pole, precise at the pole itself.
    away = 2 * _POLAR_RADIUS * np.sin(np.radians(90 - np.abs(points[:, 1])) / 2)
    turn = np.radians(points[:, 0])
    return np.stack([away * np.cos(turn), away * np.sin(turn)], axis=1)


def _from_plane(points: Floats, *, north: bool) -> Floats:
    away = np.hypot(points[:, 0], points[:, 1])
    lat = 90 - np.degrees(2 * np.arcsin(np.minimum(away / (2 * _POLAR_RADIUS), 1)))
    return np.stack([np.degrees(np.arctan2(points[:, 1], points[:, 0])), lat if north else -lat], axis=1)


def meters_apart(lon: Floats, lat: Floats, other_lon: Floats, other_lat: Floats) -> Floats:
    """Distances of points in degrees, pair by pair, right to 0.6 %."""
    phi, other_phi = np.radians(lat), np.radians(other_lat)
    half = np.sin((phi - other_phi) / 2) ** 2
    half += np.cos(phi) * np.cos(other_phi) * np.sin(np.radians(lon - other_lon) / 2) ** 2
    return np.asarray(2 * _EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


def meters_per_degree(lat: Floats) -> tuple[Floats, Floats]:
    """Meters in a degree of longitude and of latitude on the WGS 84 ellipsoid, at a latitude in degrees."""
    phi = np.radians(np.clip(lat, -90, 90))
    bend = 1 - _WGS84_E2 * np.sin(phi) ** 2
    east = np.pi / 180 * _WGS84_A * np.cos(phi) / np.sqrt(bend)
    north = np.pi / 180 * _WGS84_A * (1 - _WGS84_E2) / bend**1.5
    return east, north


def _square_meters(lat: Floats) -> Floats:
    """Square meters in a square degree."""
    east, north = meters_per_degree(lat)
    return east * north
