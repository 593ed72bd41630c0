"""What one embeddings file holds: read from its light columns, never from its vectors."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pyproj import CRS

from clay_publish.errors import ReleaseError
from clay_publish.geo.footprints import polar_outline, to_lonlat
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import bbox_array, total_bbox
from clay_publish.release.tables import without_cloud_fraction

MAX_POINTS = 512
"""Of an outline. Beyond, it is drawn around blocks of 2 × 2 chips, 4 × 4, …"""

_TOLERANCE = 1e-5
"""Degrees, about a meter: tolerance of an outline."""
_GRID = 1e-8
"""Degrees, about a millimeter: to what corners are snapped where chips share no numbered grid."""

_POLAR = 84.0
"""Degrees from the equator: beyond, the ground is united in the plane of a polar projection."""
_METER, _MILLIMETER = 1.0, 1e-3
_ARC = 0.1
"""Degrees of a parallel that are drawn as a straight line: beyond 84° it is off by less than a hundredth of a meter."""
"""The same tolerances there."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def union(geometries: npt.NDArray[np.object_]) -> shapely.Geometry:
    """The ground under chips that share no numbered grid. OGC:CRS84 in and out."""
    plane = _polar_plane(shapely.total_bounds(geometries)[1::2])
    if plane is not None:
        # The edges along which they are cut at the antimeridian and closed over the pole collapse.
        flat = shapely.make_valid(shapely.transform(geometries, _to_plane(plane)))
        united = shapely.union_all([part for part in shapely.get_parts(shapely.get_parts(flat)) if part.area > 0])
        return _finish_polar(plane, shapely.set_precision(united, _MILLIMETER))
    east = _east_of_zero(geometries)
    return _finish(_without_slivers(shapely.union_all(east, grid_size=_GRID)))


def lattice_union(crs: str, row: Ints, col: Ints, x: Floats, y: Floats) -> shapely.Geometry | None:
    """The ground under cells of a regular grid in `crs`, OGC:CRS84.

    Args:
        crs: authority code of the grid's projection.
        row: number of each cell's row.
        col: number of each cell's column.
        x: of the cells' centers, in `crs`.
        y: of the cells' centers, in `crs`.

    Returns:
        A Polygon or MultiPolygon; None where the numbers and the centers tell no regular grid.
    """
    affine = _fit(row, col, x, y)
    if affine is None:
        return None
    exact = cells = _merge(row, col, 1)
    block, largest = 1, max(int(np.ptp(row)), int(np.ptp(col)), 1)
    while shapely.get_num_coordinates(cells) > MAX_POINTS and block < largest:
        block *= 2
        cells = _merge(row, col, block)

    def corners_to_lonlat(corners: Floats) -> Floats:
        # The center of cell (0, 0) is at (0, 0) of the fit, its corners half a cell away.
        centered = np.column_stack([corners[:, 1] - 0.5, corners[:, 0] - 0.5, np.ones(len(corners))])
        projected = centered @ affine
        lon, lat = to_lonlat(crs).transform(projected[:, 0], projected[:, 1])
        return np.column_stack([lon, lat])

    def project(outline: shapely.Geometry) -> shapely.Geometry:
        return shapely.transform(shapely.segmentize(outline, 1.0), corners_to_lonlat)

    drawn = project(cells)
    plane = _polar_plane(shapely.get_coordinates(drawn)[:, 1])
    if plane is not None:
        if CRS(crs).is_geographic:  # its parallels are arcs in the plane
            drawn = shapely.segmentize(drawn, _ARC)
        return _finish_polar(plane, shapely.transform(drawn, _to_plane(plane)))
    if block == 1:
        return _finish(_east_of_zero(np.array([drawn], dtype=object))[0])
    # Meridians are not columns: a block may reach farther east or west than any chip.
    drawn, chips = _east_of_zero(np.array([drawn, project(exact)], dtype=object))
    return _finish(_polygons(shapely.intersection(drawn, shapely.box(*shapely.bounds(chips)))))


def _fit(row: Ints, col: Ints, x: Floats, y: Floats) -> Floats | None:
    """Least squares [row, col, 1] → [x, y], shape (3, 2); None where it is not regular, or not determined."""
    if len(row) < 3:
        return None
    design = np.column_stack([row, col, np.ones(len(row))])
    target = np.column_stack([x, y])
    found, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    affine: Floats = found.astype(np.float64)
    if rank < 3 or not np.isfinite(target).all():
        return None
    cell = np.sqrt(abs(affine[0, 0] * affine[1, 1] - affine[0, 1] * affine[1, 0]))
    residual = np.abs(design @ affine - target).max()
    return affine if residual < cell * 1e-3 else None


def _merge(row: Ints, col: Ints, block: int) -> shapely.Geometry:
    """Union of cells, x = column and y = row; with `block` > 1, of the blocks that hold them."""
    cells = np.unique(np.stack([row // block, col // block], axis=1), axis=0)
    starts = np.flatnonzero(np.r_[True, (np.diff(cells[:, 0]) != 0) | (np.diff(cells[:, 1]) != 1)])
    ends = np.r_[starts[1:] - 1, len(cells) - 1]
    y, x0, x1 = cells[starts, 0] * block, cells[starts, 1] * block, (cells[ends, 1] + 1) * block
    merged = shapely.union_all(shapely.box(x0, y, x1, y + block))
    if block > 1:  # never beyond the outermost chips
        merged = shapely.intersection(merged, shapely.box(col.min(), row.min(), col.max() + 1, row.max() + 1))
    return merged.simplify(0)


def _east_of_zero(geometries: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Longitudes 0 to 360 and more where some geometry lies at the antimeridian, so that none is cut there."""
    bounds = shapely.bounds(geometries)
    if not ((bounds[:, 0] < -90) & (bounds[:, 2] > 90)).any() and not (
        bounds[:, 0].min() < -90 and bounds[:, 2].max() > 90
    ):
        return geometries
    return np.asarray(
        shapely.transform(geometries, lambda xy: np.column_stack([np.mod(xy[:, 0], 360), xy[:, 1]])), dtype=object
    )


def _polar_plane(lat: Floats) -> str | None:
    """The projection in which ground of these latitudes is united; None where degrees do."""
    if np.abs(lat).max() < _POLAR:
        return None
    return "EPSG:3413" if lat.max() >= _POLAR else "EPSG:3031"


def _to_plane(plane: str) -> Callable[[Floats], Floats]:
    def project(points: Floats) -> Floats:
        x, y = to_lonlat(plane).transform(points[:, 0], points[:, 1], direction="INVERSE")
        return np.column_stack([x, y])

    return project


def _finish_polar(plane: str, geometry: shapely.Geometry) -> shapely.Geometry:
    """Thinned and without slivers, OGC:CRS84."""
    thin = shapely.simplify(_without_slivers(geometry, _METER), _METER, preserve_topology=True)
    return polar_outline(plane, thin, _METER)


def _clip(geometry: shapely.Geometry, bbox: list[float] | None) -> shapely.Geometry:
    """The part in the bounds of the chips: near a pole, a meter is many degrees of longitude."""
    assert bbox is not None
    west, south, east, north = bbox
    halves = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    parts = [shapely.intersection(geometry, shapely.box(left, south, right, north)) for left, right in halves]
    return shapely.orient_polygons(_polygons(parts))


def _polygons(parts: Any) -> shapely.Geometry:
    """The polygons among parts; two that touch may have a line or a point in common."""
    polygons = [part for part in shapely.get_parts(shapely.get_parts(np.array(parts, dtype=object))) if part.area > 0]
    return polygons[0] if len(polygons) == 1 else shapely.multipolygons(polygons)


def _without_slivers(geometry: shapely.Geometry, tolerance: float = _TOLERANCE) -> shapely.Geometry:
    """Fill the holes that are thinner than the tolerance: they lie between chips that touch."""
    whole = []
    for polygon in shapely.get_parts(geometry):
        holes = shapely.get_rings(polygon)[1:]
        real = holes[shapely.area(shapely.polygons(holes)) > tolerance * shapely.length(holes)]
        whole.append(shapely.polygons(shapely.get_exterior_ring(polygon), real))
    return whole[0] if len(whole) == 1 else shapely.multipolygons(whole)


def _finish(geometry: shapely.Geometry) -> shapely.Geometry:
    """Thinned, valid, split at the antimeridian, counterclockwise."""
    thin = shapely.simplify(geometry, _TOLERANCE, preserve_topology=True)
    if thin.bounds[2] > 180:
        # Only what was taken round by `_east_of_zero` reaches so far.
        west, east = (shapely.intersection(thin, shapely.box(side, -90, side + 360, 90)) for side in (-180, 180))
        moved = shapely.transform(east, lambda xy: xy - [360, 0])
        thin = shapely.union_all([part for part in (west, moved) if part.area > 0])
    return shapely.orient_polygons(thin)


_COLUMNS = ["geometry", "bbox", "datetime", "start_datetime", "end_datetime", "lon", "lat"]
_COLUMNS += ["item_id", "item_ids", "epsg", "row", "col"]


@dataclass(frozen=True)
class FileSummary:
    """One embeddings file, as its Item tells it."""

    path: str
    """Below the release."""
    size: int
    """Bytes."""
    rows: int
    geometry: bytes
    """WKB, OGC:CRS84: the ground of its chips."""
    kind: str
    """`Polygon` or `MultiPolygon`."""
    bbox: tuple[float, float, float, float]
    """Of the chips and their outline; xmin > xmax across the antimeridian."""
    datetime: dt.datetime | None
    """Where all chips have the same."""
    start: dt.datetime
    end: dt.datetime
    epsg: int | None
    """Of the chips' pixel grid, where they share one."""
    sources: pa.StringArray
    """Ids of the STAC items that gave pixels, sorted."""
    unchecked: int
    """Chips whose image has no cloud mask."""

    @property
    def part(self) -> DataFile:
        """Square and window."""
        return DataFile.parse(self.path)


def summarize(release: Release, path: str, fingerprint: str) -> FileSummary:
    """Read what an Item says of a file.

    Raises:
        ReleaseError: unreadable, without a chip, with a geometry or time that cannot be, or made with another
            fingerprint than the release.
    """
    where = release.store.path(path)
    found = release.footer(path).get("emb", {}).get("embrel:fingerprint")
    if found != fingerprint:
        raise ReleaseError(where, f"was made with fingerprint {found}", fingerprint, "Two never mix in one version.")
    try:
        table = release.parquet(path).read(columns=_COLUMNS).combine_chunks()
        missing = sorted(set(_COLUMNS) - set(table.column_names))
        geometries = np.asarray(shapely.from_wkb(table["geometry"]), dtype=object) if not missing else None
    except (pa.ArrowException, OSError, shapely.GEOSException) as error:
        raise ReleaseError(where, f"cannot be read ({error})", "a table of embeddings") from error
    if missing:
        raise ReleaseError(where, f"has no column {missing[0]}", "a table of embeddings")
    if not table.num_rows:
        raise ReleaseError(where, "holds no chip", "at least one; a file without chips is not written")
    boxes = _sides(table["bbox"].combine_chunks())
    if not (np.isfinite(boxes).all() and np.abs(boxes[:, 1::2]).max() <= 90 and np.abs(boxes).max() <= 180):
        raise ReleaseError(where, "has chips whose bounds are not a place on Earth", "degrees, WGS 84")
    times = {name: pc.min_max(table[name]) for name in ("datetime", "start_datetime", "end_datetime")}
    if any(value["min"].as_py() is None for value in times.values()):
        raise ReleaseError(where, "has chips without a date", "datetime, start_datetime and end_datetime")
    geometry = _ground(table, geometries)
    if np.abs(boxes[:, [1, 3]]).max() >= _POLAR:
        geometry = _clip(geometry, total_bbox(boxes))
    # The outline is thinned and may leave the chips by a metre: the box holds both.
    bbox = total_bbox(np.vstack([boxes, _sides(bbox_array(np.array([geometry], dtype=object)))]))
    assert bbox is not None
    moment = times["datetime"]
    return FileSummary(
        path=path,
        size=release.store.size(path),
        rows=table.num_rows,
        geometry=shapely.to_wkb(geometry),
        kind=geometry.geom_type,
        bbox=(bbox[0], bbox[1], bbox[2], bbox[3]),
        datetime=moment["min"].as_py() if moment["min"] == moment["max"] else None,
        start=times["start_datetime"]["min"].as_py(),
        end=times["end_datetime"]["max"].as_py(),
        epsg=_shared(table["epsg"]),
        sources=_names(table["item_ids"]),
        unchecked=without_cloud_fraction(release.parquet(path).metadata),
    )


def _names(lists: pa.ChunkedArray) -> pa.StringArray:
    """The names that occur, sorted."""
    names = pc.list_flatten(lists).unique().cast(pa.string()).drop_null()
    names = names.filter(pc.not_equal(names, ""))
    return names.take(pc.array_sort_indices(names))


def _sides(bbox: pa.StructArray) -> npt.NDArray[np.float64]:
    return np.column_stack([bbox.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])


def _shared(epsg: pa.ChunkedArray) -> int | None:
    codes = epsg.unique().to_pylist()
    return codes[0] if len(codes) == 1 else None


def _ground(table: pa.Table, geometries: Any) -> shapely.Geometry:
    """The union of the chips, grid by grid: a projection, and in the `scene` layout a scene."""
    epsg = table["epsg"].fill_null(0).to_numpy()
    # In both layouts the chips of one item lie on one grid. In `utm` the items share it, which a fit of all finds.
    whole = _grids(table, geometries, [np.flatnonzero(epsg == code) for code in np.unique(epsg)], epsg)
    if whole is not None:
        return whole
    item = table["item_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    keys, group = np.unique(np.stack([epsg, item], axis=1), axis=0, return_inverse=True)
    split = _grids(table, geometries, [np.flatnonzero(group == place) for place in range(len(keys))], epsg)
    return split if split is not None else union(geometries)


def _grids(table: pa.Table, geometries: Any, groups: list[Any], epsg: Any) -> shapely.Geometry | None:
    """The union of groups that lie on a grid each; None where one does not."""
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    parts = []
    for mine in groups:
        code = int(epsg[mine[0]])
        part = None
        if code:
            crs = f"EPSG:{code}"
            x, y = to_lonlat(crs).transform(lon[mine], lat[mine], direction="INVERSE")
            part = lattice_union(crs, row[mine], col[mine], np.asarray(x), np.asarray(y))
        if part is None and len(mine) > _FEW:
            return None
        parts.append(part if part is not None else union(geometries[mine]))
    return parts[0] if len(parts) == 1 else union(np.array(parts, dtype=object))


_FEW = 16
"""So few chips may be united by their outlines: in one row or column, they tell no grid."""
