"""Page headers of a Parquet file, read without decoding a page.

Source: Apache Parquet format, `PageHeader` in parquet.thrift; Thrift compact protocol.
"""

from dataclasses import dataclass
from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_MAX_DEPTH = 8


@dataclass(frozen=True)
class PageHeader:
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


def read_page_header(file: Any, place: int) -> PageHeader:
    """Read the header at a place of a file.

    Raises:
        ValueError: there is none.
    """
    file.seek(place)
    data = file.read(_SHORT)
    try:
        return page_header(data)
    except ValueError:
        return page_header(data + file.read(_LONG))


def page_header(data: bytes) -> PageHeader:
    """Read the header at the start of `data`.

    Raises:
        ValueError: there is none, or it does not end inside of `data`.
    """
    try:
        numbers, length = _struct(data, 0, 0)
    except IndexError:
        msg = "does not end"
        raise ValueError(msg) from None
    if not {1, 2, 3} <= numbers.keys() or numbers[2] < 0 or numbers[3] < 0:
        msg = "is no page header"
        raise ValueError(msg)
    return PageHeader(numbers[1], numbers[2], numbers[3], 4 in numbers, length)


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
