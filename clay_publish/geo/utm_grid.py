"""The `utm` grid: the Earth cut once into named cells of constant ground size.

Plain 6° zones, without the exceptions of Norway and Svalbard, from 80°S to 84°N. In each zone, rows are counted from
the equator in both directions (row −1 touches it from below) and columns from easting 0, in steps of one cell.

A cell belongs to a zone when one of its corners lies in the zone's strip of longitude, which holds its western edge and
not its eastern one, and one of its corners lies from 80°S to 84°N. So the cell that holds a point, in the plain zone of
the point, always belongs to that zone: in each row, the edge of the strip is farthest from the central meridian on the
side of the equator, and the corner there that is nearer to the central meridian is inside when anything is. Cells of
two zones overlap at the seam, on average by one cell's width.
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clay_publish.errors import SpecError
from clay_publish.geo.footprints import polygons
from clay_publish.geo.utm_zones import FALSE_NORTHING, SQUARE, Square, utm, utm_zones
from clay_publish.windows import Window, parse_token

SOUTH, NORTH = -80.0, 84.0
"""Latitudes between which the grid lies, degrees."""

MIN_CELL, MAX_CELL = 0.1, 65_000.0
"""Sides of a cell in meters. At 84°N a zone is 69 km wide: a cell as wide as that could span it, no corner inside."""

SUPERBLOCK = 1200
"""Pixels a side, at most, of what is warped in one go."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ROW_BITS, _COL_BITS = 28, 24
_ROW_SHIFT = 1 << (_ROW_BITS - 1)
_CHIP_ID = re.compile(r"utm-([0-9.e+-]+)m_(32[67]\d\d)_(-?\d+)_(\d+)_(.+)")
_EARTH_RADIUS = 6_371_000.0


class UtmChip(NamedTuple):
    """What the id of a chip in the `utm` layout says."""

    grid: "UtmGrid"
    epsg: int
    row: int
    col: int
    window: Window


@dataclass(frozen=True, order=True)
class UtmGrid:
    """The grid whose cells are `cell` meters wide and high. Two grids with the same name are the same.

    Raises:
        SpecError: the side is smaller than `MIN_CELL` or larger than `MAX_CELL`.
    """

    cell: float

    def __post_init__(self) -> None:
        if not MIN_CELL <= self.cell <= MAX_CELL:
            raise SpecError(
                "chips",
                f"size × gsd is {self.cell:g} m",
                f"cells from {MIN_CELL:g} m to {MAX_CELL:g} m",
                "At 84°N a UTM zone is 69 km wide. The scene layout has no such limit.",
            )
        object.__setattr__(self, "cell", float(f"{self.cell:.10g}"))

    @property
    def token(self) -> str:
        """The grid in chip ids: `utm-1280m`."""
        return f"utm-{self.cell:.10g}m"

    def cells_at(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Ints, Ints, Ints]:
        """EPSG code, row and column of the cell that owns each point, in the plain zone of its longitude.

        Degrees, WGS 84; arrays of shape [N].

        Raises:
            ValueError: a latitude is not between 80°S and 84°N, or a coordinate is not finite.
        """
        lon = np.atleast_1d(np.asarray(lon, dtype=np.float64))
        lat = np.atleast_1d(np.asarray(lat, dtype=np.float64))
        if not (np.isfinite(lon).all() and np.all((lat >= SOUTH) & (lat <= NORTH))):
            msg = f"the utm grid lies from {-SOUTH:g}°S to {NORTH:g}°N; a point lies elsewhere"
            raise ValueError(msg)
        zones = utm_zones(lon)
        row, col = np.empty_like(zones), np.empty_like(zones)
        for zone in np.unique(zones):
            mine = zones == zone
            easting, northing = utm(int(zone)).transform(lon[mine], lat[mine])
            col[mine] = np.floor(easting / self.cell)
            row[mine] = np.floor(northing / self.cell)
        return epsg_of(zones, row), row, col

    def bounds(self, epsg: npt.ArrayLike, row: npt.ArrayLike, col: npt.ArrayLike) -> Floats:
        """[N, 4] xmin, ymin, xmax, ymax of cells in meters, in the projection that `epsg` names."""
        epsg, row, col = np.broadcast_arrays(np.asarray(epsg), np.asarray(row), np.asarray(col))
        base = np.where(epsg >= 32700, float(FALSE_NORTHING), 0.0)
        sides = (col * self.cell, base + row * self.cell, (col + 1) * self.cell, base + (row + 1) * self.cell)
        return np.stack([np.atleast_1d(side) for side in sides], axis=-1)

    def centers(self, epsg: npt.ArrayLike, row: npt.ArrayLike, col: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Longitude and latitude of the centers of cells, degrees, WGS 84; [N] each."""
        zone, row, col = np.broadcast_arrays(_zones(epsg), np.atleast_1d(row), np.atleast_1d(col))
        return self._lonlat(zone, (col + 0.5) * self.cell, (row + 0.5) * self.cell)

    def belongs(self, epsg: npt.ArrayLike, row: npt.ArrayLike, col: npt.ArrayLike) -> Bools:
        """[N] whether each cell belongs to its zone: a corner in its strip, a corner from 80°S to 84°N."""
        zone, row, col = np.broadcast_arrays(_zones(epsg), np.atleast_1d(row), np.atleast_1d(col))
        in_strip, in_limits = np.zeros(zone.shape, dtype=bool), np.zeros(zone.shape, dtype=bool)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            lon, lat = self._lonlat(zone, (col + right) * self.cell, (row + down) * self.cell)
            in_strip |= in_zone(zone, lon)
            in_limits |= (lat >= SOUTH) & (lat <= NORTH)
        return in_strip & in_limits & (col >= 0)

    def footprints(self, epsg: npt.ArrayLike, row: npt.ArrayLike, col: npt.ArrayLike) -> npt.NDArray[np.object_]:
        """[N] outlines of cells in OGC:CRS84, counterclockwise, true to a thousandth of a cell's side.

        A cell across the antimeridian is a MultiPolygon cut there (RFC 7946, 3.1.9).
        """
        zone, row, col = np.broadcast_arrays(_zones(epsg), np.atleast_1d(row), np.atleast_1d(col))
        ring = _unit_ring(self._segments())
        x = (col[:, None] + ring[:, 0]) * self.cell
        y = (row[:, None] + ring[:, 1]) * self.cell
        lon, lat = self._lonlat(np.broadcast_to(zone[:, None], x.shape).ravel(), x.ravel(), y.ravel())
        return polygons(lon.reshape(x.shape), lat.reshape(x.shape))

    def numbers(self, epsg: npt.ArrayLike, row: npt.ArrayLike, col: npt.ArrayLike) -> Ints:
        """[N] one number per cell, ascending by zone, then row from south to north, then column."""
        zone, row, col = _zones(epsg), np.atleast_1d(row).astype(np.int64), np.atleast_1d(col).astype(np.int64)
        numbers: Ints = (zone << (_ROW_BITS + _COL_BITS)) | ((row + _ROW_SHIFT) << _COL_BITS) | col
        return numbers

    def chip_id(self, epsg: int, row: int, col: int, window: Window) -> str:
        """Id of the chip of one cell and window: `utm-1280m_32618_3283_331_2016-01-12_2016-01-13`."""
        return f"{self.token}_{epsg}_{row}_{col}_{window.token}"

    def _lonlat(self, zone: Ints, easting: Floats, northing: Floats) -> tuple[Floats, Floats]:
        lon, lat = np.empty(zone.shape), np.empty(zone.shape)
        for one in np.unique(zone):
            mine = zone == one
            lon[mine], lat[mine] = utm(int(one)).transform(easting[mine], northing[mine], direction="INVERSE")
        return lon, lat

    def _segments(self) -> int:
        """Straight pieces an edge needs so that it strays from the true line by a thousandth of a side at most.

        A line of length L along a parallel bulges by L² tan(lat) / 8R.
        """
        return max(1, math.ceil(math.sqrt(self.cell * math.tan(math.radians(NORTH)) / (8 * _EARTH_RADIUS * 1e-3))))


@dataclass(frozen=True)
class Cut:
    """How the cells of a square are cut into superblocks; the same whichever of them are asked for."""

    square: Square
    row: int
    """First row of the square's cells."""
    col: int
    """First column."""
    count: int
    """Rows of cells, at most one more than there are."""
    side: int
    """Rows and columns of cells in a superblock."""

    @classmethod
    def of(cls, grid: UtmGrid, square: Square, size: int, across: int = 1, *, pixels: int = SUPERBLOCK) -> "Cut":
        """Cut a square into even superblocks; a cell belongs to the square that holds its center.

        Args:
            grid: of the cells.
            square: the south-western one, where the ground of a file is several.
            size: pixels along a side of a cell.
            across: 100 km squares along a side of the ground of a file.
            pixels: along a side of a superblock, at most.
        """
        row, col = (math.ceil(place * SQUARE / grid.cell - 0.5) for place in (square.row, square.column))
        count = math.ceil(across * SQUARE / grid.cell)
        blocks = math.ceil(count * size / max(pixels, size))
        return cls(square, row, col, count, math.ceil(count / blocks))

    def superblocks(self, rows: Ints, cols: Ints) -> tuple[Ints, Ints]:
        """Return the row and column of the superblock of each cell."""
        return (rows - self.row) // self.side, (cols - self.col) // self.side


def parse_chip_id(chip: str) -> UtmChip:
    """Read what `UtmGrid.chip_id` wrote.

    Raises:
        ValueError: the text is not an id of a chip in the `utm` layout.
    """
    match = _CHIP_ID.fullmatch(chip)
    if match is None:
        msg = f"{chip!r} is not an id like utm-1280m_32618_3283_331_2016-01-12_2016-01-13"
        raise ValueError(msg)
    side, epsg, row, col, window = match.groups()
    return UtmChip(UtmGrid(float(side)), int(epsg), int(row), int(col), parse_token(window))


def epsg_of(zone: Ints, row: Ints) -> Ints:
    """EPSG code of cells: 326zz for rows ≥ 0, 327zz below."""
    codes: Ints = np.where(np.asarray(row) >= 0, 32600, 32700) + np.asarray(zone)
    return codes


def in_zone(zone: npt.ArrayLike, lon: Floats) -> Bools:
    """Whether longitudes in degrees lie in the half-open strips of plain zones (1 to 60)."""
    inside: Bools = np.mod(lon + 180.0 - 6.0 * (np.asarray(zone) - 1), 360.0) < 6.0
    return inside


def _zones(epsg: npt.ArrayLike) -> Ints:
    zones: Ints = np.atleast_1d(np.asarray(epsg, dtype=np.int64)) % 100
    return zones


def _unit_ring(segments: int) -> Floats:
    """Closed counterclockwise outline of the unit square; [4 × segments + 1, 2]."""
    step = np.arange(segments) / segments
    zero, one = np.zeros(segments), np.ones(segments)
    x = np.concatenate([step, one, 1 - step, zero, [0.0]])
    y = np.concatenate([zero, step, one, 1 - step, [0.0]])
    return np.stack([x, y], axis=-1)
