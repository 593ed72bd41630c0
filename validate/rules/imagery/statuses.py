"""Rules on which images were used: `status` in `sources.parquet` follows from the spec."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.geo.area import read_area
from clay_publish.spec.models import Imagery
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.coverage_table import micros
from clay_publish.validate.data.sources import NO_TIME, Bools, Ints, Source, SourceTable
from clay_publish.validate.expected.layers import windows_of
from clay_publish.validate.outcomes import Outcome
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.imagery.sources import Said, Together


@rule("PRV007")
def status_follows_from_spec(context: ReleaseContext) -> Iterator[Outcome]:
    """`status` of each source against `exclude`, `windows`, `area` and `collections` of its imagery block.

    Items are used unless the spec leaves them out; only a `query`, and which of several of one id is newer, cannot be
    checked without the items.
    """
    spec, sources = context.documents.spec, context.sources
    every, status = np.arange(sources.count), sources.texts["status"]
    times_used = _times_used(sources, context)
    excluded, outside, away = (np.zeros(sources.count, dtype=bool) for _ in range(3))
    asked = np.zeros(sources.count, dtype=bool)
    for number, block in enumerate(spec.imagery):
        mine = every[sources.block == number]
        excluded[mine] = _is_excluded(sources, mine, block)
        outside[_outside(block, sources, mine)] = True
        away[mine] = outside[mine] | excluded[mine] | _other_window_or_collection(sources, mine, block)
        asked[mine] = not block.query
    odd = ~status.where({"used", "unused", "excluded"}.__contains__)
    odd |= ~sources.is_used & ~sources.texts["reason"].there
    odd |= sources.is_used & ((times_used > 1) | away)
    odd |= status.where(lambda text: text == "excluded") & ~excluded
    unused = status.where(lambda text: text == "unused") & sources.texts["bands"].there
    odd |= unused & ~away & asked & (times_used == 0)
    together = Together()
    for row in np.flatnonzero(odd).tolist():
        source = sources[row]
        together.add(source, _of_status(source, int(times_used[row])))
        if 0 <= source.block < len(spec.imagery):  # PRV021
            block = spec.imagery[source.block]
            why = _left_out(source, block, is_excluded=bool(excluded[row]), is_outside=bool(outside[row]))
            said = _other_status(source, block, why, is_excluded=bool(excluded[row]), is_known=times_used[row] > 0)
            together.add(source, said)
    yield from together.faults()


def _of_status(source: Source, times_used: int) -> Said:
    if source.status not in {"used", "unused", "excluded"}:
        yield "status", repr(source.status), "used, unused or excluded"
    if source.status != "used" and not source.reason:
        yield "status", f"is {source.status} without a reason", "a reason"
    if source.status == "used" and times_used > 1:
        yield "status", "is used twice", "one item of an id in a window"


def _other_status(source: Source, block: Imagery, why: str | None, *, is_excluded: bool, is_known: bool) -> Said:
    """Where a status is not what the spec asks for; `is_known` tells that an item of its id is used."""
    if source.status == "used" and why is not None:
        yield "status", f"is used, and {why}", "excluded or unused, as release.yaml says"
    elif source.status == "excluded" and not is_excluded:
        yield "status", "is excluded, and not named in `exclude`", "used or unused"
    elif source.status == "unused" and source.was_read and why is None and not block.query and not is_known:
        yield "status", "is unused, and nothing in release.yaml leaves it out", "used"


def _times_used(sources: SourceTable, context: ReleaseContext) -> Ints:
    """How many used rows are versions of the item of each row: of one id, and one window where windows are apart."""
    spec = context.documents.spec
    windows = np.zeros(sources.count, np.int64)
    if context.fingerprint.layout == "utm":
        own = windows_of(sources, spec, np.arange(sources.count))[1] + 1
        apart = np.array([bool(block.windows) for block in spec.imagery] + [False])
        known = (sources.block >= 0) & (sources.block < len(spec.imagery))
        windows = np.where(apart[np.where(known, sources.block, -1)], own, 0)
    number = sources.item_of.astype(np.int64) * (int(windows.max(initial=0)) + 1) + windows
    _, place = np.unique(number, return_inverse=True)
    place = place.reshape(-1)
    return np.bincount(place[sources.is_used], minlength=int(place.max(initial=-1)) + 1)[place]


def _left_out(source: Source, block: Imagery, *, is_excluded: bool, is_outside: bool) -> str | None:
    """Why the spec does not ask for an item; None where it does."""
    if is_excluded:
        return "named in `exclude`"
    windows = block.parsed_windows()
    if windows and source.moment is not None and not any(source.moment in window for window in windows):
        return f"lies in no window ({source.moment})"
    if is_outside:
        return "lies outside the area"
    if block.stac and block.collections and source.collection not in block.collections:
        return f"is of collection {source.collection!r}"
    return None


def _other_window_or_collection(sources: SourceTable, rows: Ints, block: Imagery) -> Bools:
    """Rows of a block whose moment lies in none of its windows, or whose collection it does not name."""
    moments, windows = sources.times["datetime"][rows], block.parsed_windows()
    inside = np.array([(moments >= micros(w.start)) & (moments < micros(w.end)) for w in windows])
    other = (moments != NO_TIME) & ~inside.any(axis=0) if windows else np.zeros(len(rows), dtype=bool)
    if block.stac and block.collections:
        other |= ~sources.texts["collection"].where(block.collections.__contains__)[rows]
    return other


def _is_excluded(sources: SourceTable, rows: Ints, block: Imagery) -> Bools:
    """Which rows the list names; the published one holds the last part of ids with slashes alone."""
    if not block.exclude:
        return np.zeros(len(rows), dtype=bool)
    ids, listed = sources.ids.take(pa.array(sources.item_of[rows])), pa.array(block.exclude, pa.string())
    last = pc.replace_substring_regex(ids, "(?s).*/", "")
    named: Bools = pc.or_(pc.is_in(ids, listed), pc.is_in(last, listed)).to_numpy(zero_copy_only=False)
    return named


def _outside(block: Imagery, sources: SourceTable, rows: Ints) -> Ints:
    """Rows of a block whose footprints are not on the ground that it asks for."""
    if block.area is None:
        return rows[:0]
    area = read_area(block.area).geometry
    shapely.prepare(area)
    found = [rows[:0]]
    for some, shapes in sources.footprints(rows):
        found.append(some[~shapely.is_missing(shapes) & ~shapely.intersects(area, shapes)])
    return np.concatenate(found)
