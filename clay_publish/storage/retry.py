"""How often a request is tried, and how long a server is waited for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from clay_publish.errors import AccessError

_LONGEST_RETRY_AFTER = 120.0
"""Seconds, whatever a server's `Retry-After` asks for."""

TRANSIENT_STATUS = frozenset({408, 425, 429})
"""HTTP status codes below 500 after which a second attempt can succeed."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is tried, and the pauses between attempts."""

    attempts: int = 5
    first: float = 0.5
    """Seconds; doubled after each attempt. The pause is a random share of it."""
    longest: float = 30.0


DEFAULT = RetryPolicy()


def is_transient(status: int) -> bool:
    """Whether a request that was answered with this HTTP status can succeed when it is sent again."""
    return status in TRANSIENT_STATUS or (status >= 500 and status != 501)


def retrying(transient: Callable[[BaseException], bool], policy: RetryPolicy | None = None) -> Retrying:
    """A callable that runs a function again while its exception is transient; the last exception is raised.

    An exception with a numeric `retry_after` (seconds) lengthens the pause before the next attempt.
    """
    used = policy or DEFAULT
    pause = wait_random_exponential(multiplier=used.first, max=used.longest)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(float(pause(state)), min(float(asked), _LONGEST_RETRY_AFTER))

    return Retrying(
        stop=stop_after_attempt(used.attempts), wait=wait, retry=retry_if_exception(transient), reraise=True
    )


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
