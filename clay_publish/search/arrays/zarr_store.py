"""A Zarr store of a release, read wherever the release lies: through its store, with its limits and checks."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest

from clay_publish.errors import ClayPublishError, ReleaseError, StoreError
from clay_publish.release.array_store import EMBEDDINGS, SCALES
from clay_publish.release.directory import Release
from clay_publish.storage.http import Head

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

_REFUSED = "is read only"


class ReleaseZarrStore(Store):
    """The files below a folder of a release. Nothing can be written."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, release: Release, folder: str = "") -> None:
        super().__init__(read_only=True)
        self._release, self._folder = release, f"{folder}/" if folder else ""
        self._heads: dict[str, Head] = {}

    def __eq__(self, other: object) -> bool:
        mine = (self._release.store, self._folder)
        return isinstance(other, ReleaseZarrStore) and mine == (other._release.store, other._folder)

    def __hash__(self) -> int:
        return hash((self._release.store, self._folder))

    def __str__(self) -> str:
        return f"{self._release.store.where}/{self._folder}"

    def _read(self, key: str, asked: ByteRequest | None) -> bytes | None:
        path, store = self._folder + key, self._release.store
        try:
            if asked is None:
                return store.read(path)
            if path not in self._heads:  # of a shard, of which several ranges are read: all of the same bytes
                self._heads.setdefault(path, self._release.head(path))
            size, tag = self._heads[path].size or 0, self._heads[path].tag
            if isinstance(asked, RangeByteRequest):
                return store.part(path, asked.start, min(asked.end, size), tag)
            last = max(0, size - asked.suffix) if isinstance(asked, SuffixByteRequest) else asked.offset
            return store.part(path, last, size, tag)
        except StoreError as error:
            if error.found == "does not exist":
                return None
            raise

    async def get(
        self, key: str, prototype: "BufferPrototype | None" = None, byte_range: ByteRequest | None = None
    ) -> "Buffer | None":
        """The bytes of a file, or of a range of it; None where there is none."""
        kind = zarr.core.buffer.default_buffer_prototype() if prototype is None else prototype
        if self._release.store.local:
            data = self._read(key, byte_range)
        else:
            data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else kind.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: "BufferPrototype", key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> "list[Buffer | None]":
        """Several ranges."""
        return list(await asyncio.gather(*(self.get(key, prototype, asked) for key, asked in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is a file."""
        return await asyncio.to_thread(self._release.store.exists, self._folder + key)

    def _below(self, prefix: str) -> list[str]:
        found = self._release.files((self._folder + prefix).rstrip("/"))
        return [path[len(self._folder) :] for path in found]

    async def list(self) -> AsyncIterator[str]:
        """Every file."""
        for path in self._below(""):
            yield path

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The files below a folder."""
        for path in self._below(prefix):
            yield path

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of the files and folders in a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in sorted({path[len(folder) :].partition("/")[0] for path in self._below(prefix)}):
            yield name

    async def set(self, key: str, value: Any) -> None:  # noqa: ARG002 - of the interface
        """Refused."""
        raise StoreError(str(self), _REFUSED)

    async def delete(self, key: str) -> None:  # noqa: ARG002 - of the interface
        """Refused."""
        raise StoreError(str(self), _REFUSED)


_UNREADABLE = (KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What zarr and its codecs raise of damaged files."""


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Name the array or group that zarr cannot read.

    Raises:
        ReleaseError: it cannot.
    """
    try:
        yield
    except ClayPublishError:
        raise
    except _UNREADABLE as error:
        said = " ".join(str(error).split())[:200]
        raise ReleaseError(where, f"is not readable Zarr ({said})") from error


def open_array(release: Release, path: str, zarr_format: Literal[2, 3] = 3) -> Any:
    """Open an array of a release for reading: a `zarr.Array`.

    Raises:
        ReleaseError: there is no readable array.
    """
    with reading(release.store.path(path)):
        return zarr.open_array(ReleaseZarrStore(release, path), mode="r", zarr_format=zarr_format)


@dataclass(frozen=True)
class StoredGroup:
    """A group and the arrays in it."""

    where: str
    attributes: dict[str, Any]
    arrays: dict[str, Any]
    """Name → `zarr.Array`."""

    def embeddings(self) -> tuple[Any, Any | None]:
        """Return the embeddings and the scales of integers, None beside floats.

        Raises:
            ReleaseError: there are none, or integers without scales, or scales that do not belong to them.
        """
        stored, scales = self.arrays.get(EMBEDDINGS), self.arrays.get(SCALES)
        if stored is None or stored.ndim != 4:
            raise ReleaseError(self.where, f"has no array {EMBEDDINGS} of four axes", "time, y, x and band")
        integers = stored.dtype.kind in "iu"
        if integers and scales is None:
            raise ReleaseError(self.where, f"has no {SCALES} beside integers", "one scale per pixel")
        if scales is not None and not integers:
            raise ReleaseError(self.where, f"has {SCALES} beside {stored.dtype}", "integers, or no scales")
        if scales is not None and scales.shape != stored.shape[:3]:
            raise ReleaseError(self.where, f"has {SCALES} of shape {scales.shape}", f"{stored.shape[:3]}")
        return stored, scales


def open_group(release: Release, folder: str) -> StoredGroup:
    """Open a group of a release for reading.

    Raises:
        ReleaseError: there is no readable group.
    """
    where = release.store.path(folder)
    with reading(where):
        group = zarr.open_group(ReleaseZarrStore(release, folder), mode="r", zarr_format=3)
        return StoredGroup(where, group.attrs.asdict(), dict(group.arrays()))
