"""Files on a web server: errors that say what happened, and redirects that stay out of the network behind our door."""

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import IO, Any, Self, cast

import aiohttp
from aiohttp.abc import ResolveResult
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from fsspec.spec import AbstractBufferedFile
from yarl import URL

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


WHOLE_FILES = (
    "answers to range requests (HTTP 206)",
    "Serve it from elsewhere, or download it and name the directory.",
)
"""What is expected of a server, and the way out where it only sends whole files."""

_GONE = {404, 410}
_PARTIAL = 206
_PIECE = 1 << 20


class NoRangesError(StoreError):
    """A server sends files as a whole only."""


class WebFiles(HTTPFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """As fsspec's, which calls every failure a missing file and takes as many bytes as a server sends."""

    def __init__(self, **options: Any) -> None:
        super().__init__(get_client=_guarded_client, **options)

    async def _info(self, url: str, **options: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await super()._info(url, **options)
        except FileNotFoundError as error:
            cause = error.__cause__
            if cause is None or getattr(cause, "status", None) in _GONE:
                raise
            raise cause from None
        return found

    def _open(self, path: str, mode: str = "rb", *, size: int | None = None, **options: Any) -> Any:
        size = self.info(path)["size"] if size is None else size
        if size is None:  # can only be read from its beginning to its end
            return super()._open(path, mode, **options)
        return _WebFile(self, path, mode, size=size, **options)

    async def part(self, path: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of a file, and never more.

        Raises:
            NoRangesError: the server only sends the whole.
        """
        options = {**self.kwargs, "headers": {**self.kwargs.get("headers", {}), "Range": f"bytes={start}-{end - 1}"}}
        session, data = await self.set_session(), bytearray()
        async with session.get(self.encode_url(path), **options) as answer:
            answer.raise_for_status()
            if answer.status != _PARTIAL and start > 0:
                raise NoRangesError(path, "comes from a server that sends whole files only", *WHOLE_FILES)
            while len(data) < end - start and (piece := await answer.content.read(_PIECE)):
                data += piece
        return bytes(data[: end - start])


class _WebFile(AbstractBufferedFile):  # type: ignore[misc]  # as above
    def _fetch_range(self, start: int, end: int) -> bytes:
        return cast("bytes", sync(self.fs.loop, self.fs.part, self.path, start, end))


class _Names(aiohttp.ThreadedResolver):
    """Names that were looked at before they were followed: a second answer to the same question does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.public: dict[tuple[str, int], list[ResolveResult]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return self.public.get((host, port)) or await super().resolve(host, port, family)

    async def are_public(self, host: str, port: int) -> bool:
        """Whether a name, or an address, is one of the open internet in all its meanings."""
        found = await super().resolve(host, port, socket.AF_UNSPEC)
        public = all(ipaddress.ip_address(each["host"].partition("%")[0]).is_global for each in found)
        if public and found:
            self.public[host, port] = found
        return public and bool(found)


async def _guarded_client(loop: asyncio.AbstractEventLoop, **options: Any) -> aiohttp.ClientSession:
    """A session that follows a redirect to its own server or to a public address, and to nowhere else."""
    names, trace = _Names(), aiohttp.TraceConfig()
    trace.on_request_redirect.append(partial(_check, names))
    options["connector"] = aiohttp.TCPConnector(loop=loop, resolver=names)
    return aiohttp.ClientSession(loop=loop, trace_configs=[trace], **options)


async def _check(
    names: _Names, _: aiohttp.ClientSession, __: SimpleNamespace, step: aiohttp.TraceRequestRedirectParams
) -> None:
    target = step.url.join(URL(step.response.headers.get("Location", "")))
    if target.origin() == step.url.origin():
        return
    expected = "a public address, or the same server"
    if target.scheme not in {"http", "https"} or target.host is None or target.port is None:
        raise StoreError(str(step.url), f"sends its readers to {target}", expected)
    try:
        public = await names.are_public(target.host, target.port)
    except OSError as error:
        raise StoreError(str(step.url), f"sends its readers to {target}, which cannot be found ({error})") from error
    if not public:
        raise StoreError(str(step.url), f"sends its readers to {target}", expected)
