"""Where a release lies: one small door to directories, object stores, web servers and the Hub.

Nothing above this module knows which of them it is.
"""

import io
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, cast

import pyarrow as pa

from clay_publish.errors import ClayPublishError, StoreError, require_extra
from clay_publish.storage.http import WHOLE_FILES, Head
from clay_publish.storage.local import Directory
from clay_publish.storage.place import TEMPORARY, Place, RangeFile
from clay_publish.storage.web import HubFiles, Website

_SMALL = 1 << 20
_PIECE = 16 << 20
"""Bytes fetched in one request."""
_KEPT = 32_000_000
"""Bytes of documents that are remembered."""
_KNOWN = "a directory, http(s)://, s3:// or hf://"


def is_url(where: str) -> bool:
    """Whether this names something on a server rather than a local path."""
    return "://" in where and not where.startswith("file://")


def check_path(path: str) -> str:
    """Return a path inside a release, refused where it could lead out of it.

    Raises:
        StoreError: empty, absolute, with `.`, `..`, `//`, a backslash or a control character.
    """
    parts = path.split("/")
    bad = not path or any(p in {"", ".", ".."} for p in parts) or "\\" in path or ":" in parts[0]
    if bad or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise StoreError(repr(path), "is not a safe path", "a relative path below the release")
    return path


def is_safe(path: str) -> bool:
    """Whether a path stays inside a release."""
    try:
        check_path(path)
    except StoreError:
        return False
    return True


class Store:
    """A tree of files at `where`: a directory, or an `http(s)://`, `s3://` or `hf://` address.

    Paths are relative, with forward slashes. Files appear complete or not at all.
    """

    def __init__(self, where: str | os.PathLike[str], **options: Any) -> None:
        text = os.fspath(where)
        self._place = _place(text, options)
        self.local = isinstance(self._place, Directory)
        self.where = self._place.where
        """The place as a person would name it."""
        self.fetched = 0
        """Bytes that came from the server; 0 for a directory."""
        self._lock = Lock()
        self._kept: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Store({self.where!r})"

    def path(self, path: str) -> str:
        """The full path or address of a file, for messages and for readers that open it themselves."""
        return posixpath.join(self.where, check_path(path))

    def _checked(self, path: str) -> str:
        check_path(path)
        if self.local and not Path(self.where, path).resolve().is_relative_to(Path(self.where).resolve()):
            raise StoreError(path, "is a link that leads out of the release", "a file inside it")
        return path

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Inside the block, a server is asked once for each document and size. For reading only."""
        outer, self._kept = self._kept, None if self.local else {}
        self._room = _KEPT
        try:
            yield
        finally:
            self._kept = outer

    def _once(self, key: str, ask: Callable[[], Any]) -> Any:
        if self._kept is None:
            return ask()
        if key not in self._kept:
            self._kept[key] = ask()
        return self._kept[key]

    @contextmanager
    def _errors(self, path: str, doing: str) -> Iterator[None]:
        try:
            yield
        except ClayPublishError:
            raise
        except FileNotFoundError as error:
            raise StoreError(self._named(path), "does not exist") from error
        except OSError as error:
            raise StoreError(self._named(path), f"cannot be used {doing} ({error})") from error

    def _named(self, path: str) -> str:
        return self.path(path) if path else self.where

    def exists(self, path: str) -> bool:
        """Whether there is a file at this path.

        Raises:
            StoreError: the place does not say.
        """
        with self._errors(path, "to look for it"):
            return bool(self._once(f"exists {path}", lambda: self._is_file(self._checked(path))))

    def _is_file(self, path: str) -> bool:
        if self.local:
            return Path(self.where, path).is_file()
        try:
            self._place.head(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """The file's size in bytes.

        Raises:
            StoreError: missing, or its server does not tell.
        """
        with self._errors(path, "to tell its size"):
            size = self._once(f"size {path}", lambda: self._place.head(self._checked(path)).size)
        if size is None:
            raise StoreError(self.path(path), "the server does not state its size", *WHOLE_FILES)
        return int(size)

    def head(self, path: str) -> Head:
        """Size of a file, and a tag that changes with its bytes; None for what its place does not say.

        The tag is one for `part`, not for `put`, which takes the one of `read_tagged`.

        Raises:
            StoreError: missing.
        """
        with self._errors(path, "to look for it"):
            return self._place.head(self._checked(path))

    def files(self, prefix: str = "") -> list[str]:
        """All files below a folder, sorted, without unfinished ones. A web server cannot list: empty.

        Linked folders are not entered, and what is not an ordinary file (a pipe, a device) is left out.
        """
        return sorted(self.each_file(prefix))

    def each_file(self, prefix: str = "") -> Iterator[str]:
        """Return the same files in any order, as the place lists them: millions need not be in memory at a time."""
        folder = self._checked(prefix) if prefix else ""
        with self._errors(prefix, "to list it"):
            for path in self._place.files(folder):
                if not posixpath.basename(path).startswith(TEMPORARY):
                    yield path

    def links(self) -> list[str]:
        """Links to files and folders, sorted; only a directory has any."""
        if not self.local:
            return []
        found = [f"{base}/{name}" for base, folders, names in os.walk(self.where) for name in (*folders, *names)]
        return sorted(path[len(self.where) + 1 :] for path in found if os.path.islink(path))  # noqa: PTH114 - as above

    def open(self, path: str) -> IO[bytes]:
        """Open for reading, seekable, in binary; from a server in pieces of 1 MiB at least."""
        file = self.ranges(path)
        return file if self.local else cast("IO[bytes]", io.BufferedReader(cast("io.RawIOBase", file), _SMALL))

    def arrow(self, path: str) -> Any:
        """Open as an Arrow input: each range that is read is one call of the system, or one request.

        Not mapped: what is decoded is copied anyway, and taking a mapping's pages in costs more than reading them.
        """
        with self._errors(path, "for reading"):
            if self.local:
                return pa.OSFile(f"{self.where}/{self._checked(path)}")
            return pa.PythonFile(self.ranges(path), mode="r")

    def mapped(self, path: str) -> pa.NativeFile:
        """Open as a memory-mapped Arrow input; what lies on a server is fetched to a nameless file first.

        Small files are read: a process may not have as many mappings as a release has parts.
        """
        with self._errors(path, "for reading"), self.ranges(path) as source:
            data = source.read(_SMALL)
            if len(data) < _SMALL:
                return pa.BufferReader(data)
            if self.local:
                return pa.memory_map(f"{self.where}/{path}")
            with tempfile.NamedTemporaryFile() as file:
                while data:
                    file.write(data)
                    data = source.read(_PIECE)
                file.flush()
                return pa.memory_map(file.name)

    def ranges(self, path: str) -> IO[bytes]:
        """Open for reading here and there: on a server, each read is one request for just these bytes."""
        with self._errors(path, "for reading"):
            checked = self._checked(path)
            if self.local:
                return Path(self.where, checked).open("rb")
        return cast("IO[bytes]", RangeFile(lambda start, end: self.part(path, start, end), self.size(path)))

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:
        """Read bytes `start` to `end` (exclusive) of a file, on a server in one request.

        Raises:
            StoreError: missing, unreadable, or a server says that it no longer has the tag `tag`.
        """
        with self._errors(path, f"at byte {start}"):
            return self._counted(self._place.part(self._checked(path), start, end, tag))

    def _counted(self, data: bytes) -> bytes:
        if not self.local:
            with self._lock:
                self.fetched += len(data)
        return data

    def read(self, path: str, limit: int | None = None) -> bytes:
        """Read a whole file.

        Raises:
            StoreError: missing, unreadable, or larger than `limit` bytes.
        """
        if self._kept is not None and (kept := self._kept.get(f"data {path}")) is not None:
            return cast("bytes", kept)
        with self._errors(path, "for reading"):
            data = self._counted(self._place.whole(self._checked(path), limit))
        if limit is not None and len(data) > limit:
            raise StoreError(self.path(path), f"is larger than {limit} bytes", "a document of ordinary size")
        if self._kept is not None and self._room >= len(data):
            self._room -= len(data)
            self._kept[f"data {path}"] = data
        return data

    def write(self, path: str, data: bytes | str) -> None:
        """Write a whole file: it appears complete or not at all."""
        with self.writer(path) as file:
            file.write(data.encode() if isinstance(data, str) else data)

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """Open for writing. On success the file appears at once and whole; on an error it does not appear."""
        with self._errors(path, "for writing"), self._place.writer(self._checked(path)) as file:
            yield file

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none; False where there is one with other bytes.

        True also where just these bytes are there: that is how a put whose answer was lost looks.
        """
        return self.put(path, data, None) is not None

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create a small file, or replace the one with this tag. Return the new tag, None if it has changed."""
        with self._errors(path, "for writing"):
            return self._place.put(self._checked(path), data, tag)

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """A small file and its tag, which is another when the bytes are; None where there is none."""
        with self._errors(path, "for reading"):
            return self._place.read(self._checked(path))

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with self._errors(path, "for removal"):
            self._place.remove(self._checked(path))

    def remove_orphans(self, prefix: str = "") -> list[str]:
        """Remove the unfinished files and uploads that killed writers left behind below a folder; their paths."""
        folder = self._checked(prefix) if prefix else ""
        with self._errors(prefix, "to tidy it"):
            return self._place.remove_orphans(folder)

    def check_conditions(self, folder: str) -> None:
        """Make sure that files can be put here on a condition, which keeps two runs apart.

        Raises:
            StoreError: they cannot.
        """
        with self._errors(folder, "for writing"):
            self._place.check_conditions(self._checked(folder))


def _place(where: str, options: dict[str, Any]) -> Place:
    scheme = where.partition("://")[0].lower() if "://" in where else "file"
    if scheme == "file":
        return Directory(where.removeprefix("file://"))
    if scheme in {"http", "https"}:
        return Website(where)
    if scheme == "hf":
        return HubFiles(where, **options)
    if scheme != "s3":
        raise StoreError(
            where, f"is a {scheme}:// address, which is not supported", _KNOWN, "Copy the files to one of these."
        )
    require_extra("s3", where)
    from clay_publish.storage.s3 import Address, S3Client  # noqa: PLC0415
    from clay_publish.storage.s3_store import Objects  # noqa: PLC0415 - boto3 comes with an extra

    bucket, _, prefix = where.removeprefix("s3://").rstrip("/").partition("/")
    try:
        address = Address(bucket, prefix, where.rstrip("/"), **options)
    except TypeError as error:
        known = "anon, endpoint_url, key, secret and token"
        raise StoreError(where, f"cannot be opened with the options {', '.join(options)}", known) from error
    return Objects(S3Client(address))


class OneFile(Store):
    """A single file as a release: the tree that holds it, and of that tree nothing else."""

    def __init__(self, where: str) -> None:
        path, mark, query = where.partition("?") if is_url(where) else (where, "", "")
        folder, _, name = path.rpartition("/")
        self.name = name + mark + query
        super().__init__(folder or ("/" if path.startswith("/") else "."))

    def _checked(self, path: str) -> str:
        if path != self.name:
            raise StoreError(self.path(path), "does not exist")
        return super()._checked(path)

    def exists(self, path: str) -> bool:
        """Whether this is the file."""
        return path == self.name and super().exists(path)

    def each_file(self, prefix: str = "") -> Iterator[str]:
        """The file alone."""
        if not prefix and self.exists(self.name):
            yield self.name
