"""Reading ranges of a file on a server, again where a request fails for a passing reason."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Self

import aiohttp

from clay_publish.errors import StoreError

TRIES = 4
_PAUSE = 0.2
"""Seconds before the second try; twice as long before each further one."""

NETWORK_ERRORS: tuple[type[Exception], ...] = (OSError, aiohttp.ClientError, TimeoutError)
with suppress(ImportError):
    from botocore.exceptions import BotoCoreError

    NETWORK_ERRORS = (*NETWORK_ERRORS, BotoCoreError)


class RangeFile:
    """A seekable file of fsspec, each read of which is one request."""

    def __init__(self, file: IO[bytes], where: str, count: Callable[[int], None]) -> None:
        self._file, self._where, self._count = file, where, count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on.

        Raises:
            StoreError: the server refuses, or fails again and again.
        """
        start = self._file.tell()
        for again in range(TRIES):
            try:
                data = self._file.read(size)
            except StoreError:
                raise
            except NETWORK_ERRORS as error:
                if again == TRIES - 1 or not _passing(error):
                    raise StoreError(self._where, f"cannot be read at byte {start} ({error})") from error
                self._file.seek(start)
                time.sleep(_PAUSE * 2**again * random.uniform(0.5, 1.5))  # noqa: S311 - so that clients don't march in step
            else:
                self._count(len(data))
                return data
        raise AssertionError

    def __getattr__(self, name: str) -> Any:
        """All else as the file itself: `seek`, `tell`, `close`, `closed`."""
        return getattr(self._file, name)


def _passing(error: Exception) -> bool:
    """Whether trying again may help: not after a refusal."""
    status = getattr(error, "status", None)
    return not isinstance(error, FileNotFoundError | PermissionError) and (
        status is None or status >= 500 or status == 429
    )
