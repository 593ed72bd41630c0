"""Images on servers: read by ranges through one client, and refused when they change meanwhile."""

import functools
import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Protocol, cast

from rasterio.abc import MultiByteRangeResourceContainer

from clay_publish.errors import AccessError, ClayPublishError, ImageryError, require_extra
from clay_publish.producer.sources.item import BandFile, SourceItem
from clay_publish.producer.sources.major_tom import address_of
from clay_publish.storage.connections import ForbiddenAddressError
from clay_publish.storage.http import WHOLE_FILES, ChangedError, Head, HttpClient, ServerError
from clay_publish.storage.place import RangeFile
from clay_publish.storage.retry import Budget, RetryPolicy, TooSlowError, is_transient

_AT_ONCE = 8
RETRIES = RetryPolicy(attempts=4, first=1.0)
"""Of reading an image: what fails is opened again."""
_ONCE = RetryPolicy(attempts=1)
_HEADER = 1 << 14
"""Bytes that are fetched when a file is opened, and of each piece that is read for a few bytes only."""
_PIECES = 64
_GAP = 1 << 14
"""Bytes between two ranges that are rather fetched than asked for apart."""


class SourceChangedError(ImageryError):
    """A file is not the one that was there when the run was planned."""


def etags(item: SourceItem, nodata: float | None) -> Mapping[str, str]:
    """By href: size and time of local files, ETag or Last-Modified of files on web servers; no entry where unknown.

    The `.msk` files that lie beside the images are among them, see `external_masks`.

    Args:
        item: the image.
        nodata: the sensor's nodata value.
    """
    return {**_each(item.files, _etag), **external_masks(item.bands, nodata)}


def external_masks(files: Sequence[BandFile], nodata: float | None) -> Mapping[str, str]:
    """By href: the `.msk` files beside images, in which GDAL keeps masks, with what identifies their content, or "".

    On a server each costs a request. The first image of an item is asked about; the others where that one has a mask,
    where the item names theirs, or where neither item nor sensor says which value is nodata.
    """
    files = [file for file in {file.href: file for file in files}.values() if address_of(file.href) == file.href]
    found = _each([file.external_mask for file in files[:1]], _mask_tag)
    rest = [
        file.external_mask
        for file in files[1:]
        if found or file.has_external_mask or not _is_served(file) or (file.nodata is None and nodata is None)
    ]
    return {**found, **_each(rest, _mask_tag)}


def known_masks(item: SourceItem, nodata: float | None) -> Mapping[str, str]:
    """The `.msk` files that were found when the run was planned; of an item that is not planned, those of now."""
    files, planned = item.bands, item.etags
    if not planned:
        return external_masks(files, nodata)
    masks = [file.external_mask.href for file in files]
    return {href: planned[href] for href in masks if href in planned}


def _each(files: Sequence[BandFile], ask: Callable[[BandFile], str | None]) -> dict[str, str]:
    asked = {address_of(file.href): file for file in files}  # values of one Parquet file share its tag
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(asked, pool.map(ask, asked.values()), strict=True))
    tags = {file.href: found[address_of(file.href)] for file in files}
    return {href: tag for href, tag in tags.items() if tag is not None}


def digests(item: SourceItem) -> Mapping[str, str]:
    """By href: SHA-256 of local files, which identifies their content on any machine; no entry where unknown."""
    found = {}
    images = [file for file in item.bands if address_of(file.href) == file.href]
    for file in (*item.files, *(file.external_mask for file in images)):
        path = _local_path(file)
        if path is not None:
            status = os.stat(path)  # noqa: PTH116 - it is text
            found[file.href] = _sha256(path, status.st_size, status.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=65_536)
def _sha256(path: str, size: int, changed: int) -> str:  # noqa: ARG001 - size and time tell contents apart
    with open(path, "rb") as file:  # noqa: PTH123 - it is text
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(item: SourceItem) -> None:
    """Make sure that the files are those of the plan.

    Raises:
        SourceChangedError: one of them has changed.
    """
    masks, planned = [file.external_mask for file in item.bands], item.etags
    now = _each([*item.files, *(mask for mask in masks if planned.get(mask.href))], _etag)
    for href, tag in planned.items():
        if href in now and now[href] != tag:
            raise SourceChangedError(
                f"item {item.id}, {public_name(href)}", "changed after the run was planned", "the planned content"
            )


def _etag(file: BandFile) -> str | None:
    address = address_of(file.href)
    if address.startswith(("http://", "https://")):
        try:
            return HttpClient(file.origin).head(signed(address)).tag
        except AccessError:
            return None  # opening it meets the same refusal, and records it
    path = _local_path(file)
    if path is None:
        return None
    status = os.stat(path)  # noqa: PTH116 - it is text
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _mask_tag(mask: BandFile) -> str | None:
    """What identifies a `.msk`; None where there is none, "" where a server does not say."""
    if not _is_served(mask):
        return _etag(mask)
    server, name = _server(mask.href, mask.origin, None)
    try:
        start, found = server.part(name, 0, 4)
    except AccessError as error:
        return None if is_final(error) else ""  # opening the image asks again
    return (found.tag or "") if start in TIFF else None  # some servers answer anything with a page


def _is_served(file: BandFile) -> bool:
    return file.href.startswith(("http://", "https://", "s3://"))


def _local_path(file: BandFile) -> str | None:
    path = address_of(file.href).removeprefix("file://")
    there = "://" not in path and file.origin is None and os.path.isfile(path)  # noqa: PTH113 - it may be no path
    return path if there and os.access(path, os.R_OK) else None


def signed(href: str) -> str:
    """An address with the signature that Planetary Computer's storage asks for, where its library is installed."""
    if ".blob.core.windows.net/" not in href or importlib.util.find_spec("planetary_computer") is None:
        return href
    import planetary_computer  # noqa: PLC0415 - optional

    return str(planetary_computer.sign_url(href))


class _RangeServer(Protocol):
    def part(self, name: str, start: int, end: int, tag: str | None = None) -> tuple[bytes, Head]:
        """Bytes of a file, and its current size and tag."""
        ...


def _server(address: str, origin: str | None, budget: Budget | None) -> tuple[_RangeServer, str]:
    """Who is asked for a file, and by which name."""
    if not address.startswith("s3://"):
        return HttpClient(origin, _ONCE, budget), signed(address)
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return _Bucket(_reader_of(bucket), budget), key


@dataclass(frozen=True)
class _Bucket:
    """A bucket, of which an item is read."""

    ask: Callable[..., tuple[bytes, Head]]
    budget: Budget | None

    def part(self, name: str, start: int, end: int, tag: str | None = None) -> tuple[bytes, Head]:
        return self.ask(name, start, end, tag, self.budget)


@functools.cache
def _reader_of(name: str) -> Callable[..., tuple[bytes, Head]]:
    require_extra("s3", f"s3://{name}")
    from clay_publish.storage.s3 import Address, S3Client  # noqa: PLC0415 - boto3 comes with an extra

    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in {"YES", "TRUE", "ON", "1"}
    return S3Client(Address(name, "", f"s3://{name}", anon=unsigned), _ONCE).part


def open_ranges(address: str, origin: str | None, planned: str | None, budget: Budget) -> tuple[IO[bytes], str]:
    """A local file, or one on a server of which each read is one request; and what identifies its content.

    Raises:
        AccessError: the server does not answer, or refuses.
        ChangedError: the file is another one than planned.
    """
    if "://" not in address:
        status = os.stat(address)  # noqa: PTH116 - it is text
        return open(address, "rb"), f"{status.st_size:x}-{status.st_mtime_ns:x}"  # noqa: PTH123 - as above
    server, name = _server(address, origin, budget)
    with budget.spending():
        _, found = server.part(name, 0, 1, planned)
    if found.size is None:
        raise ServerError(public_name(address), "the server does not state its size", *WHOLE_FILES)

    def part(start: int, end: int) -> bytes:
        with budget.spending():
            data = server.part(name, start, end, found.tag)[0]
        if len(data) != end - start:
            raise ServerError(public_name(address), f"sent {len(data)} bytes of {end - start}")
        return data

    return cast("IO[bytes]", RangeFile(part, found.size)), found.tag or str(found.size)


class RemoteImage(MultiByteRangeResourceContainer):  # type: ignore[misc]  # rasterio ships no types
    """A file on a server, for rasterio to open; nothing exists beside it but its mask.

    GDAL swallows what its callbacks raise. An error is kept in `error`, zeros stand for what was not read, and
    the caller of GDAL has to look.
    """

    def __init__(self, address: str, origin: str | None, planned: str | None, budget: Budget) -> None:
        self.error: ClayPublishError | None = None
        self.mask: RemoteImage | None = None
        """The `.msk` beside it."""
        self._server, self._name = _server(address, origin, budget)
        self._pieces: dict[int, bytes] = {}
        self._budget = budget
        self._start, found = self._ask(0, _HEADER, planned)
        self._tag, self._size = found.tag, found.size or len(self._start)

    @property
    def driver(self) -> str | None:
        """Of GDAL, by the first bytes; None for what is not an image of a kind that is read."""
        if self._start[:4] in TIFF:
            return "GTiff"
        return "JP2OpenJPEG" if self._start[4:8] == b"jP  " or self._start[:4] == b"\xff\x4f\xff\x51" else None

    def part(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`; zeros where reading fails, with the reason in `error`."""
        end = min(end, self._size)
        if self.error is not None or end <= start:
            return bytes(max(0, end - start))
        try:
            if end - start < _HEADER:
                return self._piecewise(start, end)
            begun = self._start[start:end]
            return begun + (self._fetch(start + len(begun), end) if start + len(begun) < end else b"")
        except ClayPublishError as error:
            self.error = error
            return bytes(end - start)

    def parts(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges; those that lie beside each other are fetched together."""
        runs: list[list[int]] = []
        for offset, size in sorted(zip(offsets, sizes, strict=True)):
            if runs and offset - runs[-1][1] <= _GAP:
                runs[-1][1] = max(runs[-1][1], offset + size)
            else:
                runs.append([offset, offset + size])
        fetched = [(start, self.part(start, end)) for start, end in runs]
        found = []
        for offset, size in zip(offsets, sizes, strict=True):
            start, data = next((start, data) for start, data in reversed(fetched) if start <= offset)
            found.append(data[offset - start : offset - start + size].ljust(size, b"\0"))
        return found

    def _piecewise(self, start: int, end: int) -> bytes:
        first = start // _HEADER * _HEADER
        data = b"".join(self._piece(at) for at in range(first, end, _HEADER))
        return data[start - first : end - first]

    def _piece(self, at: int) -> bytes:
        if at == 0:
            return self._start
        if at not in self._pieces:
            if len(self._pieces) >= _PIECES:
                self._pieces.pop(next(iter(self._pieces)))
            self._pieces[at] = self._fetch(at, min(at + _HEADER, self._size))
        return self._pieces[at]

    def _fetch(self, start: int, end: int) -> bytes:
        data = self._ask(start, end, self._tag)[0]
        if len(data) != end - start:
            raise ServerError(self._name, f"sent {len(data)} bytes of {end - start}")
        return data

    def _ask(self, start: int, end: int, tag: str | None) -> tuple[bytes, Head]:
        with self._budget.spending():
            return self._server.part(self._name, start, end, tag)

    def open(self, path: str, mode: str = "r", **_: object) -> "_Handle":  # noqa: ARG002 - rasterio's interface
        """A handle with a place of its own."""
        return _Handle(self._at(path))

    def isfile(self, path: str) -> bool:
        """Whether this is the image or its mask, and not one of the other files that GDAL looks for beside it."""
        return path.rpartition("/")[2] in self.ls(path)

    def isdir(self, path: str) -> bool:  # noqa: ARG002 - as above
        """Never."""
        return False

    def ls(self, path: str) -> list[str]:  # noqa: ARG002 - as above
        """The image, and its mask where it has one."""
        return [IMAGE] if self.mask is None else [IMAGE, _MASK]

    def mtime(self, path: str) -> int:  # noqa: ARG002 - as above
        """Unknown."""
        return 0

    def rm(self, path: str) -> None:
        """Refused."""
        raise PermissionError(path)

    def size(self, path: str) -> int:
        """Bytes of the image, or of its mask."""
        return self._at(path).length

    def _at(self, path: str) -> "RemoteImage":
        if not self.isfile(path):
            raise FileNotFoundError(path)
        return self.mask if self.mask is not None and path.endswith(_MASK) else self

    @property
    def length(self) -> int:
        """Bytes."""
        return self._size


IMAGE = "image"
"""What GDAL calls a file on a server."""
_MASK = f"{IMAGE}.msk"
TIFF = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})
"""The first bytes of TIFF and BigTIFF."""


class _Handle(RangeFile):
    """A file as rasterio's callbacks use it."""

    def __init__(self, image: RemoteImage) -> None:
        super().__init__(image.part, image.length)
        self._image = image

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges at once."""
        return self._image.parts(offsets, sizes)


def is_final(error: BaseException) -> bool:
    """Whether another try does not change it."""
    status = getattr(error, "status", 0)  # of a server of either kind
    refused = bool(status) and not is_transient(status)
    return refused or isinstance(error, ForbiddenAddressError | TooSlowError | ChangedError)


def public_name(href: str) -> str:
    """The last part of a path or address, without query: what may be published."""
    return href.partition("?")[0].rpartition("/")[2][:200]
