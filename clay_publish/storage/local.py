"""Files in a directory: written beside their place, synchronized, renamed or linked."""

import errno
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from clay_publish.storage.place import TEMPORARY

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
"""What file systems answer that have no links; there, of two writers in the same instant the last wins."""


class Directory:
    """A `Place` on a disk, local or shared."""

    lists = True

    def __init__(self, root: str) -> None:
        self.where = os.path.abspath(root)  # noqa: PTH100 - keep links

    def path(self, path: str) -> Path:
        """Where a file is."""
        return Path(f"{self.where}/{path}" if path else self.where)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return self.path(path).stat().st_size

    def files(self, folder: str) -> list[str]:
        """Paths of ordinary files and of links; linked folders are not entered."""
        return [path[len(self.where) + 1 :] for path in _walk(str(self.path(folder)))]

    def part(self, path: str, start: int, end: int) -> bytes:
        """A range of a file."""
        with self.path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file, or its beginning."""
        with self.path(path).open("rb") as file:
            return file.read(-1 if limit is None else limit + 1)

    @contextmanager
    def unfinished(self, path: str) -> Iterator[Path]:
        """A name beside a file's place, gone when the block ends."""
        folder = self.path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file beside the place, which takes it at the end."""
        with self.unfinished(path) as temporary:
            with temporary.open("wb") as file:
                yield file
                _sync(file)
            temporary.replace(self.path(path))
        _sync_folder(self.path(path).parent)

    def create(self, path: str, pieces: Iterable[bytes]) -> bool:
        """Create a file, whole, by a link, which only the first can make; False where there is one."""
        with self.unfinished(path) as temporary:
            with temporary.open("wb") as file:
                file.writelines(pieces)
                _sync(file)
            return self.link(temporary, path)

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

        Of two that replace a file in the same instant, both may be told that they did, and the last did.
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

    def remove_orphans(self, older_than: float = 0.0) -> list[str]:
        """Remove the unfinished files of writers that were killed, if they were not touched for so many seconds."""
        now, removed = time.time(), []
        for orphan in sorted(Path(self.where).rglob(f"{TEMPORARY}*")):
            if not older_than or now - orphan.stat().st_mtime > older_than:
                orphan.unlink(missing_ok=True)
                removed.append(orphan.relative_to(self.where).as_posix())
        return removed

    def check_conditions(self, folder: str) -> None:
        """Nothing to find out: links and names are the operating system's."""


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
