"""Bytes of STAC documents, from a path or an address, with the patience a public catalog needs."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import fsspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from clay_publish.errors import MissingExtraError, SourceError
from clay_publish.storage.store import is_url

_LONGEST_PAUSE = 120.0
"""Seconds, whatever a server's `Retry-After` asks for."""


class _Patience(Retry):
    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, _LONGEST_PAUSE)


RETRY = _Patience(
    total=4,
    backoff_factor=0.5,
    backoff_max=30,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,  # a search is a POST and changes nothing
    raise_on_status=False,
)
"""Five tries in all. 403 and 404 are answers, not accidents."""

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two bytes."""

MAX_DOCUMENT = 256_000_000
_PIECE = 1 << 20
_IN_MEMORY = 64 << 20
"""Bytes of a remote file held in memory; a larger one goes to the disk."""


@functools.cache
def http() -> requests.Session:
    """One session for all documents, so that connections are kept."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=RETRY, pool_maxsize=16))
    return session


def read_document(where: str) -> bytes:
    """A whole document.

    Raises:
        SourceError: it cannot be read, or is larger than `MAX_DOCUMENT`.
        MissingExtraError: its kind of address needs a library that is not installed.
    """
    with open_source(where) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise SourceError(where, f"is larger than {MAX_DOCUMENT} bytes", "a STAC document, or stac-geoparquet")
    return data


@contextmanager
def open_source(where: str) -> Iterator[IO[bytes]]:
    """A file of STAC, seekable; one from a web server is fetched whole, since all of it will be read.

    Raises:
        SourceError: it cannot be read.
        MissingExtraError: its kind of address needs a library that is not installed.
    """
    try:
        if where.startswith(("http://", "https://")):
            with SpooledTemporaryFile(_IN_MEMORY) as file:
                _fetch(where, file)
                file.seek(0)
                yield file
        elif is_url(where):
            with fsspec.open(where, "rb") as file:
                yield file
        else:
            with Path(where.removeprefix("file://")).open("rb") as file:
                yield file
    except ImportError as error:
        extra = where.partition("://")[0]
        raise MissingExtraError(
            where, f"needs a library that is not installed ({error})", fix=f"pip install 'clay-publish[{extra}]'"
        ) from error
    except (OSError, requests.RequestException) as error:
        raise SourceError(where, f"cannot be read ({error or type(error).__name__})", "a file of STAC") from error


def _fetch(where: str, file: SpooledTemporaryFile[bytes]) -> None:
    with http().get(where, timeout=TIMEOUT, stream=True) as answer:
        if not answer.ok:
            raise SourceError(where, f"answers {answer.status_code} {answer.reason}", "a file of STAC")
        for piece in answer.iter_content(_PIECE):
            file.write(piece)
