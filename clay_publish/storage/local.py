"""Files in a directory: written beside their place, synchronized, renamed or linked."""

import errno
import fcntl
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from clay_publish.storage.http import Head
from clay_publish.storage.place import TEMPORARY
from clay_publish.storage.unfinished import unfinished

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
"""What file systems answer that have no links; there, of two writers in the same instant the last wins."""
_ABANDONED = 86_400.0
"""Seconds after which an unfinished file is removed on file systems that have no locks."""


class Directory:
    """A `Place` on a disk, local or shared."""

    lists = True

    def __init__(self, root: str) -> None:
        self.where = os.path.abspath(root)  # noqa: PTH100 - keep links

    def path(self, path: str) -> Path:
        """Where a file is."""
        return Path(f"{self.where}/{path}" if path else self.where)

    def files(self, folder: str) -> Iterator[str]:
        """Paths of ordinary files and of links; linked folders are not entered."""
        return (path[len(self.where) + 1 :] for path in _walk(str(self.path(folder))))

    def head(self, path: str) -> Head:
        """Bytes of a file, which has no tag."""
        return Head(self.path(path).stat().st_size, None)

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:  # noqa: ARG002 - of servers
        """A range of a file."""
        with self.path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file, or its beginning."""
        with self.path(path).open("rb") as file:
            return file.read(-1 if limit is None else limit + 1)

    @contextmanager
    def _unfinished(self, path: str) -> Iterator[IO[bytes]]:
        """A file beside its place, locked while its writer lives, and removed when the block ends."""
        folder = self.path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            place = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
            remove = partial(place.unlink, missing_ok=True)
            with unfinished(remove), place.open("wb") as file:
                if _lock(file) is False or not os.fstat(file.fileno()).st_nlink:
                    continue  # removed as an orphan before it was locked
                try:
                    yield file
                finally:
                    remove()
                return

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file beside the place, which takes it at the end."""
        with self._unfinished(path) as file:
            yield file
            _sync(file)
            Path(file.name).replace(self.path(path))
        _sync_folder(self.path(path).parent)

    def create(self, path: str, pieces: Iterable[bytes]) -> bool:
        """Create a file, whole, by a link, which only the first can make; False where there is one."""
        with self._unfinished(path) as file:
            file.writelines(pieces)
            _sync(file)
            return self.link(Path(file.name), path)

    def link(self, source: Path, path: str) -> bool:
        """Give a file another name; False where that is taken."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError as error:
            if target.exists():
                return False
            if error.errno not in _NO_LINKS or not source.name.startswith(TEMPORARY):
                raise
            source.replace(target)
        return True

    def read(self, path: str) -> tuple[bytes, str] | None:
        """A small file and the SHA-256 of its bytes."""
        try:
            data = self.path(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create a file, or compare and rename.

        Of two writers that replace a file in the same instant, both may get a tag; the last one wins.
        """
        mine = hashlib.sha256(data).hexdigest()
        if tag is None and self.create(path, [data]):
            return mine
        there = self.read(path)
        if there is None or there[1] not in {tag, mine}:
            return None
        if there[1] != mine:
            with self.writer(path) as file:
                file.write(data)
        return mine

    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""
        self.path(path).unlink(missing_ok=True)

    def remove_orphans(self, folder: str = "") -> list[str]:
        """Remove the unfinished files of killed writers, and none that is being written."""
        removed = []
        for orphan in sorted(self.path(folder).rglob(f"{TEMPORARY}*")):
            with suppress(FileNotFoundError, PermissionError), orphan.open("r+b") as file:
                free = _lock(file)
                if free or (free is None and time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED):
                    orphan.unlink()
                    removed.append(orphan.relative_to(self.where).as_posix())
        return removed

    def check_conditions(self, folder: str) -> None:
        """Nothing to find out: links and names are the operating system's."""


def _walk(folder: str) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        for path in (f"{base}/{name}" for name in names):
            try:
                kind = os.stat(path).st_mode  # noqa: PTH116 - a link's end
            except OSError as error:
                if os.path.islink(path):  # noqa: PTH114
                    kind = stat.S_IFREG
                elif isinstance(error, FileNotFoundError):  # removed meanwhile, by another share
                    continue
                else:
                    raise
            if stat.S_ISREG(kind):
                yield path


def _lock(file: IO[bytes]) -> bool | None:
    """Lock a file until it is closed; False where another writer has it, None on file systems without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
