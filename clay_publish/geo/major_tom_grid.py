"""The grid of Major TOM: cells of about 10 km, `433U_1090R` from the equator and the meridian of Greenwich.

Source: `Grid` of https://github.com/ESA-PhiLab/Major-TOM, which is what its data sets were made with; the paper rounds
differently (issue 19). The package majortom-eg has the same cells up to 89°, which the tests compare, but no names: it
gives the cells of a polygon, by geohash, and the one across the antimeridian twice.
"""

import math
import re

import numpy as np
import numpy.typing as npt

KILOMETERS = 10
_RADIUS = 6378.137
"""Kilometers, of the equator."""
_ROWS = math.ceil(math.pi * _RADIUS / KILOMETERS)
"""From pole to pole."""
_NAME = re.compile(r"([0-9]{1,4})([UD])_([0-9]{1,4})([RL])")

Floats = npt.NDArray[np.float64]


def cells_at(lon: Floats, lat: Floats) -> npt.NDArray[np.object_]:
    """Names of the cells that hold places, [n]. A place on an edge is in the cell south or west of it.

    Args:
        lon: degrees, WGS 84, within ±180.
        lat: degrees, within ±90.
    """
    row = np.ceil(lat / 180 * _ROWS).astype(np.int64) - 1
    count = np.array([_columns(int(each)) for each in row], dtype=np.int64)
    column = np.ceil(lon / 360 * count).astype(np.int64) - 1
    # In a row of an odd number, the last cell in the east reaches across the antimeridian.
    column = np.where(column < -(count // 2), column + count, column)
    names = [name_of_cell(int(r), int(c)) for r, c in zip(row, column, strict=True)]
    return np.array(names, dtype=object)


def name_of_cell(row: int, column: int) -> str:
    """Return the name of a cell by its numbers from the equator and Greenwich."""
    return f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(column)}{'R' if column >= 0 else 'L'}"


def numbers_of_cell(name: str) -> tuple[int, int]:
    """Return row and column of a cell.

    Raises:
        ValueError: the text is not the name of a cell.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        msg = "not the name of a cell"
        raise ValueError(msg)
    row = int(found[1]) * (1 if found[2] == "U" else -1)
    column = int(found[3]) * (1 if found[4] == "R" else -1)
    count = _columns(row) if abs(row) <= _ROWS // 2 else 0
    if not -(count // 2) <= column < (count + 1) // 2:
        msg = "not a cell of the grid"
        raise ValueError(msg)
    if name != name_of_cell(row, column):
        msg = f"another spelling of {name_of_cell(row, column)}"
        raise ValueError(msg)
    return row, column


def corner_of_cell(name: str) -> tuple[float, float]:
    """Return longitude and latitude of the southwest corner of a cell, degrees.

    Raises:
        ValueError: the text is not the name of a cell.
    """
    row, column = numbers_of_cell(name)
    return column * 360 / _columns(row), row * 180 / _ROWS


def bounds_of_cell(name: str) -> tuple[float, float, float, float]:
    """Return west, south, east and north of a cell, degrees; east is beyond 180 where it crosses the antimeridian.

    Raises:
        ValueError: as `corner_of_cell`.
    """
    row, column = numbers_of_cell(name)
    count = _columns(row)
    west, south = corner_of_cell(name)
    # In a row of an odd number, the easternmost cell ends where the westernmost begins.
    east = 360 - (count // 2) * 360 / count if count % 2 and column == count // 2 else (column + 1) * 360 / count
    return west, south, east, (row + 1) * 180 / _ROWS


def _columns(row: int) -> int:
    """Cells around the Earth, by the southern edge of a row."""
    return max(1, math.ceil(2 * math.pi * _RADIUS * math.cos(math.radians(row * 180 / _ROWS)) / KILOMETERS))
