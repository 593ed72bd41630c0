"""The headers of Parquet pages, which pyarrow does not show: sizes, and whether a page carries a checksum."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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


def without_checksum(file: Any, footer: pq.FileMetaData, path: str, groups: Sequence[int], *, first: bool) -> list[str]:
    """Return the columns with pages that carry no checksum.

    Args:
        file: the file's bytes; it is left open.
        footer: its footer.
        path: its path, for messages.
        groups: the row groups that are looked at.
        first: look at the first data page of each column only.

    Raises:
        ReleaseError: a page has no header that can be read.
    """
    bare: dict[str, None] = {}
    size = file.size()
    for number in groups:
        group = footer.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            start = column.dictionary_page_offset or column.data_page_offset
            end = start + column.total_compressed_size
            where = f"{path}: {column.path_in_schema}"
            if not 0 <= start <= end <= size:
                raise ReleaseError(where, f"lies at bytes {start:,} to {end:,} of {size:,}", "inside the file")
            try:
                if not all(page.crc for page in page_headers(file, start, end, first=first)):
                    bare[column.path_in_schema] = None
            except ValueError as error:
                raise ReleaseError(where, str(error)) from error
    return list(bare)
