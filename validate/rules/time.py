"""Rules on time."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import micros
from clay_publish.validate.data.sources import NO_TIME
from clay_publish.validate.outcomes import BadRows, Fault, Outcome, bad_rows
from clay_publish.validate.registry import row_rule, rule
from clay_publish.windows import Window

_COLUMNS = ("datetime", "start_datetime", "end_datetime")
_FIRST = datetime(1972, 7, 23, tzinfo=UTC)
"""Launch of Landsat 1: no satellite image of this kind is older."""
_NULL = np.iinfo(np.int64).min
_SECOND = 1_000_000


def _dated(name: str, values: npt.NDArray[np.int64], row: int) -> str:
    return f"{name} {_date(values[row])}"


def _date(value: int | np.int64) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(value))).isoformat()
    except OverflowError:
        return f"{value} microseconds since 1970"


@rule("TIM001")
def zone_is_utc(context: ReleaseContext) -> Iterator[Outcome]:
    """The types of the time columns."""
    for path in context.tables.embeddings:
        for column in context.tables.schema(path):
            if column.name in _COLUMNS and pa.types.is_timestamp(column.type) and column.type.tz != "UTC":
                yield Fault(f"{path}: {column.name}", f"time zone {column.type.tz}", "UTC")


@row_rule("TIM002", alone=True)
def in_own_period(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Start, moment and end in order."""
    moment, start, end = (chips.micros(name) for name in _COLUMNS)
    known = (moment != _NULL) & (start != _NULL) & (end != _NULL)
    bad = known & ~((start <= moment) & (moment <= end))
    return bad_rows(
        bad, lambda n: f"{_date(moment[n])} not in {_date(start[n])}/{_date(end[n])}", "a time in the period"
    )


@row_rule("TIM003")
def in_item_interval(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Within a second, as catalogs round. Of a composite's period speaks TIM010."""
    if context.fingerprint.combines:
        return []
    places, moment = context.sources.places(chips), chips.micros("datetime")
    bad = np.zeros(len(chips), dtype=bool)
    first, last = context.sources.spans_of(places)
    known = (first != NO_TIME) & (last != NO_TIME) & (moment != _NULL)
    bad[known] = (moment < first - _SECOND)[known] | (moment > last + _SECOND)[known]
    return bad_rows(
        bad, lambda n: f"{_date(moment[n])}; item {chips.value('item_id', n)}", "a time in the item's interval"
    )


@row_rule("TIM004", alone=True)
def plausible(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """From Landsat 1 to now."""
    now = micros(datetime.now(UTC) + timedelta(days=1))
    found: list[BadRows] = []
    for name in _COLUMNS:
        values = chips.micros(name)
        # A period may well end in the future of the image it is named after; the image may not.
        bad = (values != _NULL) & ((values < micros(_FIRST)) | ((values > now) & (name != "end_datetime")))
        found += bad_rows(bad, partial(_dated, name, values), "from 1972 to today")
    return found


@row_rule("TIM005")
def in_file_window(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """The window in the file's name, and for composites the period."""
    if chips.path not in context.tables.named:
        return []
    window = context.tables.named[chips.path].window
    moment = chips.micros("datetime")
    bad = (moment != _NULL) & ((moment < micros(window.start)) | (moment >= micros(window.end)))
    return bad_rows(bad, lambda n: _date(moment[n]), f"a time in {window}")


@rule("TIM006")
def windows_are_asked_for(context: ReleaseContext) -> Iterator[Outcome]:
    """The windows of file names against the spec's; without windows, each image has its own."""
    asked = [w for block in context.documents.spec.imagery for w in block.parsed_windows()]
    if not asked or any(not block.windows for block in context.documents.spec.imagery):
        return
    for path, file in context.tables.named.items():
        if context.fingerprint.layout == "scene":
            fits = any(file.window.overlaps(window) for window in asked)
        else:
            fits = file.window in asked
        if not fits:
            yield Fault(path, f"window {file.window}", f"one of {', '.join(map(str, asked[:3]))}")


@rule("TIM008")
def scene_windows_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Windows of the items that occur in a file."""
    if context.fingerprint.layout != "scene":
        return
    facts = context.scan.facts
    windows: dict[int, Window | None] = {}
    for path, rows in facts.slices().items():
        if path not in context.tables.named:
            continue
        for place in np.unique(facts["items"][rows]).tolist():
            if place >= 0:
                window = windows.setdefault(place, context.sources.window(place))
                if window is not None and window != context.tables.named[path].window:
                    yield Fault(
                        path,
                        f"window {context.tables.named[path].window}",
                        f"{window} of {context.sources.item(place).id}",
                    )
