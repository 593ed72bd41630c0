"""An image as the producer needs it: which file holds which band, where, when, and under which terms."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Geod
from pyproj.exceptions import ProjError

from clay_publish.geo.footprints import centers
from clay_publish.spec.sensors import CloudMask, Sensor
from clay_publish.storage.store import is_url
from clay_publish.windows import Window

_MAX_ID = 4096
_SAME_SCALE = 1e-3
_UTM = re.compile(r"EPSG:32[67](?:0[1-9]|[1-5][0-9]|60)")


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


@dataclass(frozen=True, slots=True)
class BandFile:
    """Which file and which of its bands holds a band of the sensor."""

    band: str
    """Common name."""
    asset: str
    """Key of the asset."""
    href: str
    """Path or address, resolved."""
    index: int | None
    """1-based band of the file; None where a file of one band is expected."""
    nodata: float | None
    """As the item states it."""
    origin: str | None = None
    """Address of the remote catalog that named the file; it may not name local files."""
    count: int | None = None
    """Bands that the file must hold, beside an alpha band; None where it does not matter."""
    has_external_mask: bool = False
    """Whether the item names the `.msk` beside the file."""

    @property
    def external_mask(self) -> "BandFile":
        """The `.msk` in which GDAL keeps the mask of the file, if there is one; a query stays at the end."""
        path, mark, query = self.href.partition("?") if is_url(self.href) else (self.href, "", "")
        return replace(self, href=f"{path}.msk{mark}{query}")


@dataclass(frozen=True, slots=True)
class ResolvedBand:
    """How a band of the sensor is read from an image: a row of `bands` in `sources.parquet`."""

    name: str
    asset: str
    band: int
    """1-based band of the file."""
    scale: float
    """Physical value = digital number × scale + offset."""
    offset: float
    source: str
    """What the mapping, and what scale and offset follow from."""

    def to_input(self, sensor: Sensor) -> tuple[float, float]:
        """Factor and summand that turn digital numbers into those of the sensor's statistics."""
        return (
            round(self.scale / sensor.scale, 9),
            round((self.offset - sensor.offset) / sensor.scale, 6),
        )


@dataclass(frozen=True)
class ItemMask:
    """The cloud mask of an image."""

    files: tuple[BandFile, ...]
    """One for each band of the file that tells of cloud."""
    values: CloudMask
    """What its values mean."""

    @property
    def asset(self) -> str:
        """Key of its asset."""
        return self.files[0].asset


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One image."""

    id: str
    collection: str | None
    block: int
    """Which imagery block of the spec asked for it."""
    geometry: shapely.Geometry | None
    """Footprint, OGC:CRS84."""
    acquired: datetime
    """Acquisition; the middle of the period where the item states none. UTC."""
    start: datetime
    end: datetime
    bands: tuple[BandFile, ...]
    """In the sensor's order."""
    mask: ItemMask | None
    mask_note: str | None
    """Why a cloud mask that the item has is not used."""
    grid: RasterGrid | None
    """Of the finest band, where the item states it."""
    proj_code: str | None
    resolved: tuple[ResolvedBand, ...]
    """How each of `bands` is read."""
    shift: float
    """Added to the digital numbers of the first band: −1,000 for Sentinel-2 from baseline 04.00 on."""
    level: str | None
    """What says that the item is the sensor's product; None where nothing does."""
    platform: str | None
    acquisition: str
    """Images of one acquisition may be mosaicked, and count once: the datatake, the pass along a Landsat path, or the
    composite and its period."""
    cloud_cover: float | None
    """Percent."""
    license: str | None
    attribution: str | None
    href: str | None
    """The item's own address."""
    updated: str
    """For choosing among versions of the same item."""
    etags: Mapping[str, str] = field(default_factory=dict)
    """What tells, while the run lasts, whether the content of an href is the planned one."""
    note: str | None = None
    """What is doubtful about its footprint or its pixel grid."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the hrefs that are local files."""

    @property
    def contents(self) -> Mapping[str, str]:
        """What identifies the content of each href: on any machine, and in the next version."""
        return {**self.etags, **{href: f"sha256:{digest}" for href, digest in self.digests.items()}}

    @property
    def files(self) -> tuple[BandFile, ...]:
        """The bands, and the mask."""
        return self.bands if self.mask is None else (*self.bands, *self.mask.files)

    def scaling(self, band: str) -> ResolvedBand:
        """How a band is read."""
        return next(each for each in self.resolved if each.name == band)

    @property
    def window(self) -> Window:
        """The days of the acquisition, or the composite's period."""
        if self.start == self.end:
            return Window.of_days(self.start)
        return Window.of_days(self.start, self.end)


_GEOD = Geod(ellps="WGS84")


def ground_sides(grid: RasterGrid, row: float) -> tuple[float, float]:
    """Meters that a pixel covers on the ground along its columns and along its rows, at a row of the image.

    Transverse Mercator, sinusoidal and other metric grids are taken at their word; Mercator and geographic ones are
    measured on the WGS 84 ellipsoid at the middle column.
    """
    crs = _crs(grid.crs)
    operation = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    mercator = "Mercator" in operation and "Transverse" not in operation
    a, b, c, d, e, f = grid.transform
    if crs.is_projected and not mercator:
        unit = crs.axis_info[0].unit_conversion_factor
        return float(np.hypot(a, d)) * unit, float(np.hypot(b, e)) * unit
    column = grid.width / 2
    x = np.array([column, column + 1, column]) * a + np.array([row, row, row + 1]) * b + c
    y = np.array([column, column + 1, column]) * d + np.array([row, row, row + 1]) * e + f
    lon, lat = centers(grid.crs, x, y)
    return float(_GEOD.line_length(lon[[0, 1]], lat[[0, 1]])), float(_GEOD.line_length(lon[[0, 2]], lat[[0, 2]]))


def ground_size(grid: RasterGrid, row: float) -> float:
    """Side in meters of a square of the same ground as a pixel at a row of the image; the shorter of metric sides."""
    crs = _crs(grid.crs)
    across, down = ground_sides(grid, row)
    operation = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    if crs.is_projected and not ("Mercator" in operation and "Transverse" not in operation):
        return min(across, down)
    return round(float(np.sqrt(across * down)), 3)


@lru_cache(maxsize=256)
def _crs(text: str) -> CRS:
    return CRS.from_user_input(text)
