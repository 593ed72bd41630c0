"""An image as the producer needs it: which file holds which band, where, when, and under which terms."""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import shapely

from clay_publish.geo.raster_grid import RasterGrid
from clay_publish.spec.sensors import CloudMask, Sensor
from clay_publish.storage.store import is_url
from clay_publish.windows import Window


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

    def at(self, href: str) -> "BandFile":
        """The same band of a file elsewhere."""
        return BandFile(
            self.band, self.asset, href, self.index, self.nodata, self.origin, self.count, self.has_external_mask
        )

    @property
    def external_mask(self) -> "BandFile":
        """The `.msk` in which GDAL keeps the mask of the file, if there is one."""
        return self.at(external_mask(self.href))


def external_mask(href: str) -> str:
    """Where the `.msk` beside a file lies; a query stays at the end."""
    path, mark, query = href.partition("?") if is_url(href) else (href, "", "")
    return f"{path}.msk{mark}{query}"


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
class ItemDescription:
    """What images that are described alike have in common: one object for all of them."""

    collection: str | None
    block: int
    bands: tuple[BandFile, ...]
    """In the sensor's order, without addresses."""
    mask: ItemMask | None
    """Without addresses."""
    mask_note: str | None
    resolved: tuple[ResolvedBand, ...]
    shift: float
    product_key: str | None
    """What says that the images are the sensor's product: the start of their `level`."""
    platform: str | None
    license: str | None
    attribution: str | None
    note: str | None
    example: bytes = field(default=b"", compare=False, repr=False)
    """Texts of one of the images, which make those of the others small."""


@dataclass(frozen=True, slots=True)
class ItemTexts:
    """What is read of an image less often."""

    hrefs: Mapping[str, str]
    acquisition: str
    proj_code: str | None
    level: str | None
    href: str | None
    updated: str
    etags: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """As JSON."""
        return _TO_JSON([getattr(self, name) for name in self.__slots__]).encode()


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """What an image has of its own."""

    id: str
    footprint: bytes | None
    acquired: datetime
    start: datetime
    end: datetime
    cloud_cover: float | None
    grid: RasterGrid | None
    texts: ItemTexts


_HEAD = struct.Struct("<3qd3I")
"""Acquisition, start and end in microseconds since 1970; cloud cover; bytes of id, footprint and reference system."""
_SIZES = struct.Struct("<3I")
_GRID = struct.Struct("<8d")
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
_LEVEL, _WINDOW, _MEMORY = 3, -13, 4
"""Of zlib: no header, and 8 kB of memory, which takes little time to prepare."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceItem:
    """One image. A plan holds millions: what an image has of its own is packed into about 0.4 kB.

    Properties unpack each time they are read. `changed` gives an image with other values.
    """

    common: ItemDescription
    packed: bytes
    """Head, id, footprint, reference system and numbers of the grid, compressed texts."""

    @classmethod
    def of(cls, common: ItemDescription, own: ItemRecord) -> "SourceItem":
        """Pack an image."""
        name, crs = own.id.encode(), b"" if own.grid is None else own.grid.crs.encode()
        cloud = math.nan if own.cloud_cover is None else own.cloud_cover
        times = ((time - _EPOCH) // _MICROSECOND for time in (own.acquired, own.start, own.end))
        head = _HEAD.pack(*times, cloud, len(name), len(own.footprint or b""), len(crs))
        numbers = b"" if own.grid is None else _GRID.pack(own.grid.height, own.grid.width, *own.grid.transform)
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, common.example)
        texts = packer.compress(own.texts.encoded()) + packer.flush()
        return cls(common, b"".join((head, name, own.footprint or b"", crs, numbers, texts)))

    def changed(self, **values: Any) -> "SourceItem":
        """The same image with other values of `ItemDescription`, `ItemRecord` and `ItemTexts`."""
        fitting: list[dict[str, Any]] = [
            {name: values.pop(name) for name in kind.__slots__ if name in values}
            for kind in (ItemDescription, ItemRecord, ItemTexts)
        ]
        if values:
            raise TypeError(", ".join(values))
        of_common, of_record, of_texts = fitting
        common = replace(self.common, **of_common) if of_common else self.common
        if not of_record and not of_texts:
            return SourceItem(common, self.packed)
        record = self.record
        return SourceItem.of(common, replace(record, texts=replace(record.texts, **of_texts), **of_record))

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, SourceItem) and self.common == other.common and self.record == other.record
        return bool(same)

    __hash__ = None  # type: ignore[assignment]

    @property
    def record(self) -> ItemRecord:
        """What it has of its own."""
        return ItemRecord(
            self.id, self.footprint, self.acquired, self.start, self.end, self.cloud_cover, self.grid, self.texts
        )

    def _part(self, number: int) -> bytes:
        """Id, footprint or reference system."""
        sizes = _SIZES.unpack_from(self.packed, _HEAD.size - _SIZES.size)
        start = _HEAD.size + sum(sizes[:number])
        return self.packed[start : start + sizes[number]]

    def _time(self, number: int) -> datetime:
        return _EPOCH + timedelta(microseconds=_HEAD.unpack_from(self.packed)[number])

    @property
    def texts(self) -> ItemTexts:
        """What is read of it less often."""
        sizes = _SIZES.unpack_from(self.packed, _HEAD.size - _SIZES.size)
        start = _HEAD.size + sum(sizes) + (_GRID.size if sizes[2] else 0)
        packer = zlib.decompressobj(_WINDOW, self.common.example)
        return ItemTexts(*json.loads(packer.decompress(self.packed[start:])))

    @property
    def id(self) -> str:
        """Of the STAC item."""
        return self._part(0).decode()

    @property
    def collection(self) -> str | None:
        """Of the item."""
        return self.common.collection

    @property
    def block(self) -> int:
        """Which imagery block of the spec asked for it."""
        return self.common.block

    @property
    def footprint(self) -> bytes | None:
        """`geometry` as WKB."""
        return self._part(1) or None

    @property
    def geometry(self) -> shapely.Geometry | None:
        """Footprint, OGC:CRS84."""
        return shapely.from_wkb(self.footprint)

    @property
    def acquired(self) -> datetime:
        """Acquisition; the middle of the period where the item states none. UTC."""
        return self._time(0)

    @property
    def start(self) -> datetime:
        """Of its period; the acquisition where it states none. UTC."""
        return self._time(1)

    @property
    def end(self) -> datetime:
        """Of its period; the acquisition where it states none. UTC."""
        return self._time(2)

    @property
    def bands(self) -> tuple[BandFile, ...]:
        """In the sensor's order."""
        return self._placed(self.common.bands)

    @property
    def mask(self) -> ItemMask | None:
        """Its cloud mask."""
        mask = self.common.mask
        return None if mask is None else ItemMask(self._placed(mask.files), mask.values)

    @property
    def has_mask(self) -> bool:
        """Whether it has a cloud mask."""
        return self.common.mask is not None

    @property
    def mask_note(self) -> str | None:
        """Why a cloud mask that the item has is not used."""
        return self.common.mask_note

    @property
    def grid(self) -> RasterGrid | None:
        """Of the finest band, where the item states it."""
        crs = self._part(2)
        if not crs:
            return None
        sizes = _SIZES.unpack_from(self.packed, _HEAD.size - _SIZES.size)
        height, width, a, b, c, d, e, f = _GRID.unpack_from(self.packed, _HEAD.size + sum(sizes))
        return RasterGrid(crs.decode(), int(height), int(width), (a, b, c, d, e, f))

    @property
    def has_grid(self) -> bool:
        """Whether `grid` is known."""
        return bool(_HEAD.unpack_from(self.packed)[-1])

    @property
    def proj_code(self) -> str | None:
        """Authority code of its reference system, where the item states one."""
        return self.texts.proj_code

    @property
    def resolved(self) -> tuple[ResolvedBand, ...]:
        """How each of `bands` is read."""
        return self.common.resolved

    @property
    def shift(self) -> float:
        """Added to the digital numbers of the first band: −1,000 for Sentinel-2 from baseline 04.00 on."""
        return self.common.shift

    @property
    def level(self) -> str | None:
        """What says that the item is the sensor's product; None where nothing does."""
        return self.texts.level

    @property
    def platform(self) -> str | None:
        """Spacecraft."""
        return self.common.platform

    @property
    def acquisition(self) -> str:
        """The datatake, the pass along a Landsat path, or the composite and its period.

        Images of one acquisition may be mosaicked, and count once.
        """
        return self.texts.acquisition

    @property
    def cloud_cover(self) -> float | None:
        """Percent."""
        share: float = _HEAD.unpack_from(self.packed)[3]
        return None if math.isnan(share) else share

    @property
    def license(self) -> str | None:
        """Terms of use; None where they are unknown."""
        return self.common.license

    @property
    def attribution(self) -> str | None:
        """Whom its terms ask to name."""
        return self.common.attribution

    @property
    def href(self) -> str | None:
        """The item's own address."""
        return self.texts.href

    @property
    def updated(self) -> str:
        """For choosing among versions of the same item."""
        return self.texts.updated

    @property
    def etags(self) -> Mapping[str, str]:
        """What tells, while the run lasts, whether the content of an href is the planned one."""
        return self.texts.etags

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of the hrefs that are local files."""
        return self.texts.digests

    @property
    def note(self) -> str | None:
        """What is doubtful about its footprint or its pixel grid."""
        return self.common.note

    @property
    def contents(self) -> Mapping[str, str]:
        """What identifies the content of each href: on any machine, and in the next version."""
        texts = self.texts
        return {**texts.etags, **{href: f"sha256:{digest}" for href, digest in texts.digests.items()}}

    @property
    def files(self) -> tuple[BandFile, ...]:
        """The bands, and the mask."""
        mask = self.common.mask
        return self._placed(self.common.bands if mask is None else (*self.common.bands, *mask.files))

    def _placed(self, files: tuple[BandFile, ...]) -> tuple[BandFile, ...]:
        hrefs = self.texts.hrefs
        return tuple(file.at(hrefs[file.asset]) for file in files)

    def scaling(self, band: str) -> ResolvedBand:
        """How a band is read."""
        return next(each for each in self.resolved if each.name == band)

    @property
    def window(self) -> Window:
        """The days of the acquisition, or the composite's period."""
        if self.start == self.end:
            return Window.of_days(self.start)
        return Window.of_days(self.start, self.end)
