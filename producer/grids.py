"""The ground size of pixels, in metres, whatever the reference system."""

import numpy as np
from pyproj import CRS, Geod

from clay_publish.footprint import centres
from clay_publish.producer.items import RasterGrid

_GEOD = Geod(ellps="WGS84")


def ground_size(grid: RasterGrid, row: float) -> float:
    """Metres a pixel side covers on the ground at a row of the image.

    Transverse Mercator, sinusoidal and other metric grids are taken at their word; Mercator and geographic ones are
    measured on the WGS 84 ellipsoid at the middle column, as the square root of the pixel's area.
    """
    crs = CRS.from_user_input(grid.crs)
    operation = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    mercator = "Mercator" in operation and "Transverse" not in operation
    if crs.is_projected and not mercator:
        return grid.pixel * crs.axis_info[0].unit_conversion_factor
    a, b, c, d, e, f = grid.transform
    column = grid.width / 2
    x = np.array([column, column + 1, column]) * a + np.array([row, row, row + 1]) * b + c
    y = np.array([column, column + 1, column]) * d + np.array([row, row, row + 1]) * e + f
    lon, lat = centres(grid.crs, x, y)
    across = _GEOD.line_length(lon[[0, 1]], lat[[0, 1]])
    down = _GEOD.line_length(lon[[0, 2]], lat[[0, 2]])
    return round(float(np.sqrt(across * down)), 3)
