"""Files on servers: whether they may be read at all, what identifies their content, and how long to be patient."""

import functools
import hashlib
import importlib.util
import ipaddress
import os
import random
import re
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from clay_publish.errors import ImageryError
from clay_publish.producer.sources.http import TIMEOUT, http
from clay_publish.producer.sources.item import BandFile, SourceItem

_AT_ONCE = 8


class SourceChangedError(ImageryError):
    """A file is not the one that was there when the run was planned."""


def etags(item: SourceItem) -> Mapping[str, str]:
    """By href: size and time of local files, ETag or Last-Modified of files on web servers; no entry where unknown."""
    files = list({file.href: file for file in item.files}.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(files, pool.map(_etag, files), strict=True)
        return {file.href: tag for file, tag in found if tag is not None}


def digests(item: SourceItem) -> Mapping[str, str]:
    """By href: SHA-256 of local files, which identifies their content on any machine; no entry where unknown."""
    found = {}
    for file in item.files:
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
        SourceChangedError: one of them is another by now.
    """
    now = etags(item)
    for href, planned in item.etags.items():
        if href in now and now[href] != planned:
            raise SourceChangedError(
                f"item {item.id}, {public_name(href)}", "changed after the run was planned", "the planned content"
            )


def _etag(file: BandFile) -> str | None:
    if file.href.startswith(("http://", "https://")):
        try:
            return look(signed(file.href), file.origin).etag
        except ImageryError:
            return None  # opening it meets the same refusal, and records it
    path = _local_path(file)
    if path is None:
        return None
    status = os.stat(path)  # noqa: PTH116 - it is text
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _local_path(file: BandFile) -> str | None:
    path = file.href.removeprefix("file://")
    there = "://" not in path and file.origin is None and os.path.isfile(path)  # noqa: PTH113 - it may be no path
    return path if there and os.access(path, os.R_OK) else None


TRIES = 4
"""Times in all that a read is tried, a second apart, then two, then four."""

_MAX_REDIRECTS = 5
_FINAL = (401, 403, 404, 410)
"""Answers that another try does not change."""
_FINAL_WORDS = re.compile(r"response code:? ?(401|403|404|410)|NoSuchKey|NoSuchBucket|AccessDenied")

T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """A file on a server."""

    url: str
    """Where it really lies, after redirects."""
    etag: str | None
    """What identifies its content; None where the server does not say."""


def look(url: str, origin: str | None) -> Remote:
    """Ask for a file's headers, following redirects one by one.

    Args:
        url: http or https address.
        origin: address of the remote catalog that named it; None for a local one, which is trusted.

    Raises:
        ImageryError: it lies, or is redirected to, in a private network that is not the catalog's own host.
    """
    for _ in range(_MAX_REDIRECTS):
        check_host(url, origin)
        try:
            answer = http().head(url, timeout=TIMEOUT, allow_redirects=False)
        except requests.RequestException:
            return Remote(url, None)  # opening it says what is wrong
        if not answer.is_redirect:
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            return Remote(url, tag.strip('"') if answer.ok and tag else None)
        url = urljoin(url, answer.headers["Location"])
    raise ImageryError(_host(url), "redirects again and again", f"at most {_MAX_REDIRECTS} redirects")


def check_host(url: str, origin: str | None) -> None:
    """Refuse private addresses to a remote catalog, other than on its own host.

    Raises:
        ImageryError: the address is loopback, link-local (cloud metadata), private or reserved; or no http address.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ImageryError(_host(url), "is redirected to another kind of address", "http or https")
    if origin is None or _host(url) == _host(origin):
        return
    for address in _addresses(_host(url)):
        if not address.is_global:
            raise ImageryError(
                _host(url), f"is the private address {address}, named by a remote catalog", "a public server"
            )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


@functools.lru_cache(maxsize=1024)
def _addresses(host: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return ()  # a host without address cannot be reached either
    return tuple({ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found})


def signed(href: str) -> str:
    """An address with the signature that Planetary Computer's storage asks for, where its library is installed."""
    if ".blob.core.windows.net/" not in href or importlib.util.find_spec("planetary_computer") is None:
        return href
    import planetary_computer  # noqa: PLC0415 - optional

    return str(planetary_computer.sign_url(href))


@dataclass(frozen=True)
class Refusal:
    """An answer of a server that is no file."""

    words: str
    """Such as `404 Not Found`."""
    final: bool
    """Another try does not change it."""


def refusal(url: str) -> Refusal | None:
    """Ask for one byte; None where the server gives it, or nothing at all.

    GDAL does not say: whatever the answer, it calls the file not recognized.
    """
    try:
        with requests.get(url, headers={"Range": "bytes=0-0"}, timeout=TIMEOUT, stream=True) as answer:
            code = answer.status_code
            return None if answer.ok else Refusal(f"{code} {answer.reason}", code in _FINAL)
    except requests.RequestException:
        return None


def patiently(
    do: Callable[[], T],
    again: Callable[[], None],
    failures: tuple[type[Exception], ...],
    hopeless: Callable[[], bool],
) -> T:
    """Call `do`, a few times if need be, and `again` before each further try.

    Raises:
        the last failure; at once where it is hopeless, or the server's answer final.
    """
    for attempt in range(1, TRIES):
        try:
            return do()
        except failures as error:
            if _FINAL_WORDS.search(str(error.__cause__ or error)) or (attempt == 1 and hopeless()):
                raise
            time.sleep((2 ** (attempt - 1)) * random.uniform(0.5, 1.0))  # noqa: S311 - spreads workers out
            again()
    return do()


def public_name(href: str) -> str:
    """The last part of a path or address, without query: what may be published."""
    return href.partition("?")[0].rpartition("/")[2][:200]
