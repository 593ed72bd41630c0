"""A file on a server as a seekable Python file: each read is one request for just these bytes."""

import io
from collections.abc import Callable
from typing import Any


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
