"""How files of a release come to be: what the store asks of a place, and the places that are neither disk nor S3."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
