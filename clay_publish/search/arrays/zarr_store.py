"""A Zarr store of a release, read wherever the release lies: through its store, with its limits and checks."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest

from clay_publish.errors import ReleaseError, StoreError
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


def open_array(release: Release, path: str) -> Any:
    """Open an array of a release for reading: a `zarr.Array`.

    Raises:
        ReleaseError: there is no readable array.
    """
    try:
        return zarr.open_array(ReleaseZarrStore(release, path), mode="r", zarr_format=3)
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(release, path, error) from error


def _unreadable(release: Release, path: str, error: Exception) -> ReleaseError:
    said = " ".join(str(error).split())[:200]
    return ReleaseError(release.store.path(path) if path else release.store.where, f"is not readable Zarr ({said})")


@dataclass(frozen=True)
class StoredGroup:
    """A group and the arrays in it."""

    attributes: dict[str, Any]
    arrays: dict[str, Any]
    """Name → `zarr.Array`."""


def open_group(release: Release, folder: str) -> StoredGroup:
    """Open a group of a release for reading.

    Raises:
        ReleaseError: there is no readable group.
    """
    try:
        group = zarr.open_group(ReleaseZarrStore(release, folder), mode="r", zarr_format=3)
        return StoredGroup(group.attrs.asdict(), dict(group.arrays()))
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(release, folder, error) from error
