"""A place and a time to look for, and which rows of a table meet them."""

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ClayPublishError
from clay_publish.windows import parse_time

Bbox = tuple[float, float, float, float]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

SIDES = ("xmin", "ymin", "xmax", "ymax")
EXTENT_COLUMNS = ("bbox", "start_datetime", "end_datetime")
"""The columns that decide whether a row lies in an extent."""
_DAY = timedelta(days=1) - timedelta(microseconds=1)
_PERIOD = re.compile(r"(\d{4})(?:-(\d{2}))?")
"""A year, or a month."""


class QueryError(ClayPublishError, ValueError):
    """An invalid query."""


@dataclass(frozen=True)
class Extent:
    """A box in degrees (WGS 84) and a closed interval of time; None: everywhere, or at any time."""

    bbox: Bbox | None = None
    """West, south, east, north; west > east across the antimeridian."""
    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def of(cls, bbox: Sequence[float] | None = None, when: str | None = None) -> "Extent":
        """From a bbox and a date, time or interval such as `2023`, `2023-01-01/2023-02-01` or `../2023-06`.

        A year, month or day is the whole of it, as start and as end.

        Raises:
            QueryError: not a box of four numbers, or not an interval.
        """
        box = None
        if bbox is not None:
            box = _box(bbox)
        start, end = _interval(when) if when is not None else (None, None)
        return cls(box, start, end)

    @property
    def everything(self) -> bool:
        """Whether every row meets it."""
        return self.bbox is None and self.start is None and self.end is None

    def meets(self, rows: pa.Table | pa.RecordBatch) -> Bools:
        """Whether each row's `bbox` and period do."""
        found = np.ones(rows.num_rows, dtype=bool)
        if self.bbox is not None:
            west, south, east, north = self.bbox
            xmin, ymin, xmax, ymax = _sides(rows["bbox"])
            found &= (ymin <= north) & (ymax >= south)
            # Both the row's range of longitudes and ours may cross the antimeridian.
            spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
            crosses = xmin > xmax
            along = np.zeros(rows.num_rows, dtype=bool)
            for first, last in spans:
                whole = (xmin <= last) & (xmax >= first)
                along |= np.where(crosses, (xmin <= last) | (xmax >= first), whole)
            found &= along
        if self.end is not None:
            found &= _moments(rows["start_datetime"]) <= np.datetime64(self.end.replace(tzinfo=None), "us")
        if self.start is not None:
            found &= _moments(rows["end_datetime"]) >= np.datetime64(self.start.replace(tzinfo=None), "us")
        return found

    def row_groups(self, footer: pq.FileMetaData) -> list[int]:
        """The row groups whose statistics do not rule out that some row meets it."""
        if self.everything:
            return list(range(footer.num_row_groups))
        places = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
        return [group for group in range(footer.num_row_groups) if self._may_meet(footer.row_group(group), places)]

    def _may_meet(self, group: Any, places: dict[str, int]) -> bool:
        def known(column: str) -> tuple[Any, Any] | None:
            statistics = group.column(places[column]).statistics if column in places else None
            return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None

        if self.bbox is not None:
            sides = [known(f"bbox.{side}") for side in SIDES]
            if all(side is not None for side in sides) and not self._box_may_meet(*sides):  # type: ignore[arg-type]
                return False
        starts, ends = known("start_datetime"), known("end_datetime")
        if self.end is not None and starts is not None and starts[0] > self.end:
            return False
        return not (self.start is not None and ends is not None and ends[1] < self.start)

    def _box_may_meet(
        self,
        xmin: tuple[float, float],
        ymin: tuple[float, float],
        xmax: tuple[float, float],
        ymax: tuple[float, float],
    ) -> bool:
        assert self.bbox is not None
        west, south, east, north = self.bbox
        if ymin[0] > north or ymax[1] < south:
            return False
        if xmin[1] - xmax[0] > 180:  # a row here may cross the antimeridian
            return True
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        return any(xmin[0] <= last and xmax[1] >= first for first, last in spans)


SWAPPED = "Latitude and longitude look swapped: longitude comes first."
"""The way out, where a question has an answer once they are exchanged."""


def _box(bbox: Sequence[float]) -> Bbox:
    sides = [float(side) for side in bbox]
    good = len(sides) == 4 and all(np.isfinite(sides))
    if not good or not (-90 <= sides[1] <= sides[3] <= 90) or max(abs(sides[0]), abs(sides[2])) > 180:
        swapped = good and -180 <= sides[1] < sides[3] <= 180 and -90 <= sides[0] < sides[2] <= 90
        raise QueryError(
            "bbox",
            f"{list(bbox)} is not a box on Earth",
            "west, south, east, north in degrees; west > east across the antimeridian",
            SWAPPED if swapped else "",
        )
    return (sides[0], sides[1], sides[2], sides[3])


def _interval(text: str) -> tuple[datetime | None, datetime | None]:
    first, slash, last = text.partition("/")
    try:
        if not slash:
            return _moment(first), _moment(first, end=True)
        start = None if first in {"", ".."} else _moment(first)
        end = None if last in {"", ".."} else _moment(last, end=True)
    except ValueError as error:
        raise QueryError(
            "datetime", f"{text!r} is not a date or time", "such as 2023, 2023-01 or 2023-01-01/.."
        ) from error
    if start is None and end is None:
        raise QueryError("datetime", f"{text!r} is open at both ends", "such as 2023-01-01/..")
    if start is not None and end is not None and end < start:
        raise QueryError("datetime", f"{text!r} ends before it starts", "the earlier time first")
    return start, end


def _moment(text: str, *, end: bool = False) -> datetime:
    """The first moment of a year, month, day or time; with `end`, the last."""
    text = text.strip().upper()  # RFC 3339 allows t and z
    period = _PERIOD.fullmatch(text)
    if period is None:
        moment = parse_time(text).astimezone(UTC)
        return moment + _DAY if end and len(text) == len("2023-01-01") else moment
    year, month = int(period[1]), int(period[2] or (12 if end else 1))
    if not end:
        return datetime(year, month, 1, tzinfo=UTC)
    return datetime(year, month, monthrange(year, month)[1], tzinfo=UTC) + _DAY


def _sides(bbox: pa.ChunkedArray | pa.StructArray) -> list[Floats]:
    whole = bbox.combine_chunks() if isinstance(bbox, pa.ChunkedArray) else bbox
    return [whole.field(side).to_numpy(zero_copy_only=False) for side in SIDES]


def _moments(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.datetime64]:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(whole.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False))
