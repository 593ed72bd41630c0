"""A place that versions are published to: what it has to be able to do, and a directory as one."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from clay_publish.errors import PublishError, StoreError
from clay_publish.publish.package import Package
from clay_publish.release.manifest import FileEntry
from clay_publish.storage.local import Directory
from clay_publish.storage.place import TEMPORARY
from clay_publish.storage.store import check_path

Sent = Callable[[int], None]
"""Receives the number of bytes that have arrived since the last call."""


@dataclass(frozen=True)
class Stored:
    """A file as the place lists it."""

    size: int
    tag: str
    """Changes when the bytes change."""
    written: datetime
    """When, by the clock of the place."""


class Bucket(Protocol):
    """A flat space of keys below one prefix, on a disk or a server. Keys are relative to the prefix."""

    where: str
    """Address of the prefix, for people."""

    def listing(self, folder: str) -> dict[str, Stored]:
        """All files below a folder, keys relative to it."""
        ...

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A document and its tag; None where there is none."""
        ...

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace the document that has this tag, or create it where `tag` is None; False if it has changed since."""
        ...

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> int | None:
        """Create one file, continuing an earlier attempt; the bytes sent for it, None where one is there already."""
        ...

    def copy(self, source: str, folder: str, entry: FileEntry) -> bool:
        """Create one file from another of this bucket without sending it; False where the place cannot."""
        ...

    def same(self, folder: str, package: Package | None, entry: FileEntry, stored: Stored, *, full: bool) -> bool:
        """Whether what is stored is this file: by the place's checksum where that proves it, else by reading it.

        Without `package`, the bytes that were sent are not at hand to compute the host's kind of checksum from.
        """
        ...

    def forget(self) -> None:
        """The version is complete: drop what was kept for going on."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


_PIECE = 1 << 22


class LocalBucket:
    """A `Bucket` on a file system that knows hard links."""

    def __init__(self, root: Path) -> None:
        self._files = Directory(str(root))
        self._root = Path(self._files.where)
        self.where = self._files.where

    def listing(self, folder: str) -> dict[str, Stored]:
        """All files below a folder, keys relative to it."""
        base = self._root / folder
        files = (p for p in base.rglob("*") if p.is_file() and not p.name.startswith(TEMPORARY))
        return {p.relative_to(base).as_posix(): _stored(p.stat()) for p in files}

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A document and its SHA-256."""
        return self._files.read(check_path(key))

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace the document that has this SHA-256, or create it."""
        with self._alone(), self._errors(key):
            there = self.read(key)
            if (there[1] if there else None) != tag:
                return False
            with self._files.writer(check_path(key)) as file:
                file.write(data)
            return True

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> int | None:
        """Copy one file; it appears whole, and only where there is none."""
        key = f"{folder}/{entry.path}"
        with self._errors(key):
            created = self._files.create(check_path(key), package.pieces(entry, _PIECE))
        sent(entry.size)
        return entry.size if created else None

    def copy(self, source: str, folder: str, entry: FileEntry) -> bool:
        """Link one file to another: the bytes of a published version never change."""
        key = f"{folder}/{entry.path}"
        with self._errors(key):
            self._files.link(self._root / check_path(source), check_path(key))
        return True

    def same(self, folder: str, package: Package | None, entry: FileEntry, stored: Stored, *, full: bool) -> bool:  # noqa: ARG002
        """Whether the file has these bytes; a disk has no checksum of its own, so it is always read."""
        digest = hashlib.sha256()
        with self._files.path(check_path(f"{folder}/{entry.path}")).open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return stored.size == entry.size and digest.hexdigest() == entry.sha256

    def forget(self) -> None:
        """Remove what killed writers left behind, but not what another one is writing now."""
        self._files.remove_orphans()

    def close(self) -> None:
        """Nothing is open."""

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            where = f"{self.where}/{key}" if key else self.where
            raise PublishError(where, f"cannot be written ({error.strerror or error})") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer of documents at a time; the lock lies on the folder and goes with the process."""
        with self._errors(""):
            self._root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _stored(found: os.stat_result) -> Stored:
    return Stored(found.st_size, str(found.st_mtime_ns), datetime.fromtimestamp(found.st_mtime, UTC))
