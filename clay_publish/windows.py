"""Half-open intervals of time, and the names they give to files and chips."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

_DAY = timedelta(days=1)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 date or time; without a zone it is UTC.

    Raises:
        ValueError: the text is neither a date nor a time.
    """
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True, order=True)
class Window:
    """The interval `start` ≤ t < `end`, in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            msg = f"the window {self.start.isoformat()}/{self.end.isoformat()} ends before it starts"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read `2023-01-01/2023-02-01`.

        Raises:
            ValueError: not two dates or times, or the second is not later than the first.
        """
        start, slash, end = text.partition("/")
        if not slash:
            msg = f"{text!r} is not an interval"
            raise ValueError(msg)
        return cls(_side(start), _side(end))

    @classmethod
    def of_days(cls, start: datetime, end: datetime | None = None) -> "Window":
        """Whole UTC days that hold an acquisition, or a composite's period from `start` to `end`.

        An `end` at midnight counts as exclusive, any later one is rounded up.
        """
        first = datetime.combine(start.astimezone(UTC).date(), time(), UTC)
        last = (end or start).astimezone(UTC)
        midnight = datetime.combine(last.date(), time(), UTC)
        stop = midnight if midnight == last else midnight + _DAY
        return cls(first, max(stop, first + _DAY))

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def overlaps(self, other: "Window") -> bool:
        """Whether any moment lies in both."""
        return self.start < other.end and other.start < self.end

    @property
    def middle(self) -> datetime:
        """The moment halfway."""
        return self.start + (self.end - self.start) / 2

    def split(self, count: int) -> "tuple[Window, ...]":
        """Parts of this window: of whole months where it begins and ends with one and they divide, else equal ones."""
        begins = self.start.day == self.end.day == 1 and self.start.time() == self.end.time() == time()
        months = 12 * (self.end.year - self.start.year) + self.end.month - self.start.month
        if begins and months % count == 0:
            first, each = 12 * self.start.year + self.start.month - 1, months // count
            places = [first + n * each for n in range(count + 1)]
            edges = [datetime(place // 12, place % 12 + 1, 1, tzinfo=UTC) for place in places]
        else:
            edges = [*(self.start + (self.end - self.start) * n / count for n in range(count)), self.end]
        return tuple(Window(*pair) for pair in itertools.pairwise(edges))

    @property
    def token(self) -> str:
        """The window in file names and chip ids: `2023-01-01_2023-02-01`, UTC."""
        return f"{_stamp(self.start)}_{_stamp(self.end)}"

    def __str__(self) -> str:
        return f"{_stamp(self.start)}/{_stamp(self.end)}"


def window_of(moment: datetime, windows: Iterable[Window]) -> Window | None:
    """The first window that holds a moment; None where none does."""
    return next((window for window in windows if moment in window), None)


def _side(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        msg = f"{text!r} is not a day or time that exists"
        raise ValueError(msg) from error


def _stamp(moment: datetime) -> str:
    if moment.time() == time():
        return moment.date().isoformat()
    return moment.strftime("%Y%m%dT%H%M%SZ")


def parse_token(token: str) -> Window:
    """The window that `Window.token` names.

    Raises:
        ValueError: the text names no window.
    """
    start, _, end = token.partition("_")
    return Window(_unstamp(start), _unstamp(end))


def _unstamp(text: str) -> datetime:
    if len(text) == len("2023-01-01"):
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
