"""Who works on a release: one whole run at a time, or the shares of one run side by side, and nobody who has died."""

from collections.abc import Iterator
from contextlib import contextmanager

from clay_publish.producer.execution.lease.base import Lease
from clay_publish.producer.execution.lease.local import hold_directory
from clay_publish.producer.execution.lease.s3 import hold_objects
from clay_publish.producer.planning.share import Share
from clay_publish.release.directory import Release


@contextmanager
def lease(release: Release, share: Share | None = None) -> Iterator[Lease]:
    """Hold a release, or a share of the run that makes it; given back when the block ends, or the process dies.

    A whole run keeps out everybody else. A share keeps out whole runs, shares of another count, and itself.

    Raises:
        LockedError: another living process holds it; it is named.
        StoreError: nothing can be written there, or nothing there can keep two runs apart.
    """
    hold = hold_directory if release.store.local else hold_objects
    with hold(release, share) as held:
        yield held
