"""The stores of the child process: a directory is opened there, what lies elsewhere comes through the parent."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import pyarrow as pa

from clay_publish import errors
from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.release.directory import SPEC
from clay_publish.storage.place import RangeFile
from clay_publish.storage.store import OneFile, Store, check_path, is_url
from clay_publish.validate.outcomes import RefusedFileError, SkippedError
from clay_publish.validate.sandbox.marks import touch

if TYPE_CHECKING:  # the parent of a child process needs no context
    from clay_publish.validate.context import Recompute


def packed(error: ClayPublishError) -> list[Any]:
    """Return an error as JSON can say it: the names of its classes, and its parts."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return [names, error.where, error.found, error.expected, error.fix]


def unpacked(reply: list[Any]) -> ClayPublishError:
    """Return the error, of the nearest class of `clay_publish.errors`."""
    names, *parts = reply
    kind: type[ClayPublishError] = next(getattr(errors, name) for name in names if hasattr(errors, name))
    return kind(*parts)


class _Watched(Store):
    """A store that marks what is opened, and refuses the files that ended an earlier child process."""

    def __init__(self, where: str, refused: Mapping[str, str], prefix: str) -> None:
        super().__init__(where)
        self.refused, self.prefix = refused, prefix
        """Files that ended an earlier child, and what their marks begin with: empty for the release itself."""

    def _look(self, path: str) -> str:
        name = self.prefix + path
        touch(name)
        if name in self.refused:
            raise RefusedFileError(path, self.refused[name], "a file that can be read")
        return path

    def open(self, path: str) -> IO[bytes]:
        return super().open(self._look(path))

    def arrow(self, path: str) -> Any:
        return super().arrow(self._look(path))

    def mapped(self, path: str) -> pa.NativeFile:
        return super().mapped(self._look(path))

    def ranges(self, path: str) -> IO[bytes]:
        return super().ranges(self._look(path))

    def read(self, path: str, limit: int | None = None) -> bytes:
        return super().read(self._look(path), limit)

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:
        return super().part(self._look(path), start, end, tag)


class WatchedFolder(_Watched):
    """A directory."""


class WatchedFile(_Watched, OneFile):
    """A single file."""


class Parent:
    """The parent's end of this process's pipes."""

    def __init__(self, channels: list[tuple[Connection, Connection]]) -> None:
        self._idle: SimpleQueue[tuple[Connection, Connection]] = SimpleQueue()
        for channel in channels:
            self._idle.put(channel)

    def ask(self, what: str, *arguments: Any) -> Any:
        """Return the parent's answer: bytes, or what JSON can say.

        Raises:
            ClayPublishError: the parent could not read it.
        """
        channel = self._idle.get()
        try:
            channel[1].send_bytes(json.dumps([what, *arguments]).encode())
            answer = channel[0].recv_bytes()
        finally:
            self._idle.put(channel)
        if answer[:1] == b"b":
            return answer[1:]
        reply = json.loads(answer[1:])
        if answer[:1] == b"e":
            raise unpacked(reply)
        return reply


class ParentStore(_Watched):
    """A release on a server, read through the parent: this process has no network and no credentials."""

    def __init__(self, parent: Parent, number: int, where: str, refused: Mapping[str, str], prefix: str) -> None:
        self.where, self.local = where, False
        self.fetched = 0
        self.refused, self.prefix = refused, prefix
        self._parent, self._number = parent, number

    def _ask(self, what: str, *arguments: Any) -> Any:
        return self._parent.ask(what, self._number, *arguments)

    def path(self, path: str) -> str:
        """Return the address of a file, for messages."""
        return f"{self.where}/{check_path(path)}"

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """The parent remembers."""
        yield

    def exists(self, path: str) -> bool:
        """Return whether there is a file at this path."""
        return bool(self._ask("exists", path))

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        return int(self._ask("size", path))

    def each_file(self, prefix: str = "") -> Iterator[str]:
        """Return all files below a folder."""
        return iter(self._ask("files", prefix))

    def links(self) -> list[str]:
        """Return no links: only a directory has any."""
        return []

    def read(self, path: str, limit: int | None = None) -> bytes:
        """Read a whole file."""
        return bytes(self._ask("read", self._look(path), limit))

    def ranges(self, path: str) -> IO[bytes]:
        """Open for reading here and there: each read is one request to the parent."""
        self._look(path)
        get = RangeFile(lambda start, end: self._ask("range", path, start, end - start), self.size(path))
        return cast("IO[bytes]", get)

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:  # noqa: ARG002 - one of servers
        """Read some bytes of a file, in one request to the parent."""
        return bytes(self._ask("range", self._look(path), start, end - start))

    open = ranges

    def arrow(self, path: str) -> Any:
        """Open as an Arrow input."""
        return pa.PythonFile(self.ranges(path), mode="r")


class ParentFile(ParentStore, OneFile):
    """A single file on a server."""

    name: str


class Server:
    """The parent's side: reads for the child, from the stores of one validation only."""

    def __init__(
        self,
        stores: list[Store],
        open_previous: Callable[[str], Store],
        schema: Callable[[str], dict[str, Any]],
        recompute: "Recompute | None" = None,
    ) -> None:
        self._stores, self._open_previous, self._schema = stores, open_previous, schema
        self._recompute = recompute

    def answer(self, request: bytes, files: dict[tuple[int, str], IO[bytes]]) -> bytes:
        """Return the answer to a request; `files` are those that the channel has open."""
        what, *arguments = json.loads(request)
        return self._answer(files, what, arguments)

    def _answer(self, files: dict[tuple[int, str], IO[bytes]], what: str, arguments: list[Any]) -> bytes:
        try:
            found = self._read(files, what, arguments)
        except ClayPublishError as error:
            return b"e" + json.dumps(packed(error)).encode()
        return b"b" + found if isinstance(found, bytes) else b"j" + json.dumps(found).encode()

    def _read(self, files: dict[tuple[int, str], IO[bytes]], what: str, arguments: list[Any]) -> Any:
        if what == "schema":
            return self._schema(*arguments)
        if what == "recompute" and self._recompute is not None:
            most = 2 * self._recompute.chips  # chips, and as many gaps
            return dict(self._recompute.again([str(name) for name in arguments[0][:most]]))
        if what == "previous":
            store = self._open_previous(*arguments)
            self._stores.append(store)
            return describe(store, len(self._stores) - 1)
        number, *rest = arguments
        store = self._stores[number]
        if what == "range":
            path, start, count = rest
            if (number, path) not in files:
                for file in files.values():
                    file.close()
                files.clear()
                files[number, path] = store.ranges(path)
            file = files[number, path]
            file.seek(start)
            return file.read(count)
        if what not in {"exists", "size", "files", "read"}:
            raise ReleaseError(what, "is not a request")
        return getattr(store, what)(*rest)


def describe(store: Store, number: int) -> dict[str, Any]:
    """Return what the child needs to open a store itself, or to ask for its bytes."""
    return {"number": number, "where": store.where, "local": store.local, "name": getattr(store, "name", None)}


def neighbor(store: Store, named: str) -> str:
    """Return where the previous version lies, as a release names it: on the same server, or in the folder beside.

    Raises:
        ReleaseError: it is named somewhere else; a release does not decide where this program goes.
    """
    fix = "Name it with --previous."
    if is_url(named):
        mine, its = urlsplit(store.where), urlsplit(named)
        if store.local or (mine.scheme, mine.netloc) != (its.scheme, its.netloc):
            raise SkippedError(SPEC, f"names the previous version {named!r}, which lies elsewhere", fix=fix)
        return named
    name = Path(named).name
    if not store.local or name in {"", ".."}:
        raise SkippedError(SPEC, f"names the previous version {named!r} without its address", fix=fix)
    return str(Path(store.where).parent / name)
