"""Files that this process is writing, for an end that waits for no thread: nothing half written stays behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from clay_publish.errors import ClayPublishError

_removals: dict[object, Callable[[], object]] = {}
_lock = Lock()


@contextmanager
def unfinished(remove: Callable[[], object]) -> Iterator[None]:
    """Create and write a file inside the block; `remove` removes what there is of it, if anything."""
    name = object()
    with _lock:
        _removals[name] = remove
    try:
        yield
    finally:
        with _lock:
            del _removals[name]


def remove_unfinished() -> None:
    """Remove what this process has not finished. It has to end next: a thread that writes waits until then."""
    _lock.acquire()
    for remove in _removals.values():
        with suppress(ClayPublishError, OSError):  # the next run collects it
            remove()
