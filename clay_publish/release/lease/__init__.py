"""Release lock: one full run, or several shards of the same run. Stale locks are released."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from clay_publish.release.directory import Release
from clay_publish.release.lease.base import LEASES, Holder, Lease, Share
from clay_publish.release.lease.local import directory_holders, hold_directory
from clay_publish.release.lease.s3 import hold_objects, object_holders

__all__ = ["holders", "lease", "lease_if_run"]


def holders(release: Release) -> list[Holder]:
    """Return who holds a release, and who ended without giving it back. Nothing is written.

    Raises:
        StoreError: the release cannot be read.
    """
    return directory_holders(release) if release.store.local else object_holders(release)


@contextmanager
def lease(release: Release, share: Share | None = None) -> Iterator[Lease]:
    """Hold the lease of a release, or of a shard of its run; released when the block or the process ends.

    A whole run keeps out everybody else. A share keeps out whole runs, shares of another count, and itself.

    Raises:
        LockedError: another living process holds it; it is named.
        StoreError: nothing can be written there, or nothing there can keep two runs apart.
    """
    hold = hold_directory if release.store.local else hold_objects
    with hold(release, share) as held:
        yield held


@contextmanager
def lease_if_run(release: Release) -> Iterator[None]:
    """Hold a release in which runs leave leases; one that was never run there, a published one, needs none.

    Raises:
        LockedError: a run is at work there; it is named.
    """
    store = release.store
    fixed = store.local and not os.access(store.where, os.W_OK)
    if fixed or not store.files(LEASES):
        yield
        return
    with lease(release):
        yield
