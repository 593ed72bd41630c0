"""UTM zones and the 100 km squares by which a release is cut into files."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from clay_publish.geo.footprints import transformer

SQUARE = 100_000
"""Side of a square in meters."""

FALSE_NORTHING = 10_000_000
"""What EPSG:327zz adds to northings, in meters."""

_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_BANDS = "CDEFGHJKLMNPQRSTUVWX"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def utm(zone: int) -> Transformer:
    """Longitude and latitude (OGC:CRS84) to easting and northing; northings are negative south of the equator."""
    return transformer("OGC:CRS84", f"EPSG:{32600 + zone}")


def utm_zones(lon: Floats) -> Ints:
    """The plain 6° zone (1 to 60) of each longitude in degrees; no exceptions for Norway and Svalbard."""
    wrapped = np.mod(np.asarray(lon, dtype=np.float64) + 180.0, 360.0)
    zones: Ints = np.minimum(wrapped // 6, 59).astype(np.int64) + 1
    return zones


@dataclass(frozen=True, order=True)
class Square:
    """One 100 km square of a UTM zone: `zone`, floor(E / 100 km), floor(N / 100 km).

    N is counted from the equator and is negative south of it.
    """

    zone: int
    column: int
    row: int

    @property
    def token(self) -> str:
        """The square in a file name: `18_04_41`, or `18_04_-05` south of the equator."""
        return (
            f"{self.zone:02d}_{self.column:02d}_{self.row:02d}"
            if self.row >= 0
            else (f"{self.zone:02d}_{self.column:02d}_{self.row:03d}")
        )

    @classmethod
    def parse(cls, token: str) -> "Square":
        """Read what `token` wrote.

        Raises:
            ValueError: not three integers joined by underscores.
        """
        zone, column, row = (int(part) for part in token.split("_"))
        return cls(zone, column, row)

    @property
    def epsg(self) -> int:
        """The square's UTM projection."""
        return (32600 if self.row >= 0 else 32700) + self.zone

    def within(self, across: int) -> "Square":
        """The south-western one of the `across` × `across` squares that share a file: it names the file."""
        return Square(self.zone, self.column - self.column % across, self.row - self.row % across)

    def mgrs(self) -> str | None:
        """The square's MGRS name such as `18SVG`; None outside 80°S to 84°N or the letters' columns.

        The latitude band is the one of the square's center. Source: NGA.SIG.0012, appendix B.
        """
        northing = (self.row + 0.5) * SQUARE
        easting = (self.column + 0.5) * SQUARE
        _, lat = utm(self.zone).transform(easting, northing, direction="INVERSE")
        if not (-80 <= lat <= 84 and 1 <= self.column <= 8):
            return None
        band = _BANDS[min(int((lat + 80) // 8), 19)]
        column = _COLUMNS[(self.zone - 1) % 3][self.column - 1]
        shift = 0 if self.zone % 2 else 5
        return f"{self.zone:02d}{band}{column}{_ROWS[(self.row + shift) % 20]}"


def squares_of(lon: Floats, lat: Floats, across: int = 1) -> list[Square]:
    """The square of each point, by the plain zone of its longitude, or the one that names its file. Degrees, WGS 84."""
    lon, lat = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    zones = utm_zones(lon)
    squares: list[Square] = [Square(1, 0, 0)] * len(lon)
    for zone in np.unique(zones):
        mine = np.flatnonzero(zones == zone)
        # The northern projection continued below the equator counts northings from it.
        easting, northing = utm(int(zone)).transform(lon[mine], lat[mine])
        columns = np.floor_divide(easting, SQUARE).astype(int)
        rows = np.floor_divide(northing, SQUARE).astype(int)
        for place, column, row in zip(mine, columns, rows, strict=True):
            squares[place] = Square(int(zone), int(column), int(row)).within(across)
    return squares
