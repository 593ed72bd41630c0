"""Embeddings of a release as a PyTorch dataset. PyTorch is imported on first use; it is not a dependency of reading."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clay_publish.errors import MissingExtraError
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.reader import ReleaseReader, open_release
from clay_publish.search.row_groups import dequantized, matching_groups, read, stored_columns

_COLUMNS = ["id", "embedding", "lon", "lat", "datetime"]


class EmbeddingsDataset:
    """Chips of a release, one by one: a map-style dataset for `torch.utils.data.DataLoader`.

    An item is a dictionary: `embedding` (float32 tensor [D], the scale of quantized vectors applied), `lon` and `lat`
    (degrees, WGS 84), `time` (seconds since 1970, UTC) and `id`. Rows are read a row group at a time and the last one
    is kept, so that reading in order, or in blocks, is fast; each worker of a DataLoader opens the files for itself.

    Args:
        where: a release, as for `open_release`, or a reader.
        bbox: west, south, east, north in degrees.
        datetime: RFC 3339 date, time, or interval.
        options: as for `open_release`.

    Raises:
        MissingExtraError: PyTorch is not installed.
        QueryError, ReleaseError: as for `ReleaseReader.chips`.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | ReleaseReader,
        bbox: Sequence[float] | None = None,
        datetime: str | None = None,
        **options: Any,
    ) -> None:
        _torch()
        self._options = options
        self._where = where.release.store.where if isinstance(where, ReleaseReader) else os.fspath(where)
        self._extent = Extent.of(bbox, datetime)
        reader = where if isinstance(where, ReleaseReader) else self._open()
        self._paths = reader.shelf(self._extent).paths
        self._groups, self._rows = _index(reader, self._paths, self._extent)
        self._starts = np.cumsum([0, *(len(rows) for rows in self._rows)])
        self._forget()

    def _forget(self) -> None:
        self._reader: ReleaseReader | None = None
        self._process = os.getpid()
        self._at = -1
        self._table: pa.Table | None = None

    def _open(self) -> ReleaseReader:
        return open_release(self._where, **self._options)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: they do not survive the way to another process."""
        return {**vars(self), "_reader": None, "_table": None, "_at": -1}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        torch = _torch()
        if not -len(self) <= index < len(self):
            msg = f"{index} (there are {len(self)} chips)"
            raise IndexError(msg)
        place = index % len(self)
        group = int(np.searchsorted(self._starts, place, side="right") - 1)
        chip = self._group(group).slice(int(place - self._starts[group]), 1)
        embedding = chip["embedding"].combine_chunks().flatten().to_numpy().copy()
        return {
            "embedding": torch.from_numpy(embedding),
            "lon": chip["lon"][0].as_py(),
            "lat": chip["lat"][0].as_py(),
            "time": chip["datetime"][0].value / 1e6,
            "id": chip["id"][0].as_py(),
        }

    def _group(self, number: int) -> pa.Table:
        if self._process != os.getpid():  # a worker that was forked must not share the files of its parent
            self._forget()
        if self._table is None or self._at != number:
            self._reader = self._reader or self._open()
            file, group = self._groups[number]
            release, path = self._reader.release, self._paths[file]
            opened = release.parquet(path)
            names = stored_columns(_COLUMNS, opened.schema_arrow.names)
            rows = read(opened, [group], names, release.store.path(path)).take(pa.array(self._rows[number]))
            self._table = dequantized(rows, self._reader.schema(_COLUMNS))
            self._at = number
        return self._table


def _index(
    reader: ReleaseReader, paths: Sequence[str], extent: Extent
) -> tuple[list[tuple[int, int]], list["np.ndarray[Any, np.dtype[np.int64]]"]]:
    """File and number of each row group that holds chips within an extent, and their rows in it."""
    groups, rows = [], []
    for number, path in enumerate(paths):
        for group, mask in matching_groups(reader.release.parquet(path), extent, reader.release.store.path(path)):
            groups.append((number, group))
            rows.append(np.flatnonzero(mask))
    if not groups:
        raise QueryError(reader.release.store.where, "has no chip in this box and time")
    return groups, rows


def _torch() -> "Any":
    try:
        import torch  # noqa: PLC0415 - gigabytes that reading does not need
    except ImportError as error:
        raise MissingExtraError(
            "clay_publish.torch", "needs PyTorch, which is not installed", fix="pip install torch"
        ) from error
    return torch
