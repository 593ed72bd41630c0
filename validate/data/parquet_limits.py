"""Small files that would fill the memory when they are read: found from footers and page headers, before any decoding.

A few bytes of Parquet can claim a billion rows, decompress to gigabytes, or repeat one long text in every row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_MAX_DEPTH = 8


class PageHeader(NamedTuple):
    """What a page says of itself."""

    kind: int
    """0 data, 2 dictionary, 3 data of version 2."""
    uncompressed: int
    compressed: int
    """Bytes of the page, without the header."""
    crc: bool
    length: int
    """Bytes of the header."""

    @property
    def dictionary(self) -> bool:
        """Whether it holds the values that data pages point to."""
        return self.kind == 2


_SHORT, _LONG = 256, 1 << 16
"""Bytes that nearly all headers fit into, and that all do: they may quote the least and the largest value."""

_MANY = 1 << 14
"""Bytes that are read at once where all headers are wanted: several, if pages are small."""


def page_headers(file: Any, start: int, end: int, *, first: bool = False) -> Iterator[PageHeader]:
    """The headers of the pages between two places of a file; with `first`, up to the first data page.

    Raises:
        ValueError: there is none where one should be.
    """
    place, data, at = start, b"", 0
    while place < end:
        if not at <= place <= at + len(data) - _SHORT:
            file.seek(place)
            data, at = file.read(_SHORT if first else _MANY), place
        try:
            page = page_header(data, place - at)
        except ValueError:
            file.seek(place)
            data, at = file.read(_LONG), place
            try:
                page = page_header(data)
            except ValueError as error:
                msg = f"has no page header at byte {place:,} (it {error})"
                raise ValueError(msg) from error
        yield page
        if first and not page.dictionary:
            return
        place += page.length + page.compressed


def page_header(data: bytes, start: int = 0) -> PageHeader:
    """Read the header at a place of `data`.

    Raises:
        ValueError: there is none, or it does not end inside of `data`.
    """
    try:
        numbers, end = _struct(data, start, 0)
    except IndexError:
        msg = "does not end"
        raise ValueError(msg) from None
    if not {1, 2, 3} <= numbers.keys() or numbers[2] < 0 or numbers[3] < 0:
        msg = "is no page header"
        raise ValueError(msg)
    return PageHeader(numbers[1], numbers[2], numbers[3], 4 in numbers, end - start)


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, int], int]:
    """The 32-bit numbers of a structure, by field, and where it ends; the rest is skipped."""
    if depth > _MAX_DEPTH:
        msg = "is nested too deeply"
        raise ValueError(msg)
    field, numbers = 0, {}
    while (head := data[place]) != _STOP:
        place += 1
        kind = head & 0x0F
        if head >> 4:
            field += head >> 4
        else:
            field, place = _zigzag(data, place)
        if kind == _I32:
            numbers[field], place = _zigzag(data, place)
        elif kind == _BINARY:
            length, place = _varint(data, place)
            place += length
        elif kind == _STRUCT:
            place = _struct(data, place, depth + 1)[1]
        elif kind in {_I16, _I64}:
            place = _varint(data, place)[1]
        elif kind in {_BYTE, _DOUBLE}:
            place += 1 if kind == _BYTE else 8
        elif kind not in {_TRUE, _FALSE}:  # no page header holds lists, sets or maps
            msg = f"holds a value of kind {kind}"
            raise ValueError(msg)
    return numbers, place + 1


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = data[place]
    if value < 0x80:  # nearly all
        return value, place + 1
    value &= 0x7F
    shift = 7
    while True:
        place += 1
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
        if shift > 63:
            msg = "holds a number that is too long"
            raise ValueError(msg)


def _zigzag(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


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
class DecodingCost:
    """What reading a file takes, at worst."""

    rows: int
    """Rows that may be read at once."""
    pages: int
    """Bytes of the pages that are open at the same time."""
    bare: list[str]
    """Columns whose first page carries no checksum."""


def check_pages(
    file: Any, footer: pq.FileMetaData, size: int, path: str, *, groups: list[int] | None = None, first: bool = False
) -> DecodingCost:
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
    return DecodingCost(rows, most, list(bare))


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
