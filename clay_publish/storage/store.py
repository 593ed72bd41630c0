"""Where a release lies: one small door to directories, object stores, web servers and the Hub.

Nothing above this module knows which of them it is.
"""

import io
import os
import posixpath
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from clay_publish.errors import MissingExtraError, StoreError
from clay_publish.storage.http import NETWORK_ERRORS, WHOLE_FILES, RangeFile, WebFiles
from clay_publish.storage.local import TEMPORARY, Elsewhere, LocalWriter, Writing
from clay_publish.storage.s3 import OPTIONS, Objects

_SMALL = 1 << 20
_PIECE = 16 << 20
"""Bytes fetched in one request."""
_KEPT = 32_000_000
"""Bytes of documents that are remembered."""
_EXTRAS = {"s3": ("s3fs", "s3")}
_WEB = {"http", "https"}


def is_url(where: str) -> bool:
    """Whether this names something on a server rather than a local path."""
    return "://" in where and not where.startswith("file://")


def without_secrets(address: str) -> str:
    """An address as it may be published: no credentials, no signature, no fragment."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def check_path(path: str) -> str:
    """Return a path inside a release, refused where it could lead out of it.

    Raises:
        StoreError: empty, absolute, with `.`, `..`, `//`, a backslash or a control character.
    """
    parts = path.split("/")
    bad = not path or any(p in {"", ".", ".."} for p in parts) or "\\" in path or ":" in parts[0]
    if bad or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise StoreError(repr(path), "is no safe path", "a relative path below the release")
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
        scheme = text.partition("://")[0] if "://" in text else "file"
        try:
            if scheme == "s3":
                options = {**OPTIONS, **options}
            self._fs: Any
            if scheme in _WEB:
                self._fs, root = WebFiles(**options), text
            elif scheme == "file":  # not by fsspec's rules for addresses, of which `::` is a part
                self._fs, root = LocalFileSystem(), LocalFileSystem._strip_protocol(text)  # noqa: SLF001 - `~`, file://
            else:
                self._fs, root = fsspec.core.url_to_fs(text, **options)
        except ImportError as error:
            module, extra = _EXTRAS.get(scheme, (scheme, scheme))
            raise MissingExtraError(
                text, f"needs {module}, which is not installed", fix=f"pip install 'clay-publish[{extra}]'"
            ) from error
        except ValueError as error:
            raise StoreError(text, str(error), "a directory, http(s)://, s3:// or hf://") from error
        self.local = isinstance(self._fs, LocalFileSystem)
        self._root = os.path.abspath(root) if self.local else root.rstrip("/")  # noqa: PTH100 - keep links
        self.where = self._root if self.local else text.rstrip("/")
        """The place as a person would name it."""
        self.fetched = 0
        """Bytes that came from the server; 0 for a directory."""
        self._lists = not isinstance(self._fs, WebFiles)
        self._writing = self._way_to_write(scheme)
        self._lock = Lock()
        self._kept: dict[str, Any] | None = None

    def _way_to_write(self, scheme: str) -> Writing:
        if self.local:
            return LocalWriter()
        if scheme == "s3":
            return Objects(self._fs)
        return Elsewhere(self._fs)

    def __repr__(self) -> str:
        return f"Store({self.where!r})"

    def path(self, path: str) -> str:
        """The full path or address of a file, for messages and for readers that open it themselves."""
        return posixpath.join(self.where, check_path(path))

    def _full(self, path: str) -> str:
        full = posixpath.join(self._root, check_path(path))
        if self.local and not Path(full).resolve().is_relative_to(Path(self._root).resolve()):
            raise StoreError(path, "is a link that leads out of the release", "a file inside it")
        return full

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
        except StoreError:
            raise
        except FileNotFoundError as error:
            raise StoreError(self._named(path), "does not exist", fix=f"It was needed {doing}.") from error
        except NETWORK_ERRORS as error:
            raise StoreError(self._named(path), f"cannot be used {doing} ({error})") from error

    def _named(self, path: str) -> str:
        return self.path(path) if path else self.where

    def exists(self, path: str) -> bool:
        """Whether there is a file at this path.

        Raises:
            StoreError: the place does not say.
        """
        with self._errors(path, "to look for it"):
            return bool(self._once(f"exists {path}", lambda: self._is_file(self._full(path))))

    def _is_file(self, full: str) -> bool:
        # fsspec's own isfile takes every failure for a no.
        try:
            return Path(full).is_file() if self.local else self._fs.info(full)["type"] == "file"
        except FileNotFoundError:
            return False

    def size(self, path: str) -> int:
        """The file's size in bytes.

        Raises:
            StoreError: missing, or its server does not tell.
        """
        with self._errors(path, "to tell its size"):
            size = self._once(f"size {path}", lambda: self._fs.size(self._full(path)))
        if size is None:
            raise StoreError(self.path(path), "comes from a server that does not tell its size", *WHOLE_FILES)
        return int(size)

    def files(self, prefix: str = "") -> list[str]:
        """All files below a folder, sorted, without unfinished ones. A web server cannot list: empty.

        Linked folders are not entered, and what is no ordinary file (a pipe, a device) is left out.
        """
        base = self._full(prefix) if prefix else self._root
        if not self._lists:
            return []
        with self._errors(prefix, "to list it"):
            if not self._fs.exists(base):
                return []
            found = _walk(base) if self.local else self._fs.find(base)
        start = len(self._root) + 1
        paths = (p[start:] for p in found)
        return sorted(p for p in paths if not posixpath.basename(p).startswith(TEMPORARY))

    def links(self) -> list[str]:
        """Links to files and folders, sorted; only a directory has any."""
        if not self.local:
            return []
        found = [f"{base}/{name}" for base, folders, names in os.walk(self._root) for name in (*folders, *names)]
        return sorted(path[len(self._root) + 1 :] for path in found if os.path.islink(path))  # noqa: PTH114 - as above

    def open(self, path: str) -> IO[bytes]:
        """Open for reading, seekable, in binary."""
        with self._errors(path, "for reading"):
            full = self._full(path)
            return Path(full).open("rb") if self.local else self._remote(path, self._fs.open(full, "rb"))

    def arrow(self, path: str) -> Any:
        """Open as an Arrow input: each range that is read is one call of the system, or one request.

        Not mapped: what is decoded is copied anyway, and taking a mapping's pages in costs more than reading them.
        """
        with self._errors(path, "for reading"):
            full = self._full(path)
            if self.local:
                return pa.OSFile(full)
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
                return pa.memory_map(self._full(path))
            with tempfile.NamedTemporaryFile() as file:
                while data:
                    file.write(data)
                    data = source.read(_PIECE)
                file.flush()
                return pa.memory_map(file.name)

    def ranges(self, path: str) -> IO[bytes]:
        """Open for reading here and there: on a server, each read is one request for just these bytes."""
        with self._errors(path, "for reading"):
            full = self._full(path)
            if self.local:
                return Path(full).open("rb")
            size = self.size(path)
            if not size:
                return io.BytesIO()
            known = {} if self._lists else {"size": size}
            return self._remote(path, self._fs.open(full, "rb", cache_type="none", **known))

    def _remote(self, path: str, file: IO[bytes]) -> IO[bytes]:
        return cast("IO[bytes]", RangeFile(file, self.path(path), self._count))

    def _count(self, size: int) -> None:
        with self._lock:
            self.fetched += size

    def read(self, path: str, limit: int | None = None) -> bytes:
        """Read a whole file.

        Raises:
            StoreError: missing, unreadable, or larger than `limit` bytes.
        """
        if self._kept is not None and (kept := self._kept.get(f"data {path}")) is not None:
            return cast("bytes", kept)
        with self._errors(path, "for reading"), self.open(path) as file:
            data = file.read() if limit is None else _up_to(file, limit + 1)
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
        with self._errors(path, "for writing"), self._writing.writer(self._full(path)) as file:
            yield file

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none; False where there is one with other bytes.

        True also where just these bytes are there: that is how a put whose answer was lost looks.
        """
        return self.put(path, data, None) is not None

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create a small file, or replace the one that has this tag; its new tag, None where it is another by now."""
        with self._errors(path, "for writing"):
            return self._writing.put(self._full(path), data, tag)

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """A small file and its tag, which is another when the bytes are; None where there is none."""
        with self._errors(path, "for reading"):
            return self._writing.read(self._full(path))

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with self._errors(path, "for removal"):
            self._writing.remove(self._full(path))

    def remove_orphans(self) -> list[str]:
        """Remove the unfinished files and uploads that killed writers left behind; their paths."""
        with self._errors("", "to tidy it"):
            found = self._writing.remove_orphans(self._root)
        return [path[len(self._root) + 1 :] for path in found]

    def check_conditions(self, folder: str) -> None:
        """Make sure that files can be put here on a condition, which keeps two runs apart.

        Raises:
            StoreError: they cannot.
        """
        with self._errors(folder, "for writing"):
            self._writing.check_conditions(self._full(folder))


def _up_to(file: IO[bytes], most: int) -> bytes:
    data = b""
    while len(data) < most and (piece := file.read(most - len(data))):
        data += piece
    return data


def _walk(folder: str) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        for path in (f"{base}/{name}" for name in names):
            try:
                kind = os.stat(path).st_mode  # noqa: PTH116 - a link's end
            except OSError:
                if not os.path.islink(path):  # noqa: PTH114 - removed meanwhile, by another share
                    continue
                kind = stat.S_IFREG
            if stat.S_ISREG(kind):
                yield path


class OneFile(Store):
    """A single file as a release: the tree that holds it, and of that tree nothing else."""

    def __init__(self, where: str) -> None:
        folder, _, self.name = where.rpartition("/")
        super().__init__(folder or ".")

    def exists(self, path: str) -> bool:
        """Whether this is the file."""
        return path == self.name and super().exists(path)

    def files(self, prefix: str = "") -> list[str]:
        """The file alone."""
        return [self.name] if not prefix and self.exists(self.name) else []
