"""Images of any reference system, brought to a piece of the `utm` grid at constant ground size."""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from clay_publish.producer.imagery.raster import OpenBand, grid_of, open_bands, readers, session
from clay_publish.producer.imagery.remote import check_unchanged
from clay_publish.producer.sources.item import BandFile, SourceItem, ground_size

_TOLERANCE = 0.02
"""Pixels by which GDAL may approximate the warp; its own default is 0.125."""
_OPEN_ITEMS = 4

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
        """From pixels to metres."""
        return Affine(self.gsd, 0, self.west, 0, -self.gsd, self.north)


class Images:
    """Images kept open while neighbouring pieces are read from them, a few at a time."""

    def __init__(self, bands: tuple[str, ...], nodata: float | None, pool: Executor) -> None:
        self._bands, self._nodata, self._pool = bands, nodata, pool
        self._open: OrderedDict[tuple[str, bool], tuple[ExitStack, list[OpenBand]]] = OrderedDict()

    def bands(self, item: SourceItem) -> list[OpenBand]:
        """The bands of an image, in the order asked for.

        Raises:
            ImageryError: it cannot be opened, or is not what was planned.
        """
        if (item.id, False) not in self._open:
            check_unchanged(item)
        files = [next(f for f in item.bands if f.band == band) for band in self._bands]
        return self._get(item, files, mask=False)

    def mask(self, item: SourceItem) -> OpenBand | None:
        """The cloud mask of an image, where it has one.

        Raises:
            ImageryError: it cannot be opened.
        """
        return None if item.mask is None else self._get(item, [item.mask.file], mask=True)[0]

    def _get(self, item: SourceItem, files: list[BandFile], *, mask: bool) -> list[OpenBand]:
        key = (item.id, mask)
        if key not in self._open:
            if len(self._open) >= 2 * _OPEN_ITEMS:
                self._open.popitem(last=False)[1][0].close()
            with ExitStack() as stack:
                opened = stack.enter_context(open_bands(files, None if mask else self._nodata, item.etags))
                for band in opened:
                    grid_of(band)
                self._open[key] = (stack.pop_all(), opened)
        self._open.move_to_end(key)
        return self._open[key][1]

    def warp(self, bands: list[OpenBand], canvas: Canvas, resampling: Resampling) -> list[Layer]:
        """Each band on the canvas; a file is read by one thread at a time.

        Raises:
            ImageryError: an image is truncated or corrupt there.
        """
        files = list({id(band.file): None for band in bands})
        groups = [[n for n, band in enumerate(bands) if id(band.file) == file] for file in files]

        def read(group: list[int]) -> list[Layer]:
            return _warp_file([bands[n] for n in group], canvas, resampling)

        found: dict[int, Layer] = {}
        for group, layers in zip(groups, self._pool.map(read, groups), strict=True):
            found.update(zip(group, layers, strict=True))
        return [found[n] for n in range(len(bands))]

    def close(self) -> None:
        """Close everything."""
        while self._open:
            self._open.popitem()[1][0].close()


@contextmanager
def images(bands: tuple[str, ...], nodata: float | None, threads: int) -> Iterator[Images]:
    """Open images as they are asked for, and close them in the end."""
    with session(), readers(threads) as pool:
        opened = Images(bands, nodata, pool)
        try:
            yield opened
        finally:
            opened.close()


def _warp_file(bands: list[OpenBand], canvas: Canvas, resampling: Resampling) -> list[Layer]:
    first = bands[0]
    nodata = None if first.has_mask else first.nodata
    indexes = [band.index for band in bands]

    # Left to itself, GDAL takes the scale from the windows, and blurs where an image fills only a part of the canvas.
    grid = grid_of(first)
    scale = round(ground_size(grid, grid.height / 2) / canvas.gsd, 6)

    def read() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        with WarpedVRT(
            first.file.dataset,
            crs=f"EPSG:{canvas.epsg}",
            transform=canvas.transform,
            height=canvas.height,
            width=canvas.width,
            resampling=resampling,
            tolerance=_TOLERANCE,
            XSCALE=scale,
            YSCALE=scale,
            src_nodata=nodata,
            nodata=nodata,
            add_alpha=nodata is None and not first.file.alphas,
        ) as warped:
            if nodata is not None:
                values = warped.read(indexes)
                # What `read_masks` says as well, for the price of another warp.
                return values, ~np.isnan(values) if np.isnan(nodata) else values != nodata
            alpha = warped.read(first.file.alphas[0] if first.file.alphas else warped.count)
            return warped.read(indexes), np.broadcast_to(alpha, (len(indexes), *alpha.shape))

    values, masks = first.file.attempt(read, "warped")
    return list(zip(values, masks != 0, strict=True))
