"""The chips nearest to places: exactly, from as few files as that takes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import shapely
from pyproj import Geod
from scipy.spatial import cKDTree

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import utm
from clay_publish.release.directory import DataFile, Release, fingerprint_in, footer_keys
from clay_publish.search.query import SWAPPED, Extent, QueryError
from clay_publish.search.row_groups import Ints, Rows, Shelf, group_boxes, group_starts, matching_groups, read

Floats = npt.NDArray[np.float64]

_WGS84 = Geod(ellps="WGS84")
_RADIUS = 6_335_000.0
"""Meters: the smallest radius of curvature of WGS 84, so that distances on this sphere are never too long."""


def distances(lon: Floats, lat: Floats, other_lon: Floats, other_lat: Floats) -> Floats:
    """Geodesic distances in meters, pair by pair. Degrees, WGS 84."""
    _, _, meters = _WGS84.inv(lon, lat, other_lon, other_lat)
    return np.asarray(meters, dtype=np.float64)


def unit_vectors(lon: Floats, lat: Floats) -> Floats:
    """[n, 3]: where points lie on a sphere of radius 1."""
    u, v = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v)], axis=-1)


def at_least(lon: Floats, lat: Floats, boxes: Floats) -> Floats:
    """A distance in meters that no place in a box is nearer than, pair by pair.

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
    # On the meridian of the edge, the nearest latitude, then the nearest inside the box. A place in the box is its own:
    # rounding would put it 1e-10 m away, behind a chip whose center it is.
    nearest = np.where(outside == 0, v, np.arctan2(np.sin(v), np.cos(v) * np.cos(u)))
    best = np.full(np.broadcast(v, low).shape, np.inf)
    for at in (np.clip(nearest, low, high), low, high):
        half = np.sin((at - v) / 2) ** 2 + np.cos(at) * np.cos(v) * np.sin(u / 2) ** 2
        best = np.minimum(best, 2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))
    # Geodesics on WGS 84 are within 0.6 % of great circles; the small radius leaves room for that.
    return np.asarray(best * _RADIUS, dtype=np.float64)


_PLACES = 65_536
"""Compared with the chips of a row group at once."""
_DEGREE = 110_000.0
"""Meters: no degree of latitude is shorter."""


@dataclass
class _Best:
    """The k nearest chips of each place so far."""

    meters: Floats
    """[n, k], ascending; infinite where there is none."""
    file: Ints
    row: Ints

    def offer(self, places: Ints, meters: Floats, file: int, row: Ints) -> None:
        """Chips of one file for some places: `meters` and `row` are [places, m]."""
        kept = self.meters.shape[1]
        all_meters = np.concatenate([self.meters[places], meters], axis=1)
        all_files = np.concatenate([self.file[places], np.full(row.shape, file)], axis=1)
        all_rows = np.concatenate([self.row[places], row], axis=1)
        order = np.lexsort((all_rows, all_files, all_meters), axis=1)[:, :kept]
        self.meters[places] = np.take_along_axis(all_meters, order, axis=1)
        self.file[places] = np.take_along_axis(all_files, order, axis=1)
        self.row[places] = np.take_along_axis(all_rows, order, axis=1)


def nearest_chips(
    release: Release, shelf: Shelf, lon: Floats, lat: Floats, *, k: int, extent: Extent
) -> tuple[Rows, Floats]:
    """The `k` chips whose centers are nearest to each place.

    Args:
        release: where they lie.
        shelf: the files to look in.
        lon: [n], degrees, WGS 84.
        lat: [n].
        k: how many for each place.
        extent: what the chips must meet.

    Returns:
        Rows, [n · k], place by place, the nearest first; and their distances in meters, infinite where there is none.

    Raises:
        QueryError: a place that is none on Earth.
        ReleaseError: a file cannot be read.
    """
    good = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90) & (np.abs(lon) <= 360)
    if not good.all():
        wrong = int(np.flatnonzero(~good)[0])
        swapped = abs(lon[wrong]) <= 90 < abs(lat[wrong]) <= 180
        found = f"{lon[wrong]}, {lat[wrong]} is not a place on Earth"
        raise QueryError(f"place {wrong}", found, "lon, lat in degrees", SWAPPED if swapped else "")
    shape = (len(lon), k)
    best = _Best(np.full(shape, np.inf), np.full(shape, -1), np.full(shape, -1))
    if shelf.paths and len(lon):
        _NearestSearch(release, shelf, extent, lon, lat, best).run()
    return Rows(best.file.ravel(), best.row.ravel()), best.meters.ravel()


@dataclass(frozen=True)
class _NearestSearch:
    """Places, the files to look in, and the best so far."""

    release: Release
    shelf: Shelf
    extent: Extent
    lon: Floats
    lat: Floats
    best: _Best

    def run(self) -> None:
        """A file that is probably near each place first; then every other that may still hold something nearer."""
        boxes = _Boxes(self.shelf.boxes)
        first = boxes.likely(self.lon, self.lat)
        for file in np.unique(first):
            self.compare(int(file), np.flatnonzero(first == file))
        places, files = boxes.within(self.lon, self.lat, self.best.meters[:, -1])
        fresh = first[places] != files
        places, files = places[fresh], files[fresh]
        bound = at_least(self.lon[places], self.lat[places], self.shelf.boxes[files])
        # What near files give rules out others.
        turns = [(bound[pairs].min(), file, pairs) for file, pairs in _by_file(files)]
        for _, file, pairs in sorted(turns, key=lambda turn: turn[:2]):
            mine = places[pairs][bound[pairs] <= self.best.meters[places[pairs], -1]]
            if len(mine):
                self.compare(file, mine)

    def compare(self, file: int, mine: Ints) -> None:
        """Offer the chips of one file to some places."""
        path = self.shelf.paths[file]
        source, where = self.release.parquet(path), self.release.store.path(path)
        starts = group_starts(source.metadata)
        boxes = group_boxes(source.metadata)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / np.maximum(np.diff(starts), 1)
        every, inside = mine, self.extent.row_groups(source.metadata)
        lon, lat = self.lon[every], self.lat[every]
        least = {group: at_least(lon, lat, boxes[group : group + 1]) for group in inside}
        alone = _alone(source, path, lon, lat)
        for group in sorted(inside, key=lambda group: (least[group].min(), area[group])):  # densest first
            found = self.best.meters[every, -1]
            settled = (self.best.file[every, -1] == file) & (found <= alone)
            mine = every[(least[group] <= found) & ~settled]
            mask = self._matching(source, group, where) if len(mine) else None
            if mask is None:
                continue
            table = read(source, [group], ["lon", "lat"], where)
            kept = np.flatnonzero(mask)
            lon, lat = table["lon"].to_numpy()[kept], table["lat"].to_numpy()[kept]
            tree = cKDTree(unit_vectors(lon, lat))
            for start in range(0, len(mine), _PLACES):
                some = mine[start : start + _PLACES]
                chosen, meters = self._nearest(some, tree, lon, lat)
                self.best.offer(some, meters, file, kept[chosen] + starts[group])

    def _matching(self, source: pq.ParquetFile, group: int, where: str) -> npt.NDArray[np.bool_] | None:
        """Which rows of a row group meet the extent; None where none does."""
        found = dict(matching_groups(source, self.extent, where, range(group, group + 1)))
        return found.get(group)

    def _nearest(self, some: Ints, tree: cKDTree, lon: Floats, lat: Floats) -> tuple[Ints, Floats]:
        """On the sphere first: its few nearest hold the nearest on the ellipsoid."""
        few = min(len(lon), 4 * self.best.meters.shape[1] + 4)
        _, chosen = tree.query(unit_vectors(self.lon[some], self.lat[some]), k=range(1, few + 1), workers=-1)
        chosen = np.sort(chosen, axis=1).astype(np.int64)
        here = np.repeat(self.lon[some], few), np.repeat(self.lat[some], few)
        meters = distances(*here, lon[chosen.ravel()], lat[chosen.ravel()])
        return chosen, meters.reshape(chosen.shape)


_SHORTEST = 0.997
"""Meters on the ground of a meter in the projection of a UTM zone, at least."""


def _alone(source: pq.ParquetFile, path: str, lon: Floats, lat: Floats) -> Floats:
    """Meters [n] from each place within which a file has at most one center: a chip found there is the nearest.

    In the `utm` layout, where the centers of a file are those of a grid; 0 in others.
    """
    try:
        made = fingerprint_in(footer_keys(source.schema_arrow, path), path)
    except ReleaseError:  # made by another program
        return np.zeros(len(lon))
    if made.layout != "utm" or made.gsd is None:
        return np.zeros(len(lon))
    cell = made.size * made.gsd
    easting, northing = utm(DataFile.parse(path).square.zone).transform(lon, lat)
    with np.errstate(invalid="ignore"):  # infinite where a place is far from the zone
        right, up = (np.abs(np.mod(along / cell, 1) - 0.5) for along in (easting, northing))
    second = np.minimum(np.hypot(1 - right, up), np.hypot(right, 1 - up))
    return np.asarray(np.nan_to_num(_SHORTEST * cell * second, nan=0.0), dtype=np.float64)


def _by_file(files: Ints) -> list[tuple[int, Ints]]:
    """Each file, and where it stands in `files`."""
    order = np.argsort(files, kind="stable")
    numbers, starts = np.unique(files[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)) if len(files) else []


class _Boxes:
    """The boxes of files, and which of them lie near places. Those across the antimeridian count twice."""

    def __init__(self, boxes: Floats) -> None:
        west, south, east, north = boxes.T
        crosses = np.flatnonzero(west > east)
        self.owner = np.concatenate([np.arange(len(boxes)), crosses])
        right = np.where(west > east, 180.0, east)
        self.tree = shapely.STRtree(
            np.concatenate(
                [
                    shapely.box(west, south, right, north),
                    shapely.box(np.full(len(crosses), -180.0), south[crosses], east[crosses], north[crosses]),
                ]
            )
        )

    def likely(self, lon: Floats, lat: Floats) -> Ints:
        """A file for each place that is probably near."""
        wrapped = np.mod(lon + 180, 360) - 180
        return np.asarray(self.owner[self.tree.nearest(shapely.points(wrapped, lat))], dtype=np.int64)

    def within(self, lon: Floats, lat: Floats, meters: Floats) -> tuple[Ints, Ints]:
        """Pairs of place and file that may be nearer than each place's distance."""
        wrapped = np.mod(lon + 180, 360) - 180
        up = np.minimum(np.nan_to_num(meters, posinf=1e9) / _DEGREE, 180.0)
        south, north = np.maximum(lat - up, -90), np.minimum(lat + up, 90)
        narrow = np.cos(np.radians(np.maximum(np.abs(south), np.abs(north))))
        wide = np.where(narrow > 1e-6, np.minimum(up / np.maximum(narrow, 1e-6), 180.0), 180.0)
        found: set[tuple[int, int]] = set()
        for shift in (-360.0, 0.0, 360.0):
            around = shapely.box(wrapped - wide + shift, south, wrapped + wide + shift, north)
            places, hits = self.tree.query(around)
            found.update(zip(places.tolist(), self.owner[hits].tolist(), strict=True))
        pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]
