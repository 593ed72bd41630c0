"""Small files that would fill the memory when they are read: found from footers and page headers, before any decoding.

A few bytes of Parquet can claim a billion rows, decompress to gigabytes, or repeat one long text in every row.
"""

from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.validate.page_headers import page_headers

MAX_FOOTER = 64_000_000
"""Bytes of a footer: it is decoded whole, to several times its size."""

MAX_COLUMNS = 5_000
MAX_PAGE = 128_000_000
"""Bytes of a page, decompressed. Most writers make pages of a megabyte, one makes them of up to a hundred."""

MAX_PAGES = 256_000_000
"""Bytes of the largest pages of all columns together."""

_SMALL_DICTIONARY = 1 << 14
"""Bytes of a dictionary whose longest text is not looked for."""

_WIDTHS = {"DOUBLE": 8, "INT64": 8, "INT96": 12, "BYTE_ARRAY": 12, "FIXED_LEN_BYTE_ARRAY": 16}
"""Bytes of a value in memory, by physical type; 4 of any other."""

MAX_BATCH = 48_000_000
"""Bytes of a batch of rows, at worst."""

_FREE_VALUES = 1 << 24
"""So many values in a column chunk need no bytes on disk: vectors may all be the same."""
_VALUES_A_BYTE = 64


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


@dataclass(frozen=True)
class Cost:
    """What reading a file takes, at worst."""

    rows: int
    """Rows that may be read at once."""
    pages: int
    """Bytes of the pages that are open at the same time."""
    bare: list[str]
    """Columns whose first page carries no checksum."""


def check_pages(
    file: Any, footer: pq.FileMetaData, size: int, path: str, *, groups: list[int] | None = None, first: bool = False
) -> Cost:
    """Walk over the page headers.

    Args:
        file: the file's bytes; it is left open.
        groups: look at these row groups only.
        first: look at the first data page of each column only.

    Raises:
        ReleaseError: pages decompress to more than pages hold, or a header cannot be read.
    """
    rows, most = 1 << 20, 0
    bare: dict[str, None] = {}
    for number in range(footer.num_row_groups) if groups is None else groups:
        group = footer.row_group(number)
        width = pages = 0
        for place in range(group.num_columns):
            column = group.column(place)
            found = _pages_of(file, column, size, f"{path}: {column.path_in_schema}", first=first)
            largest, repeated = found.largest, found.dictionary
            pages += largest + repeated
            if not found.crc:
                bare[column.path_in_schema] = None
            values = -(-column.num_values // max(group.num_rows, 1))
            width += _WIDTHS.get(column.physical_type, 4) * values
            if column.physical_type == "BYTE_ARRAY":
                if repeated > _SMALL_DICTIONARY and "." not in column.path_in_schema:
                    repeated = _longest_text(file, number, column.path_in_schema, path)
                width += max(repeated * values, column.total_uncompressed_size // max(group.num_rows, 1))
        if pages > MAX_PAGES:
            raise ReleaseError(path, f"has pages that decompress to {pages:,} bytes together", f"at most {MAX_PAGES:,}")
        rows, most = min(rows, max(1, MAX_BATCH // max(width, 1))), max(most, pages)
    return Cost(rows, most, list(bare))


@dataclass
class _Pages:
    """Of one column chunk: bytes, decompressed, of the largest page and of the dictionary; whether it has checksums."""

    largest: int = 0
    dictionary: int = 0
    crc: bool = True


def _pages_of(file: Any, column: Any, size: int, where: str, *, first: bool) -> _Pages:
    start = column.dictionary_page_offset or column.data_page_offset
    end = start + column.total_compressed_size
    if not 0 <= start <= end <= size:
        raise ReleaseError(where, f"lies at bytes {start:,} to {end:,} of {size:,}", "inside the file")
    found = _Pages()
    try:
        for page in page_headers(file, start, end, first=first):
            if page.uncompressed > MAX_PAGE:
                raise ReleaseError(
                    where, f"has a page that decompresses to {page.uncompressed:,} bytes", f"at most {MAX_PAGE:,}"
                )
            found.largest = max(found.largest, page.uncompressed)
            found.crc = found.crc and page.crc
            if page.dictionary:
                found.dictionary = page.uncompressed
    except ValueError as error:
        raise ReleaseError(where, str(error)) from error
    return found


def _longest_text(file: Any, group: int, column: str, path: str) -> int:
    """Bytes of the longest text in a dictionary, which any number of rows may repeat."""
    file.seek(0)
    source = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, mode="r")
    try:
        reader = pq.ParquetFile(source, read_dictionary=[column])
        batch = next(reader.iter_batches(1, row_groups=[group], columns=[column], use_threads=False))
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise ReleaseError(f"{path}: {column}", f"cannot be read ({error})") from error
    values = batch.column(0)
    words = values.dictionary if pa.types.is_dictionary(values.type) else values
    return int(pc.max(pc.binary_length(words)).as_py() or 0)
