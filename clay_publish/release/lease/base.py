"""Leases: their names, which of them exclude each other, and how messages name a holder."""

import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, Self

from clay_publish.errors import LockedError, SpecError
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release

_WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, order=True)
class Share:
    """Number N of M workers that make a run together; `str()` gives `N/M`."""

    number: int
    """From 1."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise _wrong(f"{self.number}/{self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/4`.

        Raises:
            SpecError: not a share: the number must be from 1 to the number of shares.
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise _wrong(text)
        return cls(int(match[1]), int(match[2]))


def _wrong(text: str) -> SpecError:
    return SpecError("share", f"is {text!r}", "N/M with N from 1 to M, such as 2/4")


LEASES = f"{paths.RUN}/leases"
_WHOLE = "whole"


class Lease(Protocol):
    """What a run holds while it works."""

    def check(self) -> None:
        """Go on only while it is held; to be asked before each unit.

        Raises:
            LockedError: the lease was lost: another run took over after a timeout without a heartbeat.
        """
        ...


@dataclass(frozen=True)
class Holder:
    """Who was found to hold a lease, or to have held it until it ended without giving it back."""

    share: str | None
    """`2/4`; None: the whole run."""
    name: str
    """Process, machine and since when."""
    alive: bool
    """Whether it holds its lock, or its heartbeat is recent."""
    heartbeat: float | None = None
    """Age of its last heartbeat in seconds; None where the operating system answers for it."""


def share_of(path: str) -> str | None:
    """The share that a lease is of, `2/4`; None: the whole run."""
    name = path.rpartition("/")[2].removesuffix(".json")
    return None if name == _WHOLE else name.replace("-of-", "/")


def lease_path(share: Share | None) -> str:
    """The file that stands for a lease."""
    return f"{LEASES}/{_name(share)}"


def excludes(share: Share | None, path: str) -> bool:
    """Whether another process's lease at this path excludes this one."""
    name = path.rpartition("/")[2]
    if share is None or name in {_WHOLE, _name(share)}:
        return True
    return not name.endswith(f"-of-{share.of}")


def this_process() -> str:
    """How a holder is named to others."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}"


def locked(release: Release, path: str, holder: str) -> LockedError:
    """The error for a second process."""
    name = path.rpartition("/")[2]
    where = release.store.where if name == _WHOLE else f"{release.store.where} (share {name.replace('-of-', '/')})"
    return LockedError(where, f"is being worked on by {holder}", fix="Wait for it, or stop it and run again.")


def _name(share: Share | None) -> str:
    return _WHOLE if share is None else f"{share.number}-of-{share.of}"
