"""Opening images safely and reading their bands, each byte once."""

import contextvars
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError  # what properties of a dataset raise
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import set_gdal_config
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import MemoryFile
from rasterio.windows import Window as Block

from clay_publish.errors import AccessError, ImageryError, StoreError
from clay_publish.geo.raster_grid import RasterGrid
from clay_publish.producer.imagery.parquet_cell import read_cell
from clay_publish.producer.imagery.remote import (
    IMAGE,
    RETRIES,
    TIFF,
    RemoteImage,
    SourceChangedError,
    is_final,
    public_name,
)
from clay_publish.producer.sources.item import BandFile
from clay_publish.producer.sources.major_tom import ParquetCell, address_of
from clay_publish.storage.http import ChangedError
from clay_publish.storage.retry import Budget, limits, retrying

GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_NUM_THREADS": 1,  # files are read in parallel instead
}
BLOCK_CACHE = 64 << 20
"""Bytes of decoded blocks that GDAL keeps, for the whole process: a warp reads around its edges."""
DRIVERS = ("GTiff", "JP2OpenJPEG")
MAX_PIXELS = 4_000_000_000
"""A claim beyond this is a bomb: the largest real scenes have a few hundred million."""
MAX_BLOCK_BYTES = 256 << 20
"""A block decodes whole; a larger one would not fit the memory that is promised."""

_OPENED_AT_ONCE = 64
"""Files; each waits for its server a few times."""
_FAILURES = (RasterioError, CPLE_BaseError, OSError, AccessError)
_CONTEXT = contextvars.copy_context()
"""rasterio keeps what its openers have open in variables that only the thread that imported it sees."""
T = TypeVar("T")


def session() -> rasterio.Env:
    """GDAL's settings for reading; they hold in the thread that enters them."""
    # No option of the environment: of two threads that enter one and then the other, the first to leave would give the
    # second what the first had found, a twentieth of the machine's memory.
    set_gdal_config("GDAL_CACHEMAX", BLOCK_CACHE)
    return rasterio.Env(**GDAL)


def readers(threads: int) -> ThreadPoolExecutor:
    """Threads that read, each with GDAL's settings."""
    return ThreadPoolExecutor(threads, thread_name_prefix="reader", initializer=lambda: session().__enter__())


@cache
def _openers() -> ThreadPoolExecutor:
    """Threads that open files, for all of this process: each loads PROJ's tables first, which takes 8 ms."""
    return readers(_OPENED_AT_ONCE)


os.register_at_fork(after_in_child=_openers.cache_clear)  # a forked process has none of its parent's threads


def image_address(file: BandFile) -> str:
    """A local file, or the address of a file on a server; never a virtual chain of GDAL or fsspec.

    Raises:
        ImageryError: the href is of another kind, or one that a remote catalog may not name.
    """
    href = file.href
    if href.startswith(("/vsicurl/http", "/vsis3/")):
        href = href.removeprefix("/vsicurl/").replace("/vsis3/", "s3://", 1)
    if _is_remote(href):
        return href
    path = address_of(href).removeprefix("file://")
    if "://" in path or path.startswith(("/vsi", "<")) or "\0" in path or re.match(r"[A-Za-z0-9_]{2,}:", path):
        raise ImageryError(_name(file), "has no address an image may have", "a local path, http(s):// or s3://")
    if file.origin is not None:
        raise ImageryError(_name(file), "is a local file, named by a remote catalog", "an http(s):// or s3:// address")
    if not os.path.isfile(path):  # noqa: PTH113 - the href may be no path at all
        found = "is not a regular file" if os.path.exists(path) else "does not exist"  # noqa: PTH110
        raise ImageryError(_name(file), found, "an image file")
    return href.removeprefix("file://")


def _is_remote(address: str) -> bool:
    return address.startswith(("http://", "https://", "s3://"))


class ImageFile:
    """One open file, reopened when a read from its server fails."""

    def __init__(self, file: BandFile, planned: Mapping[str, str], budget: Budget | None = None) -> None:
        self._file, self._path = file, image_address(file)
        self._planned, self._mask = planned.get(file.href), planned.get(file.external_mask.href)
        self.where = _name(file)
        """What messages call it; they are published, so no path and no signature is in it."""
        self.remote = _is_remote(self._path)
        self._cell = ParquetCell.parse(self._path)
        self._budget = budget or Budget(self.where, limits().item)
        self._served: RemoteImage | None = None
        self._memory: MemoryFile | None = None
        self._context, self._lock = _CONTEXT.copy(), Lock()  # after a failure, other reads may be under way still
        self.dataset: Any = None
        self._alphas: list[int] = []
        self.data: set[int] = set()
        """Indexes of the bands that are read as data."""
        self.has_external_mask = False
        """Whether a `.msk` lies beside it."""
        opened = self.attempt(lambda: self.dataset, "opened")
        if opened.width * opened.height > MAX_PIXELS:
            size = f"{opened.width} × {opened.height}"
            self.close()
            raise ImageryError(self.where, f"claims {size} pixels", f"at most {MAX_PIXELS}")

    def attempt(self, do: Callable[[], T], doing: str) -> T:
        """Do something with `dataset`; on a server's file a few times, if need be.

        Raises:
            ImageryError: it fails still. The message has the library's words, without the address.
        """

        def whole() -> T:
            try:
                if self.dataset is None:
                    self._open()
                done = do()
            except _FAILURES:
                self._check_served()
                raise
            self._check_served()
            return done

        def in_context() -> T:
            try:
                with self._lock:
                    return self._context.run(whole)
            except _FAILURES:
                if self.remote:
                    self.close()
                raise

        try:
            return retrying(self._may_pass, RETRIES)(in_context)
        except ChangedError as error:
            raise SourceChangedError(self.where, "changed after the run was planned", "the planned content") from error
        except (StoreError, AccessError) as error:
            raise ImageryError(self.where, f"cannot be {doing} ({self._words(error.found)})", error.expected) from error
        except _FAILURES as error:
            expected = "a GeoTIFF or JPEG 2000 image" if self.dataset is None else "a whole, undamaged image"
            raise ImageryError(
                self.where, f"cannot be {doing} ({self._words(str(error.__cause__ or error))})", expected
            ) from error

    @property
    def alphas(self) -> list[int]:
        """Indexes of its alpha bands, without those that are read as data."""
        return [index for index in self._alphas if index not in self.data]

    @property
    def path(self) -> str:
        """What GDAL opens."""
        return str(self.dataset.name) if self.remote or self._cell else self._path

    @property
    def mistaken_alpha(self) -> bool:
        """Whether GDAL would take a band that is read as data for an alpha band."""
        return len(self._alphas) > len(self.alphas)

    def _open(self) -> None:
        if self._cell is not None:
            self._memory = MemoryFile(read_cell(self._cell, self._file.origin, self._planned, self._budget))
            self.has_external_mask = False
        elif self.remote:
            self._served = RemoteImage(self._path, self._file.origin, self._planned, self._budget)
            if self._served.driver is None:
                raise RasterioIOError("not recognized as being in a supported file format")
            self._served.mask = None if self._mask is None else self._served_mask(self._mask)
            self.has_external_mask = self._served.mask is not None
        else:
            self.has_external_mask = _is_tiff(f"{self._path}.msk")
        with self.with_mask():
            if self._memory is not None:
                self.dataset = self._memory.open(driver="GTiff")
            elif self._served is not None:
                name = f"{uuid.uuid4().hex}/{IMAGE}"
                self.dataset = rasterio.open(name, driver=self._served.driver, opener=self._served)
            else:
                self.dataset = rasterio.DatasetReader(self._path, driver=list(DRIVERS))
            flags = self.dataset.mask_flag_enums  # found now or never
        if self.has_external_mask and MaskFlags.per_dataset not in flags[0]:
            raise RasterioIOError("its external mask is damaged")
        # Asked at once: after a read that failed, GDAL answers with that failure, were it another file's.
        kinds = enumerate(self.dataset.colorinterp, start=1)
        self._alphas = [index for index, kind in kinds if kind is ColorInterp.alpha]

    def with_mask(self) -> AbstractContextManager[Any]:
        """Where the file is opened: only with the names of the files beside it does GDAL see an external mask."""
        return rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE") if self.has_external_mask else nullcontext()

    def _served_mask(self, tag: str) -> RemoteImage | None:
        """The `.msk` beside a file on a server. One that no `tag` identifies may not be there, or be no mask.

        Never one of a format that may name other files, as a VRT does.
        """
        try:
            mask = RemoteImage(self._file.external_mask.href, self._file.origin, tag or None, self._budget)
        except AccessError as error:
            if not tag and is_final(error):
                return None
            raise
        if mask.driver != "GTiff" and tag:
            raise RasterioIOError("its external mask is not a TIFF")
        return mask if mask.driver == "GTiff" else None

    def _check_served(self) -> None:
        """GDAL does not say why a read failed, or that it did: the server's file does."""
        for served in (self._served, self._served and self._served.mask):
            if served is not None and served.error is not None:
                raise served.error

    def _may_pass(self, error: BaseException) -> bool:
        return self.remote and isinstance(error, _FAILURES) and not is_final(error)

    def _words(self, text: str) -> str:
        text = " ".join(text.split())
        host = urlsplit(self._path).hostname if self.remote else None
        for form in (self._path, self._file.href, *([host] if host else [])):
            text = text.replace(form, public_name(self._file.href))
        return text

    def close(self) -> None:
        """Close it; the next attempt opens it again."""
        with self._lock:
            if self.dataset is not None:
                self._context.run(self.dataset.close)
            if self._memory is not None:
                self._context.run(self._memory.close)
            self.dataset = self._served = self._memory = None


@dataclass
class OpenBand:
    """One band of an open file."""

    file: ImageFile
    index: int
    nodata: float | None
    has_mask: bool
    """Whether the file has a mask or alpha band for all of its bands."""
    zero_is_nodata: bool = False
    """Whether 0 is never a measurement."""

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.file.where

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.file.dataset.height)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.file.dataset.width)

    @property
    def block_rows(self) -> int:
        """Rows of a block: what is decoded together."""
        return int(self.file.dataset.block_shapes[self.index - 1][0])

    @property
    def block_columns(self) -> int:
        """Columns of a block."""
        return int(self.file.dataset.block_shapes[self.index - 1][1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw values."""
        dtype: np.dtype[Any] = np.dtype(self.file.dataset.dtypes[self.index - 1])
        return dtype

    def read(self, top: int, left: int, rows: int, columns: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Raw values and where they are data; both of shape [rows, columns].

        Raises:
            ImageryError: the file is truncated or corrupt there.
        """
        window = Block(left, top, columns, rows)
        place = f"read at rows {top} to {top + rows}, columns {left} to {left + columns}"
        return self._read(place, window=window)

    def read_overview(self, side: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]] | None:
        """The smallest overview of at least `side` rows and columns; None where there is none.

        Raises:
            ImageryError: the file is truncated or corrupt there.
        """
        for factor in sorted(self.file.dataset.overviews(self.index), reverse=True):
            shape = (-(-self.height // factor), -(-self.width // factor))
            if min(shape) >= side:
                return self._read(f"read as an overview of {shape[1]} × {shape[0]} pixels", out_shape=shape)
        return None

    def _read(self, place: str, **part: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        values = self.file.attempt(lambda: self.file.dataset.read(self.index, **part), place)
        if self.has_mask:
            valid = self.file.attempt(lambda: self.file.dataset.dataset_mask(**part), place) != 0
        else:
            valid = np.ones(values.shape, dtype=bool)
        if self.nodata is not None:
            valid &= values != self.nodata
        if self.zero_is_nodata:
            valid &= values != 0
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values)
        return values, valid

    @property
    def tags(self) -> tuple[float, float]:
        """Scale and offset that the file states; GDAL's default is 1 and 0."""
        dataset = self.file.dataset
        return float(dataset.scales[self.index - 1]), float(dataset.offsets[self.index - 1])


@contextmanager
def open_bands(
    files: Sequence[BandFile],
    nodata: float | None,
    planned: Mapping[str, str] | None = None,
    *,
    zero_is_nodata: bool = False,
) -> Iterator[list[OpenBand]]:
    """Open every band, each file once.

    Args:
        files: the bands to open.
        nodata: the sensor's nodata value, used where neither the file nor the item states one.
        planned: what identified the content of each href when the run was planned; beside an image on a server, a
            `.msk` is read only where this names it.
        zero_is_nodata: whether 0 is never a measurement of the sensor.

    Raises:
        SourceChangedError: a file is another one than planned.
        ImageryError: an href of a forbidden kind, a file that is missing, of another format, without georeference,
            with too few bands, or too large to be true.
    """
    with session(), ExitStack() as stack:
        opening: dict[str, Future[ImageFile]] = {}
        budget = Budget("the item's files", limits().item)
        for file in files:
            if file.href not in opening:
                opening[file.href] = _openers().submit(ImageFile, file, planned or {}, budget)
        wait(opening.values())
        for opened in opening.values():
            if opened.exception() is None:
                stack.callback(opened.result().close)
        for href, image in opening.items():
            # A band that is read as data is not an alpha band, whatever the file says: NAIP's NIR is often tagged so.
            mine = [file for file in files if file.href == href]
            if image.exception() is None:
                count = image.result().dataset.count
                whole = any(file.count == count for file in mine)
                image.result().data = set(range(1, count + 1)) if whole else {file.index or 1 for file in mine}
        bands = [_band(opening[file.href].result(), file, nodata) for file in files]
        for band, file in zip(bands, files, strict=True):
            band.zero_is_nodata = zero_is_nodata and file.band != "mask"
        yield bands


def _band(image: ImageFile, file: BandFile, nodata: float | None) -> OpenBand:
    dataset, index = image.dataset, file.index or 1
    if index > dataset.count:
        raise ImageryError(image.where, f"has {dataset.count} bands", f"band {index} to be {file.band}")
    if np.dtype(dataset.dtypes[index - 1]).kind not in "uif":
        raise ImageryError(image.where, f"has {dataset.dtypes[index - 1]} pixels", "integers or real numbers")
    rows, columns = dataset.block_shapes[index - 1]
    size = rows * columns * np.dtype(dataset.dtypes[index - 1]).itemsize
    if size > MAX_BLOCK_BYTES:
        raise ImageryError(
            image.where, f"has blocks of {size >> 20} MiB", f"at most {MAX_BLOCK_BYTES >> 20} MiB a block"
        )
    measured = dataset.count - len(image.alphas)
    if file.count is not None and file.count not in {measured, dataset.count}:
        raise ImageryError(image.where, f"has {dataset.count} bands", f"{file.count}, as its item says")
    if file.index is None and measured > 1 and file.band != "mask":
        raise ImageryError(image.where, f"has {dataset.count} bands", f"band {index} to be {file.band}")
    stated = dataset.nodatavals[index - 1]
    if stated is None:
        stated = file.nodata
    flags = dataset.mask_flag_enums[index - 1]
    has_mask = MaskFlags.per_dataset in flags and (MaskFlags.alpha not in flags or bool(image.alphas))
    if stated is None and not has_mask:
        stated = nodata
    if file.band == "mask":
        stated = None  # what its values mean is the mask's own business
    return OpenBand(image, index, stated, has_mask)


def _is_tiff(path: str) -> bool:
    if not os.path.isfile(path):  # noqa: PTH113 - it is text
        return False
    with open(path, "rb") as file:  # noqa: PTH123 - it is text
        return file.read(4) in TIFF


def _name(file: BandFile) -> str:
    return f"asset {file.asset} ({public_name(file.href)})"


def grid_of(band: OpenBand) -> RasterGrid:
    """The pixel grid of an open band.

    Raises:
        ImageryError: it has no reference system or no transform.
    """
    dataset = band.file.dataset
    if dataset.crs is None or dataset.transform.is_identity:
        points = len(dataset.gcps[0])
        hint = f"only {points} ground control points" if points else "no reference system or transform"
        raise ImageryError(band.where, f"has {hint}", "a georeferenced image")
    code = dataset.crs.to_epsg()
    crs = f"EPSG:{code}" if code is not None else dataset.crs.to_wkt()
    grid = RasterGrid(crs, dataset.height, dataset.width, tuple(dataset.transform)[:6])
    if not grid.is_on_earth:
        raise ImageryError(band.where, f"has corners that lie nowhere in {crs[:60]}", "a georeferenced image")
    return grid
