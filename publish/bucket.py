"""What a place has to be able to do so that versions can be published there safely."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from clay_publish.publish.package import Package
from clay_publish.release.manifest import FileEntry

Sent = Callable[[int], None]
"""Told how many more bytes have arrived."""


@dataclass(frozen=True)
class Stored:
    """A file as the place lists it."""

    size: int
    tag: str
    """Changes when the bytes change."""


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
        """Replace the document that has this tag, or create it where `tag` is None; False: somebody was quicker."""
        ...

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        """Create one file, going on where an earlier attempt stopped; False where one is there already."""
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
