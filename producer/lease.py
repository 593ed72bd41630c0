"""Who works on a release directory: one at a time, and nobody who has died."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clay_publish import release as paths
from clay_publish.errors import LockedError
from clay_publish.release import Release

LOCK = f"{paths.RUN}/lock"


@contextmanager
def lease(release: Release) -> Iterator[None]:
    """Hold the directory; the operating system gives it back when this process ends, however it ends.

    Raises:
        LockedError: another living process holds it; it is named.
    """
    path = Path(release.store.path(LOCK))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
            raise LockedError(
                release.store.where, f"is being worked on by {holder}", fix="Wait for it, or stop it and run again."
            ) from error
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now}))
        file.flush()
        yield
