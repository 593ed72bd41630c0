"""Whoever works on a release: what they hold is called, whom it keeps out, and how they are named to others."""

import os
import socket
from datetime import UTC, datetime
from typing import Protocol

from clay_publish.errors import LockedError
from clay_publish.producer.planning.share import Share
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release

LEASES = f"{paths.RUN}/leases"
_WHOLE = "whole"


class Lease(Protocol):
    """What a run holds while it works."""

    def check(self) -> None:
        """Go on only while it is held; to be asked before each unit.

        Raises:
            LockedError: this run gave no sign of life for so long that another took its place.
        """
        ...


def lease_path(share: Share | None) -> str:
    """The file that stands for a lease."""
    return f"{LEASES}/{_name(share)}"


def excludes(share: Share | None, path: str) -> bool:
    """Whether the lease at this path, of somebody else, cannot be held at the same time."""
    name = path.rpartition("/")[2]
    if share is None or name in {_WHOLE, _name(share)}:
        return True
    return not name.endswith(f"-of-{share.of}")


def this_process() -> str:
    """How a holder is named to others."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}"


def locked(release: Release, path: str, holder: str) -> LockedError:
    """What somebody is told who comes second."""
    name = path.rpartition("/")[2]
    where = release.store.where if name == _WHOLE else f"{release.store.where} (share {name.replace('-of-', '/')})"
    return LockedError(where, f"is being worked on by {holder}", fix="Wait for it, or stop it and run again.")


def _name(share: Share | None) -> str:
    return _WHOLE if share is None else f"{share.number}-of-{share.of}"
