"""Leases in a directory: locks of the operating system, which gives them back when a process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from clay_publish.errors import LockedError, StoreError
from clay_publish.release.directory import Release
from clay_publish.release.lease.base import (
    LEASES,
    Holder,
    Lease,
    Share,
    excludes,
    lease_path,
    locked,
    share_of,
    this_process,
)
from clay_publish.storage.retry import RetryPolicy, retrying

_RETRIES = RetryPolicy(attempts=6, first=0.02, longest=0.04)
"""Reading the status of a release holds each lock for an instant."""


class _Held:
    def check(self) -> None:
        """The operating system takes no lock away."""


@contextmanager
def hold_directory(release: Release, share: Share | None) -> Iterator[Lease]:
    """Lock the lease, then see that none is locked which it keeps out: of two that do so at once, none or one remains.

    Raises:
        LockedError: another living process holds it, or one that it keeps out.
        StoreError: nothing can be written there.
    """
    with ExitStack() as stack:
        mine = lease_path(share)
        made = _missing_folders(release, mine)
        stack.callback(_remove_empty, made)
        retry = retrying(lambda error: isinstance(error, LockedError), _RETRIES)
        file = retry(lambda: _take(release, mine, stack))
        if made:
            stack.callback(_remove_alone, release, mine)
        stack.callback(file.truncate, 0)
        try:
            file.truncate(0)
            file.write(this_process())
            file.flush()
        except OSError as error:
            raise _unusable(release, error) from error
        for path in release.store.files(LEASES):
            if path != mine and not path.endswith(".json") and excludes(share, path):
                with _open(release, path) as other:
                    if not _lock(other, fcntl.LOCK_SH):
                        raise locked(release, path, _holder(other))
        yield _Held()


def directory_holders(release: Release) -> list[Holder]:
    """Return who holds leases in a directory, and who ended without giving theirs back."""
    found = []
    for path in release.store.files(LEASES):
        if path.endswith(".json"):
            continue  # of a bucket that was copied here
        with suppress(FileNotFoundError), Path(release.store.path(path)).open() as file:
            alive = not _lock(file, fcntl.LOCK_SH)
            name = file.read().strip()
            if alive or name:
                found.append(Holder(share_of(path), name or "a process that has only just begun", alive))
    return found


def _take(release: Release, path: str, stack: ExitStack) -> IO[str]:
    """Open and lock a lease; again where its last holder has removed it meanwhile."""
    while True:
        file = _open(release, path)
        if not _lock(file, fcntl.LOCK_EX):
            holder = _holder(file)
            file.close()
            raise locked(release, path, holder)
        with suppress(OSError):
            if os.fstat(file.fileno()).st_ino == Path(release.store.path(path)).stat().st_ino:
                return stack.enter_context(file)
        file.close()


def _missing_folders(release: Release, path: str) -> list[Path]:
    """The folders that a lease needs and that are not there, the innermost first."""
    return [folder for folder in Path(release.store.path(path)).absolute().parents if not folder.exists()]


def _remove_alone(release: Release, path: str) -> None:
    """Remove a lease beside which nothing was written: its run was refused before it began."""
    if release.store.files() == [path]:
        Path(release.store.path(path)).unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _lock(file: IO[str], kind: int) -> bool:
    """Lock a file; False where another process has."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "a process that has only just begun"


def _open(release: Release, path: str) -> IO[str]:
    file = Path(release.store.path(path))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a+")
    except OSError as error:
        raise _unusable(release, error) from error


def _unusable(release: Release, error: OSError) -> StoreError:
    return StoreError(release.store.where, f"cannot be written to ({error.strerror})", "a directory with room in it")
