"""The ground that many chips cover, as one geometry.

Chips of one grid are cells with whole numbers, so their union is made of whole numbers too and is exact; only its
outline is projected. Unions of the projected outlines themselves are far slower and leave slivers.
"""

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.footprint import to_lonlat

MAX_POINTS = 512
"""Of an outline. Beyond, it is drawn around blocks of 2 × 2 chips, 4 × 4, …"""

_TOLERANCE = 1e-5
"""Degrees, about a metre: how far an outline may leave the true one."""
_GRID = 1e-8
"""Degrees, about a millimetre: to what corners are snapped where chips share no numbered grid."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def union(geometries: npt.NDArray[np.object_]) -> shapely.Geometry:
    """The ground under chips that share no numbered grid. OGC:CRS84 in and out."""
    east = _east_of_zero(geometries)
    return _finish(_without_slivers(shapely.union_all(east, grid_size=_GRID)))


def lattice_union(crs: str, row: Ints, col: Ints, x: Floats, y: Floats) -> shapely.Geometry | None:
    """The ground under cells of a regular grid in `crs`, OGC:CRS84.

    Args:
        crs: authority code of the grid's projection.
        row: number of each cell's row.
        col: number of each cell's column.
        x: of the cells' centres, in `crs`.
        y: of the cells' centres, in `crs`.

    Returns:
        A Polygon or MultiPolygon; None where the numbers and the centres tell no regular grid.
    """
    affine = _fit(row, col, x, y)
    if affine is None:
        return None
    block, largest = 1, max(int(np.ptp(row)), int(np.ptp(col)), 1)
    while True:
        cells = _merge(row, col, block)
        if shapely.get_num_coordinates(cells) <= MAX_POINTS or block >= largest:
            break
        block *= 2
    outline = shapely.segmentize(cells, 1.0)

    def project(corners: Floats) -> Floats:
        # The centre of cell (0, 0) is at (0, 0) of the fit, its corners half a cell away.
        centred = np.column_stack([corners[:, 1] - 0.5, corners[:, 0] - 0.5, np.ones(len(corners))])
        projected = centred @ affine
        lon, lat = to_lonlat(crs).transform(projected[:, 0], projected[:, 1])
        return np.column_stack([lon, lat])

    return _finish(_east_of_zero(np.array([shapely.transform(outline, project)], dtype=object))[0])


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


def _without_slivers(geometry: shapely.Geometry) -> shapely.Geometry:
    """Fill the holes that are thinner than the tolerance: they lie between chips that touch."""
    whole = []
    for polygon in shapely.get_parts(geometry):
        holes = shapely.get_rings(polygon)[1:]
        real = holes[shapely.area(shapely.polygons(holes)) > _TOLERANCE * shapely.length(holes)]
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
