"""Reading the coverage tables in batches, text as dictionaries."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.release.names import first_names
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.sources import SourceTable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return round((moment - _EPOCH) / timedelta(microseconds=1))


_BATCH = 1 << 20
_NO_TIME = np.iinfo(np.int64).min

_Rows = npt.NDArray[np.bool_] | None
"""Which rows of a batch; None for all of them."""


def whole_numbers(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int32]:
    """An integer column, 0 where null."""
    values: npt.NDArray[np.int32] = filled(batch.column(name), 0)
    return values


def filled(column: pa.Array, hole: int) -> npt.NDArray[Any]:
    """A column of numbers, with this one where it is null."""
    whole = column.fill_null(hole) if column.null_count else column
    return np.asarray(whole.to_numpy(zero_copy_only=False))


def coverage_batches(
    tables: ParquetTables, columns: list[str], paths: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows of the coverage tables, or of some of them, text as dictionaries.

    Raises:
        ReleaseError: no table, no such column, or damaged.
    """
    for path in tables.coverage if paths is None else paths:
        missing = [name for name in columns if name not in tables.schema(path).names]
        if missing:
            raise ReleaseError(path, f"has no column {', '.join(missing)}")
        text = [name for name in ("status", "reason") if name in columns]
        yield from tables.batches(path, _BATCH, columns=columns, read_dictionary=text)


@dataclass(frozen=True)
class Said:
    """What many rows of the coverage say alike."""

    status: str | None
    reason: str | None
    start: int | None
    """Of the window, in microseconds since 1970."""
    end: int | None
    placed: bool
    """Whether row and column are stated."""


COUNTED = ("status", "reason", "window_start", "window_end", "row")
"""Columns that are counted."""


def tally(tables: ParquetTables) -> Counter[Said]:
    """How many rows of the coverage tables say what, counted in one pass.

    Raises:
        ReleaseError: no table, no such column, or damaged.
    """
    counted: Counter[Said] = Counter()
    for batch in coverage_batches(tables, list(COUNTED)):
        count(counted, batch)
    return counted


def count(counted: Counter[Said], batch: pa.RecordBatch) -> None:
    """Add some rows of a coverage table."""
    (statuses, first), (reasons, second) = (_coded(batch.column(name)) for name in ("status", "reason"))
    codes = first * np.int32(len(reasons)) + second
    for (start, end), placed, rows in _parts(batch):
        for code, many in enumerate(np.bincount(codes if rows is None else codes[rows]).tolist()):
            if many:
                status, reason = divmod(code, len(reasons))
                counted[Said(statuses[status], reasons[reason], start, end, placed)] += many


def _coded(column: pa.Array) -> tuple[list[str | None], npt.NDArray[np.int32]]:
    """The words of a column of dictionaries, None last, and each row's place among them."""
    words = column.dictionary.to_pylist()
    return [*words, None], filled(column.indices, len(words))


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[tuple[int | None, int | None], bool, _Rows]]:
    """Start and end of the window, whether rows are placed, and which rows these are."""
    row = batch.column("row")
    known = row.is_valid().to_numpy(zero_copy_only=False) if row.null_count else None
    starts, ends = (filled(batch.column(f"window_{side}").cast("int64"), _NO_TIME) for side in ("start", "end"))
    for start, early in distinct(starts):
        for end, late in distinct(ends if early is None else ends[early]):
            window = None if start == _NO_TIME else start, None if end == _NO_TIME else end
            mine = early if late is None else late
            if early is not None and late is not None:
                mine = early.copy()
                mine[early] = late
            if known is None:
                yield window, True, mine
            else:
                yield window, True, known if mine is None else known & mine
                yield window, False, ~known if mine is None else ~known & mine


def distinct(values: npt.NDArray[np.int64]) -> list[tuple[int, _Rows]]:
    """The few values that occur, and where."""
    if values.size and values.min() == values.max():
        return [(int(values[0]), None)]
    return [(int(value), values == value) for value in np.unique(values)]


def first_items(batch: pa.RecordBatch, sources: SourceTable) -> npt.NDArray[np.int32]:
    """Place among the sources of the first of each row's items; −1 where there is none."""
    return sources.find(first_names(batch.column("item_ids")))


def equals(column: pa.Array, text: str) -> npt.NDArray[np.bool_]:
    """Which rows of a text column, plain or of dictionaries, hold this text."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(pc.equal(column.fill_null(""), text).to_numpy(zero_copy_only=False), dtype=bool)
    words = column.dictionary.to_pylist()
    if text not in words:
        return np.zeros(len(column), dtype=bool)
    same: npt.NDArray[np.bool_] = filled(column.indices, -1) == words.index(text)
    return same
