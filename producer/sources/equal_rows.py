"""Numbers for the rows of Arrow columns that are equal where the rows are, whatever the type of the column."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]
"""One per row."""


def children_of(array: pa.Array | None) -> dict[str, pa.Array]:
    """Return the fields of a struct column by name; none of another column."""
    if array is None or not pa.types.is_struct(array.type):
        return {}
    return dict(zip([field.name for field in array.type], array.flatten(), strict=True))


def is_there(array: pa.Array) -> Numbers | None:
    """Return 1 for rows with a value and 0 for others; None where all have one."""
    return None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)


def numbers_of(values: Iterator[Any]) -> Numbers:
    """Equal numbers for equal values."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


def numbers_of_column(array: pa.Array) -> Numbers | None:
    """Equal numbers for equal rows of a column of any type; None where all are equal."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_struct(array.type):
        return together([is_there(array), *(numbers_of_column(child) for child in array.flatten())])
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        inside = numbers_of_column(array.flatten())
        if len(lengths) and (lengths == lengths[0]).all():
            columns = [] if inside is None or lengths[0] < 1 else list(inside.reshape(-1, lengths[0]).T)
            return together(columns)
        flat = np.zeros(max(0, int(lengths.clip(0).sum())), np.int64) if inside is None else inside
        stops = lengths.clip(0).cumsum()
        starts = stops - lengths.clip(0)
        rows = zip(lengths.tolist(), starts.tolist(), stops.tolist(), strict=True)
        return numbers_of((length, flat[start:stop].tobytes()) for length, start, stop in rows)
    if pa.types.is_null(array.type):
        return None
    found = array.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return None if len(found) == 0 or (found == found[0]).all() else found


def together(columns: Sequence[Numbers | None]) -> Numbers | None:
    """Equal numbers for rows that are equal in every column; None where all are."""
    made: Numbers | None = None
    for column in columns:
        if column is not None and len(column):
            joined = column if made is None else made * (int(column.max()) + 1) + column
            made = np.unique(joined, return_inverse=True)[1].reshape(-1)
    return made
