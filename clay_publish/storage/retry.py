"""The retry policy of every request: a few attempts with growing, randomized pauses."""

from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

_LONGEST_RETRY_AFTER = 120.0
"""Seconds, whatever a server's `Retry-After` asks for."""

TRANSIENT_STATUS = frozenset({408, 425, 429})
"""HTTP status codes below 500 after which a second attempt can succeed."""


@dataclass(frozen=True)
class Patience:
    """How often a request is tried, and the pauses between attempts."""

    attempts: int = 5
    first: float = 0.5
    """Seconds; doubled after each attempt. The pause is a random share of it."""
    longest: float = 30.0


DEFAULT = Patience()


def is_transient(status: int) -> bool:
    """Whether a request that was answered with this HTTP status can succeed when it is sent again."""
    return status in TRANSIENT_STATUS or (status >= 500 and status != 501)


def retrying(transient: Callable[[BaseException], bool], patience: Patience | None = None) -> Retrying:
    """A callable that runs a function again while its exception is transient; the last exception is raised.

    An exception with a numeric `retry_after` (seconds) lengthens the pause before the next attempt.
    """
    limits = patience or DEFAULT
    pause = wait_random_exponential(multiplier=limits.first, max=limits.longest)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(float(pause(state)), min(float(asked), _LONGEST_RETRY_AFTER))

    return Retrying(
        stop=stop_after_attempt(limits.attempts), wait=wait, retry=retry_if_exception(transient), reraise=True
    )
