"""Images of any reference system, brought to a piece of the `utm` grid at constant ground size."""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from clay_publish.geo.raster_grid import ground_sides
from clay_publish.producer.imagery.raster import ImageFile, OpenBand, grid_of, open_bands, readers, session
from clay_publish.producer.imagery.remote import check_unchanged
from clay_publish.producer.imagery.strips import fine_grid
from clay_publish.producer.sources.item import BandFile, SourceItem
from clay_publish.producer.sources.major_tom import ParquetCell
from clay_publish.spec.sensors import Sensor

_TOLERANCE = 0.02
"""Pixels by which GDAL may approximate the warp; its own default is 0.125."""
_MIXED = 30_000
"""By less than this share of the file's nodata value, resampled pixels hold a trace of it."""
_OPEN_FILES = 256
"""Of a unit: of a composite of 16 images, all bands and masks. A process may have 1,024."""
_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}

Layer = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Values of a band and where they are data, both [height, width]."""


@dataclass(frozen=True)
class Canvas:
    """A rectangle of pixels in a UTM projection."""

    epsg: int
    west: float
    north: float
    gsd: float
    height: int
    width: int

    @property
    def transform(self) -> Affine:
        """From pixels to meters."""
        return Affine(self.gsd, 0, self.west, 0, -self.gsd, self.north)


class Images:
    """Images kept open while neighboring pieces are read from them, a few at a time."""

    def __init__(self, bands: tuple[str, ...], sensor: Sensor, pool: Executor) -> None:
        self._bands, self._sensor, self._pool = bands, sensor, pool
        self._open: OrderedDict[tuple[str, bool], tuple[ExitStack, list[OpenBand]]] = OrderedDict()

    def bands(self, item: SourceItem) -> list[OpenBand]:
        """The bands of an image, in the order asked for.

        Raises:
            ImageryError: it cannot be opened, or is not what was planned.
        """
        if (item.id, False) not in self._open:
            check_unchanged(item)
        by_name = {file.band: file for file in item.bands}
        return self._get(item, [by_name[band] for band in self._bands], mask=False)

    def masks(self, item: SourceItem) -> list[OpenBand]:
        """The bands of an image's cloud mask; none where it has none.

        Raises:
            ImageryError: it cannot be opened.
        """
        return [] if item.mask is None else self._get(item, list(item.mask.files), mask=True)

    def _get(self, item: SourceItem, files: list[BandFile], *, mask: bool) -> list[OpenBand]:
        key = (item.id, mask)
        if key not in self._open:
            while self._open and self._files() + len(files) > _OPEN_FILES:
                self._open.popitem(last=False)[1][0].close()
            with ExitStack() as stack:
                opened = stack.enter_context(self._opened(item, files, mask=mask))
                for band in opened:
                    grid_of(band)
                # A STAC item's grid may be wrong, and is not needed; that of a Major TOM row follows from its cell.
                if not mask and ParquetCell.parse(files[0].href) is not None:
                    fine_grid(opened, item.grid)
                self._open[key] = (stack.pop_all(), opened)
        self._open.move_to_end(key)
        return self._open[key][1]

    def _files(self) -> int:
        return sum(len({id(band.file) for band in bands}) for _, bands in self._open.values())

    def _opened(self, item: SourceItem, files: list[BandFile], *, mask: bool) -> AbstractContextManager[list[OpenBand]]:
        if mask:
            return open_bands(files, None, item.etags)
        return open_bands(files, self._sensor.nodata, item.etags, zero_is_nodata=self._sensor.zero_is_nodata)

    def warp(self, bands: list[OpenBand], canvas: Canvas, resampling: Resampling) -> list[Layer]:
        """Each band on the canvas; a file is read by one thread at a time.

        Raises:
            ImageryError: an image is truncated or corrupt there.
        """
        files = list({id(band.file): None for band in bands})
        groups = [[n for n, band in enumerate(bands) if id(band.file) == file] for file in files]

        def read(group: list[int]) -> list[Layer]:
            layers: dict[int, Layer] = {}
            for _, some in groupby(sorted(group, key=key), key):  # bands of a file may have nodata values of their own
                alike = list(some)
                layers.update(zip(alike, _warp_bands([bands[n] for n in alike], canvas, resampling), strict=True))
            return [layers[n] for n in group]

        def key(n: int) -> str:
            return str(bands[n].nodata)

        found: dict[int, Layer] = {}
        for group, layers in zip(groups, self._pool.map(read, groups), strict=True):
            found.update(zip(group, layers, strict=True))
        return [found[n] for n in range(len(bands))]

    def close(self) -> None:
        """Close everything."""
        while self._open:
            self._open.popitem()[1][0].close()


@contextmanager
def images(bands: tuple[str, ...], sensor: Sensor, threads: int) -> Iterator[Images]:
    """Open images as they are asked for, and close them in the end."""
    with session(), readers(threads) as pool:
        opened = Images(bands, sensor, pool)
        try:
            yield opened
        finally:
            opened.close()


def _warp_bands(bands: list[OpenBand], canvas: Canvas, resampling: Resampling) -> list[Layer]:
    first = bands[0]
    nodata = None if first.has_mask else first.nodata
    if first.zero_is_nodata:
        nodata = 0.0
    indexes = [band.index for band in bands]

    # Left to itself, GDAL takes the scale from the windows, and blurs where an image fills only a part of the canvas.
    grid = grid_of(first)
    across, down = ground_sides(grid, grid.height / 2)

    def read() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        with (
            _without_alpha(first.file) as source,
            WarpedVRT(
                source,
                crs=f"EPSG:{canvas.epsg}",
                transform=canvas.transform,
                height=canvas.height,
                width=canvas.width,
                resampling=resampling,
                tolerance=_TOLERANCE,
                XSCALE=round(across / canvas.gsd, 6),
                YSCALE=round(down / canvas.gsd, 6),
                src_nodata=nodata,
                nodata=nodata,
                add_alpha=nodata is None and not first.file.alphas,
            ) as warped,
        ):
            values = warped.read(indexes)
            if nodata is not None:
                # What `read_masks` says as well, for the price of another warp.
                valid = values != nodata
                if first.zero_is_nodata and first.nodata is not None and first.nodata < 0:
                    valid &= values > first.nodata / _MIXED  # no trace of the file's own value
                return values, valid
            alpha = warped.read(first.file.alphas[0] if first.file.alphas else warped.count)
            return values, np.repeat(alpha[None] != 0, len(indexes), axis=0)

    values, valid = first.file.attempt(read, "warped")
    if values.dtype.kind == "f":
        valid &= np.isfinite(values)
    return list(zip(values, valid, strict=True))


@contextmanager
def _without_alpha(file: ImageFile) -> Iterator[Any]:
    """The dataset, as one without alpha bands where a band that is read as data is tagged so."""
    if not file.mistaken_alpha:
        yield file.dataset
        return
    with file.with_mask(), rasterio.open(_plain_vrt(file)) as plain:
        yield plain


def _plain_vrt(file: ImageFile) -> str:
    """A virtual image of the same bands, none of which is an alpha band, with the file's own mask."""
    dataset = file.dataset
    root = ET.Element("VRTDataset", rasterXSize=str(dataset.width), rasterYSize=str(dataset.height))
    ET.SubElement(root, "SRS").text = dataset.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(v) for v in dataset.transform.to_gdal())
    for index in dataset.indexes:
        name = _GDAL_TYPES[dataset.dtypes[index - 1]]
        band = ET.SubElement(root, "VRTRasterBand", dataType=name, band=str(index))
        ET.SubElement(band, "ColorInterp").text = "Undefined"
        if dataset.nodatavals[index - 1] is not None:
            ET.SubElement(band, "NoDataValue").text = repr(dataset.nodatavals[index - 1])
        _add_source(band, file, str(index))
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        _add_source(mask, file, "mask,1")
    return ET.tostring(root, encoding="unicode")


def _add_source(band: ET.Element, file: ImageFile, name: str) -> None:
    source = ET.SubElement(band, "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = file.path
    ET.SubElement(source, "SourceBand").text = name
