"""Small files that would fill the memory when they are read: found from footers and page headers, before any decoding.

A few bytes of Parquet can claim a billion rows, decompress to gigabytes, or repeat one long text in every row.
"""

from typing import IO, Any

import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.validate.page_headers import PageHeader, page_header

MAX_FOOTER = 64_000_000
"""Bytes of a footer: it is decoded whole, to several times its size."""

MAX_COLUMNS = 5_000
MAX_PAGE = 64_000_000
"""Bytes of a page, decompressed. Writers make pages of about a megabyte."""

MAX_BATCH = 48_000_000
"""Bytes of a batch of rows, at worst."""

_FREE_VALUES = 1 << 24
"""So many values in a column chunk need no bytes on disk: vectors may all be the same."""
_VALUES_A_BYTE = 64
_HEADER = 4096
"""Bytes that a page header takes at most; statistics in it are short."""


def check_tail(file: IO[bytes], size: int, path: str) -> None:
    """Look at the length of the footer before it is read.

    Raises:
        ReleaseError: it is larger than footers are.
    """
    if size < 12:
        return  # whoever opens it says so
    file.seek(size - 8)
    length = int.from_bytes(file.read(8)[:4], "little")
    if length > MAX_FOOTER:
        raise ReleaseError(path, f"claims a footer of {length:,} bytes", f"at most {MAX_FOOTER:,}")


def check_footer(footer: pq.FileMetaData, size: int, path: str) -> None:
    """Compare what the footer claims with the size of the file.

    Raises:
        ReleaseError: it claims more than can be there.
    """
    if footer.num_columns > MAX_COLUMNS:
        raise ReleaseError(path, f"claims {footer.num_columns:,} columns", f"at most {MAX_COLUMNS:,}")
    rows = 0
    for group in _groups(footer):
        rows += group.num_rows
        for number in range(group.num_columns):
            column = group.column(number)
            allowed = max(_FREE_VALUES, _VALUES_A_BYTE * max(column.total_compressed_size, 0))
            if column.num_values > allowed:
                raise ReleaseError(
                    path,
                    f"claims {column.num_values:,} values of {column.path_in_schema} "
                    f"in {column.total_compressed_size:,} bytes",
                    f"at most {allowed:,}",
                )
    claimed = max(rows, footer.num_rows)
    if claimed > size:
        raise ReleaseError(path, f"claims {claimed:,} rows in {size:,} bytes", "a byte a row at least")
    if footer.num_rows != rows:
        raise ReleaseError(path, f"claims {footer.num_rows:,} rows and has {rows:,} in its row groups", "one number")


def _groups(footer: pq.FileMetaData) -> list[Any]:
    return [footer.row_group(number) for number in range(footer.num_row_groups)]


def check_pages(file: IO[bytes], footer: pq.FileMetaData, size: int, path: str, groups: int | None = None) -> int:
    """Walk over the page headers; the rows that may be read at once.

    Args:
        groups: look at so many row groups only.

    Raises:
        ReleaseError: a page decompresses to more than pages hold, or a header cannot be read.
    """
    rows = 1 << 20
    for group in _groups(footer)[:groups]:
        width = 0
        for number in range(group.num_columns):
            column = group.column(number)
            start = column.dictionary_page_offset or column.data_page_offset
            repeated = _pages_of(file, start, start + column.total_compressed_size, size, f"{path}: {column.path_in_schema}")
            values = -(-column.num_values // max(group.num_rows, 1))
            width += 8 * values
            if column.physical_type == "BYTE_ARRAY":
                width += max(repeated * values, column.total_uncompressed_size // max(group.num_rows, 1))
        rows = min(rows, max(1, MAX_BATCH // max(width, 1)))
    return rows


def _pages_of(file: IO[bytes], place: int, end: int, size: int, where: str) -> int:
    """Bytes of the column's largest dictionary, decompressed: any row may repeat all of it."""
    if not 0 <= place <= end <= size:
        raise ReleaseError(where, f"lies at bytes {place:,} to {end:,} of {size:,}", "inside the file")
    largest = 0
    while place < end:
        page = _page_at(file, place, where)
        if page.uncompressed > MAX_PAGE:
            raise ReleaseError(
                where, f"has a page that decompresses to {page.uncompressed:,} bytes", f"at most {MAX_PAGE:,}"
            )
        if page.dictionary:
            largest = max(largest, page.uncompressed)
        place += page.length + page.compressed
    return largest


def _page_at(file: IO[bytes], place: int, where: str) -> PageHeader:
    file.seek(place)
    try:
        return page_header(file.read(_HEADER))
    except ValueError as error:
        raise ReleaseError(where, f"has no page header at byte {place:,} (it {error})") from error


