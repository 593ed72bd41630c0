"""Rows of a Parquet file by their numbers, where the whole of it may not fit into memory."""

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_GROUPS = 8
"""Row groups that are kept: rows are mostly asked for in their order."""


class StoredRows:
    """Reads the row groups that rows lie in when they are asked for, by any thread."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[str]) -> None:
        self._file, self._columns = file, list(columns)
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group, self._lock = lru_cache(_GROUPS)(self._read), Lock()

    def take(self, rows: npt.NDArray[np.integer]) -> pa.Table:
        """Rows in this order; nulls where a number is negative."""
        there = np.flatnonzero(rows >= 0)
        numbers = np.searchsorted(self._starts, rows[there], side="right") - 1
        tables, places = [self._file.schema_arrow.empty_table().select(self._columns)], np.full(len(rows), -1, np.int64)
        count = 0
        for number in np.unique(numbers).tolist():
            mine = there[numbers == number]
            with self._lock:  # a file is read by one thread at a time
                group = self._group(number)
            tables.append(group.take(pa.array(rows[mine] - self._starts[number])))
            places[mine] = np.arange(count, count + len(mine))
            count += len(mine)
        whole = pa.concat_tables(tables).replace_schema_metadata(None).combine_chunks()
        return whole.take(pa.array(places, mask=places < 0))

    def _read(self, number: int) -> pa.Table:
        return self._file.read_row_group(number, columns=self._columns).select(self._columns)
