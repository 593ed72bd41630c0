"""Columns whose values repeat, whatever their type: the different values, and which of them each row has."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.release.names import hash_strings, hash_words

U64 = npt.NDArray[np.uint64]

_AT_ONCE = 1 << 12
"""Values that are Python objects at a time."""


class Coded:
    """A column as codes: row n has the value of code `codes[n]`."""

    def __init__(self, values: pa.Array, codes: npt.NDArray[np.integer]) -> None:
        self.values = values
        """Each value once."""
        self.codes = codes
        self._last: tuple[int, Any] = (-1, None)

    def __getitem__(self, row: int) -> Any:
        """The value of a row as a Python object."""
        code = int(self.codes[row])
        if self._last[0] != code:
            self._last = code, self.values[code].as_py()
        return self._last[1]

    def distinct(self) -> Iterator[Any]:
        """The values, in the order of their codes."""
        for start in range(0, len(self.values), _AT_ONCE):
            yield from self.values.slice(start, _AT_ONCE).to_pylist()

    def where(self, test: Callable[[Any], bool]) -> npt.NDArray[np.bool_]:
        """Rows whose value passes a test, which is made once for each value."""
        passed: npt.NDArray[np.bool_] = np.fromiter(map(test, self.distinct()), dtype=bool, count=len(self.values))
        return np.asarray(passed[self.codes])

    @cached_property
    def there(self) -> npt.NDArray[np.bool_]:
        """Rows with a value that is not empty."""
        return self.where(bool)


class Coder:
    """Makes a coded column of batches. Rows are the same where 64 bits of a hash of their content are."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._hashes = np.zeros(0, np.uint64)
        """Of the values, sorted."""
        self._codes = np.zeros(0, np.int32)
        """Of these."""
        self._values: list[pa.Array] = []
        self._rows: list[npt.NDArray[np.integer]] = []

    def add(self, column: pa.Array) -> None:
        """Add rows."""
        hashes, first, own = np.unique(hash_rows(column), return_index=True, return_inverse=True)
        new = ~np.isin(hashes, self._hashes, assume_unique=True)
        if new.any():
            order = np.flatnonzero(new)
            order = order[np.argsort(first[order])]
            self._values.append(column.take(pa.array(first[order])))
            self._hashes = np.concatenate([self._hashes, hashes[order]])
            self._codes = np.concatenate([self._codes, len(self._codes) + np.arange(len(order), dtype=np.int32)])
            sort = np.argsort(self._hashes)
            self._hashes, self._codes = self._hashes[sort], self._codes[sort]
        codes = self._codes[np.searchsorted(self._hashes, hashes)][own.reshape(-1)]
        self._rows.append(codes.astype(np.min_scalar_type(len(self._codes))))

    def done(self) -> Coded:
        """The column."""
        values = pa.concat_arrays(self._values) if self._values else pa.array([], self._kind)
        return Coded(values, np.concatenate([*self._rows, np.zeros(0, np.uint8)]))


def hash_rows(column: pa.Array) -> U64:
    """64 bits for each row of a column of texts, numbers, or structs and lists of these."""
    kind = column.type
    known = column.is_valid().to_numpy(zero_copy_only=False).astype(np.uint64)
    if pa.types.is_struct(kind):
        parts = [hash_rows(child) for child in column.flatten()]
    elif pa.types.is_list(kind):
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        stops = lengths.cumsum()
        place = np.arange(stops[-1] if stops.size else 0) - np.repeat(stops - lengths, lengths)
        mixed = hash_words(np.stack([hash_rows(column.flatten()), place.astype(np.uint64)], axis=1))
        sums = np.concatenate([np.zeros(1, np.uint64), mixed.cumsum(dtype=np.uint64)])
        parts = [sums[stops] - sums[stops - lengths], lengths.astype(np.uint64)]
    elif pa.types.is_string(kind):
        coded = column.dictionary_encode()
        values = np.concatenate([hash_strings(coded.dictionary), np.zeros(1, np.uint64)])
        parts = [values[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]]
    else:
        number = pa.float64() if pa.types.is_floating(kind) else pa.int64()
        parts = [pc.cast(column, number).fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)]
    return hash_words(np.stack([*parts, known], axis=1))
