"""Opening images safely and reading their bands, each byte once."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as Block

from clay_publish.errors import ImageryError
from clay_publish.producer.items import BandFile, RasterGrid

GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_CACHEMAX": 64,  # read in order, a block is needed once
    "GDAL_NUM_THREADS": "1",  # bands are read in parallel instead
    "VSI_CACHE": "TRUE",
}
DRIVERS = ("GTiff", "JP2OpenJPEG")
MAX_PIXELS = 4_000_000_000
"""A claim beyond this is a bomb: the largest real scenes have a few hundred million."""
MAX_BLOCK_BYTES = 256 << 20
"""A block decodes whole; a larger one would not fit the memory that is promised."""

_ALLOWED = re.compile(r"https?://|s3://")


@contextmanager
def session() -> Iterator[None]:
    """GDAL's settings for reading, in this thread and those it starts."""
    with rasterio.Env(**GDAL):
        yield


def gdal_path(href: str) -> str:
    """What GDAL opens: a local path, or a file on a server; never a virtual chain.

    Raises:
        ImageryError: the href is of another kind.
    """
    if href.startswith("/vsicurl/http"):
        href = href.removeprefix("/vsicurl/")
    if href.startswith("/vsis3/"):
        href = "s3://" + href.removeprefix("/vsis3/")
    if _ALLOWED.match(href):
        return href.replace("s3://", "/vsis3/", 1) if href.startswith("s3://") else f"/vsicurl/{href}"
    path = href.removeprefix("file://")
    if "://" in path or path.startswith(("/vsi", "<")) or "\0" in path or re.match(r"[A-Za-z0-9_]{2,}:", path):
        raise ImageryError(public_name(href), "is no address an image may have", "a local path, http(s):// or s3://")
    if not os.path.isfile(path):  # noqa: PTH113 - the href may be no path at all
        raise ImageryError(public_name(path), "does not exist", "an image file")
    return path


@dataclass
class OpenBand:
    """One band of an open file, with its pixel grid."""

    dataset: Any
    index: int
    nodata: float | None
    per_dataset_mask: bool
    where: str
    """What messages call it; they are published, so no path and no signature is in it."""
    href: str

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.dataset.height)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.dataset.width)

    @property
    def block_rows(self) -> int:
        """Rows of a block: what is decoded together."""
        return int(self.dataset.block_shapes[self.index - 1][0])

    def read(self, top: int, left: int, rows: int, columns: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Raw values and where they are data; both of shape [rows, columns].

        Raises:
            ImageryError: the file is truncated or corrupt there.
        """
        window = Block(left, top, columns, rows)
        try:
            values = self.dataset.read(self.index, window=window)
            if self.per_dataset_mask:
                valid = self.dataset.dataset_mask(window=window) != 0
            else:
                valid = np.ones(values.shape, dtype=bool)
        except (RasterioError, OSError) as error:
            place = f"rows {top} to {top + rows}, columns {left} to {left + columns}"
            raise ImageryError(
                self.where, f"cannot be read at {place} ({cause(error, self.href)})", "a whole, undamaged image"
            ) from error
        if self.nodata is not None:
            valid &= values != self.nodata
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values)
        return values, valid


@contextmanager
def open_bands(files: Sequence[BandFile], nodata: float | None) -> Iterator[list[OpenBand]]:
    """Open every band, each file once.

    Args:
        files: the bands to open.
        nodata: the sensor's nodata value, used where neither the file nor the item states one.

    Raises:
        ImageryError: an href of a forbidden kind, a file that is missing, of another format, without georeference,
            with too few bands, or too large to be true.
    """
    with ExitStack() as stack:
        handles: dict[str, Any] = {}
        bands = []
        for file in files:
            if file.href not in handles:
                handles[file.href] = stack.enter_context(_open(file))
            bands.append(_band(handles[file.href], file, nodata))
        yield bands


def _open(file: BandFile) -> Any:
    where = _name(file)
    try:
        dataset = rasterio.DatasetReader(gdal_path(file.href), driver=list(DRIVERS))
    except (RasterioError, OSError) as error:
        raise ImageryError(
            where, f"cannot be opened ({cause(error, file.href)})", "a GeoTIFF or JPEG 2000 image"
        ) from error
    if dataset.width * dataset.height > MAX_PIXELS:
        size = f"{dataset.width} × {dataset.height}"
        dataset.close()
        raise ImageryError(where, f"claims {size} pixels", f"at most {MAX_PIXELS}")
    return dataset


def _band(dataset: Any, file: BandFile, nodata: float | None) -> OpenBand:
    where = _name(file)
    index = file.index or 1
    if index > dataset.count or (file.index is None and dataset.count > 1 and file.band != "mask"):
        raise ImageryError(where, f"has {dataset.count} bands", f"band {index} to be {file.band}")
    rows, columns = dataset.block_shapes[index - 1]
    size = rows * columns * np.dtype(dataset.dtypes[index - 1]).itemsize
    if size > MAX_BLOCK_BYTES:
        raise ImageryError(where, f"has blocks of {size >> 20} MiB", f"at most {MAX_BLOCK_BYTES >> 20} MiB a block")
    stated = dataset.nodatavals[index - 1]
    if stated is None:
        stated = file.nodata
    flags = dataset.mask_flag_enums[index - 1]
    has_mask = MaskFlags.per_dataset in flags
    if stated is None and not has_mask:
        stated = nodata
    return OpenBand(dataset, index, stated, has_mask, where, file.href)


def _name(file: BandFile) -> str:
    return f"asset {file.asset} ({public_name(file.href)})"


def public_name(href: str) -> str:
    """The last part of a path or address, without query: what may be published."""
    return href.partition("?")[0].rpartition("/")[2][:200]


def cause(error: BaseException, href: str) -> str:
    """What the library said, without the address."""
    text = " ".join(str(error.__cause__ or error).split())
    for form in (href, href.removeprefix("file://"), href.partition("://")[2]):
        text = text.replace(form, public_name(href)) if form else text
    return text


def grid_of(band: OpenBand) -> RasterGrid:
    """The pixel grid of an open band.

    Raises:
        ImageryError: it has no reference system or no transform, or is rotated or upside down.
    """
    dataset = band.dataset
    if dataset.crs is None or dataset.transform.is_identity:
        gcps = len(dataset.gcps[0])
        hint = f"only {gcps} ground control points" if gcps else "no reference system or transform"
        raise ImageryError(band.where, f"has {hint}", "a georeferenced image")
    code = dataset.crs.to_epsg()
    crs = f"EPSG:{code}" if code is not None else dataset.crs.to_wkt()
    return RasterGrid(crs, dataset.height, dataset.width, tuple(dataset.transform)[:6])
