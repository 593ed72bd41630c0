"""Writing to a directory: beside the place, synchronised, renamed."""

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

from clay_publish.errors import StoreError

TEMPORARY = ".tmp-"
"""How the name of an unfinished file begins."""


class Writing(Protocol):
    """The writing half of a store. Paths are full ones; files appear complete or not at all."""

    def writer(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open for writing, in place of whatever is there once the block ends without an error."""
        ...

    def read(self, path: str) -> tuple[bytes, str] | None:
        """A small file and its tag, which is another when the bytes are; None where there is none."""
        ...

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create a file, or replace the one that has this tag; the new tag, None where it is another by now."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""
        ...

    def remove_orphans(self, root: str) -> list[str]:
        """Remove what killed writers left below a folder; their paths."""
        ...

    def check_conditions(self, folder: str) -> None:
        """Make sure that conditions are heeded here, or raise a StoreError."""
        ...


class Elsewhere:
    """Any other place of fsspec: whole files, and of conditions only that there be none yet."""

    def __init__(self, files: Any) -> None:
        self._fs = files

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """Sent when it is whole: fsspec has one transaction for all files that are open at a time."""
        with tempfile.NamedTemporaryFile() as file:
            yield cast("IO[bytes]", file)
            file.flush()
            self._fs.put_file(file.name, path)

    def read(self, path: str) -> tuple[bytes, str] | None:
        """A file without a tag worth the name."""
        return (self._fs.cat_file(path), "") if self._fs.isfile(path) else None

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create only.

        Raises:
            StoreError: a file was to be replaced on a condition.
        """
        if tag is not None:
            raise StoreError(path, "cannot be replaced on a condition", "a directory or s3://")
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return "" if self._fs.cat_file(path) == data else None
        return ""

    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""
        if self._fs.isfile(path):
            self._fs.rm_file(path)

    def remove_orphans(self, root: str) -> list[str]:  # noqa: ARG002 - nothing appears before it is whole
        """None."""
        return []

    def check_conditions(self, folder: str) -> None:
        """Refused.

        Raises:
            StoreError: always.
        """
        raise StoreError(
            folder,
            "is no place where runs can be kept apart",
            "a directory or s3://",
            "Make the release there, and `publish` it.",
        )


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
"""What file systems answer that have no links; there, of two writers in the same instant the last wins."""


class LocalWriter:
    """A `Writing` on a disk, local or shared."""

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file beside the place, which takes it at the end."""
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(Path(path).parent)

    def read(self, path: str) -> tuple[bytes, str] | None:
        """A small file and the hash of its bytes."""
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        return data, _tag(data)

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create a file by a link, which only the first can make, or compare and rename.

        Of two that replace a file in the same instant, both may be told that they did, and the last did.
        """
        if tag is not None:
            there = self.read(path)
            if there is None or there[1] not in {tag, _tag(data)}:
                return None
            with self.writer(path) as file:
                file.write(data)
            return _tag(data)
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except OSError as error:
            if Path(path).exists():
                return _tag(data) if Path(path).read_bytes() == data else None
            if error.errno not in _NO_LINKS:
                raise
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return _tag(data)

    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""
        Path(path).unlink(missing_ok=True)

    def remove_orphans(self, root: str) -> list[str]:
        """Remove the unfinished files of writers that were killed."""
        orphans = sorted(Path(root).rglob(f"{TEMPORARY}*"))
        for orphan in orphans:
            orphan.unlink(missing_ok=True)
        return [str(orphan) for orphan in orphans]

    def check_conditions(self, folder: str) -> None:
        """Nothing to find out: links and names are the operating system's."""


def _temporary(path: str) -> Path:
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{TEMPORARY}{uuid.uuid4().hex}"


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
