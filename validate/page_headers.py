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
    reader = _Reader(data)
    try:
        numbers = reader.struct(0)
    except IndexError:
        msg = "does not end"
        raise ValueError(msg) from None
    if not {1, 2, 3} <= numbers.keys() or numbers[2] < 0 or numbers[3] < 0:
        msg = "is no page header"
        raise ValueError(msg)
    return PageHeader(numbers[1], numbers[2], numbers[3], 4 in numbers, reader.place)


class _Reader:
    """Walks over one structure."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def byte(self) -> int:
        value = self.data[self.place]
        self.place += 1
        return value

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                msg = "holds a number that is too long"
                raise ValueError(msg)

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, int]:
        """The 32-bit numbers of a structure, by field; the rest is skipped."""
        if depth > _MAX_DEPTH:
            msg = "is nested too deeply"
            raise ValueError(msg)
        field, numbers = 0, {}
        while (head := self.byte()) != _STOP:
            kind = head & 0x0F
            field = field + (head >> 4) if head >> 4 else self.zigzag()
            if kind == _I32:
                numbers[field] = self.zigzag()
            else:
                self.skip(kind, depth)
        return numbers

    def skip(self, kind: int, depth: int) -> None:
        if kind in {_TRUE, _FALSE}:
            return
        if kind == _BYTE:
            self.place += 1
        elif kind in {_I16, _I32, _I64}:
            self.varint()
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _BINARY:
            length = self.varint()
            self.place += length
        elif kind == _STRUCT:
            self.struct(depth + 1)
        else:  # no page header holds lists, sets or maps
            msg = f"holds a value of kind {kind}"
            raise ValueError(msg)
