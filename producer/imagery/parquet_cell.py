"""GeoTIFFs that are values of a Parquet file: the column of one row is read, and nothing beside it."""

import functools
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ImageryError
from clay_publish.producer.imagery.remote import open_ranges, public_name
from clay_publish.producer.sources.major_tom import ParquetCell
from clay_publish.storage.retry import Budget

MAX_BYTES = 512 << 20
"""Of one image; those of Major TOM have 2 MB."""
_FOOTERS = 8
"""Footers that are kept: one of 500 rows and 18 columns takes some megabytes."""
_lock = Lock()


def read_cell(cell: ParquetCell, origin: str | None, planned: str | None, budget: Budget) -> bytes:
    """Return the bytes of an image.

    Args:
        cell: which value.
        origin: address of the remote document that named it.
        planned: what identified the content of the file when the run was planned.
        budget: of time.

    Raises:
        ImageryError: not Parquet, no such row or column, or a row of another cell or product.
    """
    name = public_name(cell.href)
    source, tag = open_ranges(cell.address, origin, planned, budget)
    try:
        with source:
            footer = _footer(cell.address, tag, _UnhashedFile(source))
            columns = (cell.column, "grid_cell", "product_id")
            group = _group(footer, cell, columns, name)
            size = sum(group.column(place).total_uncompressed_size for place in range(group.num_columns)
                       if group.column(place).path_in_schema in columns)  # fmt: skip
            if size > MAX_BYTES:
                raise ImageryError(name, f"has {size:,} bytes", f"at most {MAX_BYTES:,}")
            file = pq.ParquetFile(source, metadata=footer, pre_buffer=True)
            value = file.read_row_group(cell.row, columns=list(columns)).to_pylist()[0]
    except (pa.ArrowException, IndexError) as error:
        words = " ".join(str(error).split())
        raise ImageryError(name, f"cannot be read ({words})", "a Parquet file of Major TOM") from error
    for key, wanted in (("grid_cell", cell.grid_cell), ("product_id", cell.product_id)):
        if value[key] != wanted:
            raise ImageryError(
                name, f"has the {key} {value[key]!r}", f"{wanted!r}, as metadata.parquet says",
                "Use metadata and images of one revision.",
            )  # fmt: skip
    data = value[cell.column]
    if not isinstance(data, bytes) or not data:
        found = f"has {type(data).__name__ if data else 'nothing'} in column {cell.column}"
        raise ImageryError(name, found, "the bytes of a GeoTIFF")
    return data


class _UnhashedFile:
    """A file outside the cache key."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UnhashedFile)

    def __hash__(self) -> int:
        return 0


def _footer(address: str, tag: str, held: _UnhashedFile) -> pq.FileMetaData:
    with _lock:  # else all bands of an image would fetch it
        return _read_footer(address, tag, held)


@functools.lru_cache(maxsize=_FOOTERS)
def _read_footer(address: str, tag: str, held: _UnhashedFile) -> pq.FileMetaData:  # noqa: ARG001 - they tell contents apart
    return pq.read_metadata(held.file)


def _group(footer: pq.FileMetaData, cell: ParquetCell, wanted: tuple[str, ...], name: str) -> pq.RowGroupMetaData:
    """The row group of the image."""
    if not 0 <= cell.row < footer.num_row_groups:
        raise ImageryError(name, f"has {footer.num_row_groups:,} row groups", f"row group {cell.row}")
    group = footer.row_group(cell.row)
    if group.num_rows != 1:
        raise ImageryError(name, f"has {group.num_rows:,} rows in row group {cell.row}", "one row per row group")
    names = [footer.schema.column(place).path for place in range(footer.num_columns)]
    for each in wanted:
        if names.count(each) != 1:
            found = "two columns" if each in names else "no column"
            raise ImageryError(name, f"has {found} {each}", f"one of {', '.join(names)}")
    return group
