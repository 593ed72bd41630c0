"""Reading the coverage tables in batches, text as dictionaries."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError

if TYPE_CHECKING:
    from clay_publish.validate.view import View

_BATCH = 1 << 20


def whole_numbers(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int32]:
    """An integer column, 0 where null."""
    values: npt.NDArray[np.int32] = batch.column(name).fill_null(0).to_numpy(zero_copy_only=False)
    return values


def coverage_batches(view: "View", columns: list[str], paths: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """All rows of the coverage tables, or of some of them, text as dictionaries.

    Raises:
        ReleaseError: no table, no such column, or damaged.
    """
    for path in view.coverage_paths if paths is None else paths:
        missing = [name for name in columns if name not in view.schema_of(path).names]
        if missing:
            raise ReleaseError(path, f"has no column {', '.join(missing)}")
        text = [name for name in ("status", "reason") if name in columns]
        yield from view.batches(path, _BATCH, columns=columns, read_dictionary=text)


def first_items(batch: pa.RecordBatch, known: pa.Array) -> npt.NDArray[np.int32]:
    """Place among `known` of the first of each row's items; −1 where there is none."""
    lists = batch.column("item_ids")
    offsets = lists.offsets.to_numpy()
    some = np.flatnonzero(np.diff(offsets) > 0)
    places = np.full(len(lists), -1, np.int32)
    firsts = lists.values.take(pa.array(offsets[:-1][some]))
    places[some] = pc.index_in(firsts, value_set=known).fill_null(-1).to_numpy(zero_copy_only=False)
    return places


def equals(column: pa.Array, text: str) -> npt.NDArray[np.bool_]:
    """Which rows of a text column, plain or of dictionaries, hold this text."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(pc.equal(column.fill_null(""), text).to_numpy(zero_copy_only=False), dtype=bool)
    words = column.dictionary.to_pylist()
    if text not in words:
        return np.zeros(len(column), dtype=bool)
    same: npt.NDArray[np.bool_] = column.indices.fill_null(-1).to_numpy(zero_copy_only=False) == words.index(text)
    return same
