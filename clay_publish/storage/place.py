"""What a store needs of a place: a directory, a web server, S3 or the Hub. Paths are relative to it."""

import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import IO, Any, Protocol

from clay_publish.errors import StoreError
from clay_publish.storage.http import Head

TEMPORARY = ".tmp-"
"""How the name of an unfinished file begins."""


class Place(Protocol):
    """A tree of files. A file that is not there raises FileNotFoundError; files appear complete or not at all."""

    where: str
    """Its address, for messages."""
    lists: bool
    """Whether it can list its files."""

    def files(self, folder: str) -> Iterable[str]:
        """Paths of all files below a folder; of a directory and of S3, as they are listed."""
        ...

    def head(self, path: str) -> Head:
        """Size and tag of a file, None for what its server does not say; the tag changes with the bytes."""
        ...

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive) of a file; ChangedError where the answer has another tag than `tag`."""
        ...

    def whole(self, path: str, limit: int | None) -> bytes:
        """All bytes of a file, or at least the first `limit + 1`."""
        ...

    def writer(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open for writing; the file replaces what is there once the block ends without an error."""
        ...

    def read(self, path: str) -> tuple[bytes, str] | None:
        """Content and tag of a small file, or None. The tag changes with the bytes."""
        ...

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create a file, or replace the one with this tag. Return the new tag, None if it has changed."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""
        ...

    def remove_orphans(self, folder: str) -> list[str]:
        """Remove what killed writers left behind below a folder; their paths."""
        ...

    def check_conditions(self, folder: str) -> None:
        """Make sure that conditional writes work here, or raise a StoreError."""
        ...


class ReadOnly:
    """The writing half of a place that takes none."""

    where = ""

    def _refuse(self, *_: object) -> StoreError:
        return StoreError(
            self.where,
            "cannot be written to",
            "a directory or s3://",
            "Make the release there, and `publish` it.",
        )

    def writer(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Refused."""
        raise self._refuse(path)

    def read(self, path: str) -> tuple[bytes, str] | None:
        """Refused: tags are for writers."""
        raise self._refuse(path)

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Refused."""
        raise self._refuse(path, data, tag)

    def remove(self, path: str) -> None:
        """Refused."""
        raise self._refuse(path)

    def remove_orphans(self, folder: str) -> list[str]:
        """Refused."""
        raise self._refuse(folder)

    def check_conditions(self, folder: str) -> None:
        """Refused."""
        raise self._refuse(folder)


class RangeFile(io.RawIOBase):
    """Bytes behind a function that gives ranges of them."""

    def __init__(self, get: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._get, self._size, self._at = get, size, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; nothing is fetched."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from here on; fewer only at the end of the file."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        data = self._get(self._at, end)
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        """All bytes from here on."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
