"""The one HTTP client: guarded addresses, bounded sizes, bounded waiting, one retry policy."""

import email.utils
import functools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from urllib3.exceptions import HTTPError, LocationValueError
from urllib3.util import Retry, Timeout

from clay_publish.errors import AccessError, StoreError
from clay_publish.storage.connections import CONNECT_SECONDS, ForbiddenAddressError, pool
from clay_publish.storage.retry import Budget, RetryPolicy, is_transient, limits, retrying

T = TypeVar("T")

_READ = 1 << 18
_REDIRECTS = Retry(total=None, connect=0, read=0, redirect=5, status=0, other=0, raise_on_status=False)
_PARTIAL = 206


WHOLE_FILES = (
    "answers to range requests (HTTP 206)",
    "Serve it from another server, or download it and name the directory.",
)
"""What is expected of a server, and what to do if it only sends whole files."""


class ServerError(AccessError):
    """A server answers with an error, or not at all."""

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "", *, status: int = 0) -> None:
        super().__init__(where, found, expected, fix)
        self.status = status
        """HTTP status; 0 where no answer arrived."""
        self.retry_after: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the status across processes."""
        return (functools.partial(type(self), status=self.status), (self.where, self.found, self.expected, self.fix))


class NoRangesError(AccessError):
    """A server sends whole files only."""


class ChangedError(StoreError):
    """A file is another one than it was when it was opened or planned."""


def _host_and_port(url: str) -> tuple[str, int]:
    """Where a request goes.

    Raises:
        ForbiddenAddressError: no http(s) address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
        if "@" in parts.netloc:
            raise ForbiddenAddressError(url, "has credentials in its address", "an address without credentials")
    except (ValueError, KeyError):
        host, port = None, 0
    if not host:
        raise ForbiddenAddressError(url[:200], "is not an address of a web server", "http:// or https://")
    return host, port


@dataclass(frozen=True)
class Head:
    """What a server says of a file."""

    size: int | None
    tag: str | None
    """ETag or Last-Modified: changes when the bytes change."""
    strong: bool = False
    """Whether the tag is that of these very bytes: not a date, and not an ETag of what is only equivalent (`W/`)."""


@dataclass(frozen=True)
class HttpClient:
    """Requests on behalf of the user or a document: its origin, retry policy and time limits."""

    origin: str | None = None
    """Address of the document that named what is fetched; None: the user did."""
    policy: RetryPolicy | None = None
    budget: Budget | None = None

    def head(self, url: str) -> Head:
        """Size and tag of a file.

        Raises:
            ServerError: the server does not answer, or with an error.
            ForbiddenAddressError: the address, or one it redirects to, is in a private network.
        """

        def ask() -> Head:
            with self._answer("HEAD", url) as answer:
                return _head(answer.headers, answer.headers.get("Content-Length", ""))

        return self._retried(ask)

    def read(
        self, url: str, limit: int, *, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A whole document, decompressed. Errors as `head`.

        Args:
            url: http or https address.
            limit: most bytes, before and after decompression.
            method: of a request that changes nothing, and so may be repeated.
            body: JSON of a POST.
            headers: of the request.

        Raises:
            StoreError: it is larger than `limit`.
        """

        def fetch() -> bytes:
            with self._answer(method, url, {"Accept-Encoding": "gzip", **(headers or {})}, body) as answer:
                return b"".join(decoded(answer, url, limit))

        return self._retried(fetch)

    def download(self, url: str, file: IO[bytes], limit: int) -> None:
        """Write a whole document to a file, decompressed. Errors as `read`."""

        def fetch() -> None:
            file.seek(0)
            file.truncate()
            with self._answer("GET", url, {"Accept-Encoding": "gzip"}) as answer:
                for piece in decoded(answer, url, limit):
                    file.write(piece)

        self._retried(fetch)

    def part(self, url: str, start: int, end: int, tag: str | None = None) -> tuple[bytes, Head]:
        """Bytes `start` to `end` (exclusive) of a file, never more, and its current size and tag. Errors as `head`.

        Raises:
            NoRangesError: the server sends whole files only, and `start` is not 0.
            ChangedError: the file no longer has the tag `tag`.
        """

        def fetch() -> tuple[bytes, Head]:
            headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
            with self._answer("GET", url, headers) as answer:
                found = _head_of_part(answer)
                if tag is not None and found.tag is not None and found.tag != tag:
                    raise ChangedError(url, f"changed while it was read (ETag {found.tag})", tag)
                if answer.status != _PARTIAL and start > 0:
                    raise NoRangesError(url, "the server sends whole files only", *WHOLE_FILES)
                return self._body(answer, end - start), found

        return self._retried(fetch)

    @contextmanager
    def _answer(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Iterator[Any]:
        """One request, whose answer is a success. A connection with bytes left is closed, else kept."""
        there = _host_and_port(url)
        named = self.origin is None or urlsplit(self.origin).hostname == there[0]
        try:
            answer = pool(there if named else None).request(
                method,
                url,
                headers=headers,
                **({} if body is None else {"json": body}),
                preload_content=False,
                retries=_REDIRECTS,
                timeout=Timeout(connect=CONNECT_SECONDS, read=limits().stall),
            )
            try:
                if answer.status >= 300:
                    raise _refused(url, answer)
                yield answer
            finally:
                if answer.length_remaining == 0:
                    answer.drain_conn()  # closes what reads from the connection, where the server ends it
                    answer.release_conn()
                else:
                    answer.close()
        except ForbiddenAddressError as error:
            says = "" if error.where == f"{there[0]}:{there[1]}" else f"redirects to http://{error.where}, which "
            where = url.partition("?")[0]
            raise ForbiddenAddressError(where, f"{says}{error.found}", error.expected) from error
        except LocationValueError as error:
            found = f"redirects to an unsupported kind of address ({error})"
            raise ForbiddenAddressError(url.partition("?")[0], found, "http:// or https://") from error
        except (HTTPError, TimeoutError) as error:
            fix = "HTTP proxies of the environment are not used." if getproxies() else ""
            raise ServerError(url, f"does not answer ({_reason(error)})", "", fix) from error

    def _body(self, answer: Any, most: int) -> bytes:
        data = bytearray()
        while len(data) < most and (piece := answer.read1(min(_READ, most - len(data)), decode_content=False)):
            data += piece
            if self.budget is not None:
                self.budget.check()
        return bytes(data)

    def _retried(self, work: Callable[[], T]) -> T:
        with self.budget.spending() if self.budget is not None else nullcontext():
            return retrying(passing, self.policy)(work)


def passing(error: BaseException) -> bool:
    """Whether the same request can succeed later."""
    return isinstance(error, ServerError) and (error.status == 0 or is_transient(error.status))


def decoded(answer: Any, where: str, limit: int) -> Iterator[bytes]:
    """The body of an answer of urllib3, piece by piece, gunzipped; at most `limit` bytes before and after.

    Raises:
        StoreError: it is larger, or no gzip although it says so.
    """
    kind = answer.headers.get("Content-Encoding", "identity").lower()
    if kind not in {"identity", "", "gzip", "x-gzip", "deflate"}:
        raise StoreError(where, f"is compressed as {kind}", "gzip, or no compression")
    unpack = zlib.decompressobj(47) if kind not in {"identity", ""} else None
    raw = made = 0
    while piece := answer.read1(_READ, decode_content=False):
        raw += len(piece)
        while piece:
            try:
                data = unpack.decompress(piece, _READ) if unpack else piece
            except zlib.error as error:
                raise StoreError(where, f"cannot be unpacked ({error})", "gzip, as the server says") from error
            made += len(data)
            if max(made, raw) > limit:
                raise StoreError(where, f"is larger than {limit} bytes", "a document of ordinary size")
            yield data
            piece = unpack.unconsumed_tail if unpack else b""
    if unpack is not None and raw:
        yield unpack.flush()
        if not unpack.eof or unpack.unused_data:
            raise StoreError(where, "does not end where its gzip ends", "one gzip stream, as the server says")


def _head_of_part(answer: Any) -> Head:
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return _head(answer.headers, total if answer.status == _PARTIAL else answer.headers.get("Content-Length", ""))


def _head(headers: Mapping[str, str], length: str) -> Head:
    etag = headers.get("ETag", "")
    tag = etag or headers.get("Last-Modified")
    return Head(
        int(length) if length.isdigit() else None,
        tag.removeprefix("W/").strip('"') if tag else None,
        strong=etag.startswith('"'),
    )


def _refused(url: str, answer: Any) -> ServerError:
    found = f"the server answers {answer.status} {answer.reason or ''}".rstrip()
    fix = "Use an address that may be read, or ask its owner for access." if answer.status in {401, 403} else ""
    fix = "Rerun the command later." if answer.status >= 500 else fix
    error = ServerError(url, found, fix=fix, status=answer.status)
    asked = answer.headers.get("Retry-After", "")
    if asked.isdigit():
        error.retry_after = float(asked)
    elif asked and (date := email.utils.parsedate_tz(asked)) is not None:
        error.retry_after = max(0.0, email.utils.mktime_tz(date) - time.time())
    return error


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None) or error
    return " ".join(str(cause).split())[:300] or type(cause).__name__
