"""Who works on a release directory: one at a time, and nobody who has died."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from clay_publish import release as paths
from clay_publish.errors import LockedError, StoreError
from clay_publish.release import Release

LOCK = f"{paths.RUN}/lock"


@contextmanager
def lease(release: Release) -> Iterator[None]:
    """Hold the directory; the operating system gives it back when this process ends, however it ends.

    Raises:
        LockedError: another living process holds it; it is named.
        StoreError: nothing can be written there.
    """
    with _open(release) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "a process that has only just begun"
            raise LockedError(
                release.store.where, f"is being worked on by {holder}", fix="Wait for it, or stop it and run again."
            ) from error
        try:
            file.truncate(0)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
            file.flush()
        except OSError as error:
            raise _unusable(release, error) from error
        yield


def _open(release: Release) -> IO[str]:
    if not release.store.local:
        raise StoreError(
            release.store.where, "is no directory", "a local one", "Make the release there, and `publish` it."
        )
    path = Path(release.store.path(LOCK))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise _unusable(release, error) from error


def _unusable(release: Release, error: OSError) -> StoreError:
    return StoreError(release.store.where, f"cannot be written to ({error.strerror})", "a directory with room in it")
