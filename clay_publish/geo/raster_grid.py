"""The pixel grid of an image, and what its pixels cover on the ground."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Geod
from pyproj.exceptions import ProjError

from clay_publish.geo.footprints import centers

_UTM = re.compile(r"EPSG:32[67](?:0[1-9]|[1-5][0-9]|60)")
_GEOD = Geod(ellps="WGS84")


@dataclass(frozen=True, slots=True)
class RasterGrid:
    """A pixel grid: its reference system, size and affine transform."""

    crs: str
    """Authority code, WKT or PROJJSON."""
    height: int
    width: int
    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f: x = a·col + b·row + c, y = d·col + e·row + f."""

    @property
    def pixel(self) -> float:
        """Side of a pixel in units of the CRS; the shorter of the two."""
        a, b, _, d, e, _ = self.transform
        return float(min((a * a + d * d) ** 0.5, (b * b + e * e) ** 0.5))

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """[4, 2]: upper left, lower left, lower right, upper right, in its reference system."""
        a, b, c, d, e, f = self.transform
        column, row = self.width * np.array([0, 0, 1, 1]), self.height * np.array([0, 1, 1, 0])
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=-1)

    @property
    def is_on_earth(self) -> bool:
        """Whether a corner or its middle has a longitude and latitude; with a mistaken transform or system none has."""
        _, _, x, _, _, y = self.transform
        if _UTM.fullmatch(self.crs) and 0 <= x <= 1_000_000 and 0 <= y <= 10_000_000:
            return True
        points = np.concatenate([self.corners, self.corners.mean(axis=0, keepdims=True)])
        try:
            lon, lat = centers(self.crs, points[:, 0], points[:, 1])
        except ProjError:  # a local system, which has no place on the Earth
            return False
        return bool((np.isfinite(lon) & (np.abs(lon) <= 540) & (np.abs(lat) <= 90.01)).any())


def ground_sides(grid: RasterGrid, row: float) -> tuple[float, float]:
    """Meters that a pixel covers on the ground along its columns and along its rows, at a row of the image.

    Transverse Mercator, sinusoidal and other metric grids are taken at their word; Mercator and geographic ones are
    measured on the WGS 84 ellipsoid at the middle column.
    """
    unit = _meters(grid.crs)
    a, b, c, d, e, f = grid.transform
    if unit is not None:
        return float(np.hypot(a, d)) * unit, float(np.hypot(b, e)) * unit
    column = grid.width / 2
    x = np.array([column, column + 1, column]) * a + np.array([row, row, row + 1]) * b + c
    y = np.array([column, column + 1, column]) * d + np.array([row, row, row + 1]) * e + f
    lon, lat = centers(grid.crs, x, y)
    return float(_GEOD.line_length(lon[[0, 1]], lat[[0, 1]])), float(_GEOD.line_length(lon[[0, 2]], lat[[0, 2]]))


def ground_size(grid: RasterGrid, row: float) -> float:
    """Side in meters of a square of the same ground as a pixel at a row of the image; the shorter of metric sides."""
    across, down = ground_sides(grid, row)
    if _meters(grid.crs) is not None:
        return min(across, down)
    return round(float(np.sqrt(across * down)), 3)


@lru_cache(maxsize=256)
def _meters(text: str) -> float | None:
    """Meters of a unit of a metric reference system; None of Mercator and geographic ones."""
    crs = CRS.from_user_input(text)
    operation = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    if not crs.is_projected or ("Mercator" in operation and "Transverse" not in operation):
        return None
    return float(crs.axis_info[0].unit_conversion_factor)
