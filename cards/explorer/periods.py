"""The times between which the page switches: single windows, or years where there are many."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from clay_publish.windows import Window

MOST = 24
"""Overviews of one layer: more windows than this are drawn year by year, more years in one picture."""


@dataclass(frozen=True)
class Period:
    """Windows that are drawn together; where they overlap, the latest is on top."""

    id: str
    start: datetime
    """Of its first window."""
    end: datetime
    """Exclusive end of its last window."""


@dataclass(frozen=True)
class Periods:
    """The periods of a release, the earliest first. A window belongs to the one that holds its start."""

    each: tuple[Period, ...]

    def of(self, starts: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
        """[n] the number of the period of each window, by its start."""
        edges = np.array([_naive(period.start) for period in self.each], dtype="datetime64[us]")
        return np.searchsorted(edges, starts.astype("datetime64[us]"), side="right") - 1

    def of_window(self, window: Window) -> int:
        """The number of one window's period."""
        return int(self.of(np.array([_naive(window.start)], dtype="datetime64[us]"))[0])


def periods(windows: Iterable[Window], *, layout: str) -> Periods:
    """Group windows: each its own period in the `utm` layout, years in `scene` and where there are more than `MOST`."""
    every = sorted(set(windows))
    apart = len({window.start for window in every}) == len(every) and len(every) <= MOST
    if layout == "utm" and apart:
        return Periods(tuple(Period(window.token, window.start, window.end) for window in every))
    years = sorted({window.start.year for window in every})
    if len(years) > MOST or not years:
        return Periods((_joined("all", every),))
    return Periods(tuple(_joined(f"{year:04d}", [w for w in every if w.start.year == year]) for year in years))


def _joined(name: str, windows: list[Window]) -> Period:
    return Period(name, min(w.start for w in windows), max(w.end for w in windows))


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
