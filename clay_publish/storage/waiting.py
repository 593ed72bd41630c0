"""How long servers are waited for: a request without progress, and all requests for one item."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from clay_publish.errors import AccessError


class TooSlowError(AccessError):
    """A server did not send all that was needed in the time that it had."""


@dataclass(frozen=True)
class Limits:
    """How long servers are waited for."""

    stall: float = 60.0
    """Seconds without progress after which a request is given up."""
    item: float = 600.0
    """Seconds in all that the requests for one item may take."""


_limits = [Limits()]


def limits() -> Limits:
    """The limits of this process."""
    return _limits[0]


def set_limits(new: Limits) -> None:
    """Set the limits of this process: block `run` of the spec."""
    _limits[0] = new


class Budget:
    """Time in which at least one of the requests for something was under way, retries and their pauses included."""

    def __init__(self, where: str, most: float) -> None:
        self._where, self._most = where, most
        self._lock, self._under_way, self._spent, self._since = Lock(), 0, 0.0, 0.0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """A request is under way."""
        with self._lock:
            if not self._under_way:
                self._since = time.monotonic()
            self._under_way += 1
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self._spent += time.monotonic() - self._since

    def check(self) -> None:
        """Go on only while time is left.

        Raises:
            TooSlowError: there is none.
        """
        with self._lock:
            spent = self._spent + (time.monotonic() - self._since if self._under_way else 0.0)
        if spent > self._most:
            raise TooSlowError(self._where, f"took more than {self._most:g} s to fetch", "", "See `run: item_seconds`.")
