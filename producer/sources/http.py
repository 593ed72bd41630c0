"""Documents of STAC, from a path or an address, in bounded memory and time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast
from urllib.parse import urlsplit

from clay_publish.errors import AccessError, MissingExtraError, SourceError, StoreError
from clay_publish.producer.sources.stac_item import local_path
from clay_publish.storage.http import Client
from clay_publish.storage.store import Store

MAX_DOCUMENT = 256_000_000
MAX_TABLE = 8_000_000_000
"""Bytes of a stac-geoparquet file: 100 million items."""
_IN_MEMORY = 64 << 20
"""Bytes of a remote file held in memory; a larger one goes to the disk."""


def read_document(where: str, origin: str | None = None) -> bytes:
    """A whole document. Arguments and errors as `open_source`.

    Raises:
        SourceError: it is larger than `MAX_DOCUMENT`.
    """
    with open_source(where, origin, MAX_DOCUMENT) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise SourceError(where, f"is larger than {MAX_DOCUMENT} bytes", "a STAC document, or stac-geoparquet")
    return data


@contextmanager
def open_source(where: str, origin: str | None = None, limit: int = MAX_TABLE) -> Iterator[IO[bytes]]:
    """A file of STAC, seekable; one from a web server is fetched whole, since all of it will be read.

    Args:
        where: path or address.
        origin: address of the remote document that named it, which may not name local files or private servers.
        limit: most bytes that are fetched.

    Raises:
        SourceError: it cannot be read, or may not be.
        MissingExtraError: its kind of address needs a library that is not installed.
    """
    try:
        scheme = urlsplit(where).scheme.lower()
        if scheme in {"http", "https"}:
            with SpooledTemporaryFile(_IN_MEMORY) as file:
                Client(origin).download(where, cast("IO[bytes]", file), limit)
                file.seek(0)
                yield cast("IO[bytes]", file)
        elif "://" in where and scheme != "file":
            folder, _, name = where.rpartition("/")
            with Store(folder).ranges(name) as remote:
                yield remote
        else:
            with _local(where, origin).open("rb") as local:
                yield local
    except MissingExtraError:
        raise
    except (StoreError, AccessError) as error:
        raise SourceError(where, f"cannot be read ({error.found})", error.expected or "a file of STAC") from error
    except OSError as error:
        raise SourceError(where, f"cannot be read ({error})", "a file of STAC") from error


def _local(where: str, origin: str | None) -> Path:
    path = Path(local_path(where))
    if origin is not None:
        raise SourceError(where, f"is a local file, named by the remote document {origin}", "an http(s):// address")
    if path.exists() and not path.is_file():
        raise SourceError(where, "is no regular file", "a file of STAC")
    return path
