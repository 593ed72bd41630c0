"""The order in which rows of a table lie: neighbours on the ground are neighbours in the file."""

import geopandas
import numpy as np
import numpy.typing as npt

_EARTH = (-180.0, -90.0, 180.0, 90.0)
_LEVEL = 16
_POINTS = 65_536
"""Made at once: a million of them as objects would weigh more than most tables."""


def hilbert_distance(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Distance [n] along a Hilbert curve of level 16 over the Earth; degrees, OGC:CRS84."""
    distance = np.empty(len(lon), dtype=np.uint32)
    for start in range(0, len(lon), _POINTS):
        some = slice(start, start + _POINTS)
        points = geopandas.GeoSeries.from_xy(lon[some], lat[some])
        distance[some] = points.hilbert_distance(total_bounds=_EARTH, level=_LEVEL).to_numpy()
    return distance
