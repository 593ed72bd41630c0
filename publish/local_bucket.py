"""A directory as the place: a disk, a mounted share, the document root of a web server."""

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clay_publish.errors import PublishError, StoreError
from clay_publish.publish.bucket import Sent, Stored
from clay_publish.publish.package import Package
from clay_publish.release.manifest import FileEntry
from clay_publish.storage.store import check_path

_PIECE = 1 << 22
_UNFINISHED = ".unfinished-"
_A_DAY = 86_400.0


class LocalBucket:
    """A `Bucket` on a file system that knows hard links."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.where = str(self._root)

    def listing(self, folder: str) -> dict[str, Stored]:
        """All files below a folder, keys relative to it."""
        base = self._root / folder
        files = (p for p in base.rglob("*") if p.is_file() and not p.name.startswith(_UNFINISHED))
        return {p.relative_to(base).as_posix(): Stored(p.stat().st_size, str(p.stat().st_mtime_ns)) for p in files}

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A document and its SHA-256."""
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace the document that has this SHA-256, or create it."""
        with self._alone():
            there = self.read(key)
            if (there[1] if there else None) != tag:
                return False
            with self._unfinished(key) as temporary:
                _put(temporary, iter([data]))
                temporary.replace(self._path(key))
            return True

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        """Copy one file; it appears whole, and only where there is none."""
        key = f"{folder}/{entry.path}"
        with self._unfinished(key) as temporary:
            _put(temporary, package.pieces(entry, _PIECE))
            created = _link(temporary, self._path(key))
        sent(entry.size)
        return created

    def copy(self, source: str, folder: str, entry: FileEntry) -> bool:
        """Link one file to another: the bytes of a published version never change."""
        target = self._path(f"{folder}/{entry.path}")
        with self._errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(self._path(source), target)
        return True

    def same(self, folder: str, package: Package | None, entry: FileEntry, stored: Stored, *, full: bool) -> bool:  # noqa: ARG002
        """Whether the file has these bytes; a disk has no checksum of its own, so it is always read."""
        digest = hashlib.sha256()
        with self._path(f"{folder}/{entry.path}").open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return stored.size == entry.size and digest.hexdigest() == entry.sha256

    def forget(self) -> None:
        """Remove what killed writers left behind, but not what another one is writing now."""
        for orphan in self._root.rglob(f"{_UNFINISHED}*"):
            if time.time() - orphan.stat().st_mtime > _A_DAY:
                orphan.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, key: str) -> Path:
        return self._root / check_path(key)

    @contextmanager
    def _errors(self, where: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise PublishError(where, f"cannot be written ({error.strerror or error})") from error

    @contextmanager
    def _unfinished(self, key: str) -> Iterator[Path]:
        folder = self._path(key).parent
        with self._errors(str(self._path(key))):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer of documents at a time; the lock lies on the folder and goes with the process."""
        with self._errors(self.where):
            self._root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _put(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True
