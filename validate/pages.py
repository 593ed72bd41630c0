"""Whether the pages of a Parquet file carry checksums, from the page headers themselves.

Source: Apache Parquet format, `PageHeader` in parquet.thrift; Thrift compact protocol.
"""

from clay_publish.errors import ReleaseError
from clay_publish.validate.view import View

_CRC = 4
"""Field number of `PageHeader.crc`."""
_HEADER_BYTES = 64
_I32 = 5


def columns_without_checksum(view: View, path: str) -> list[str]:
    """Columns whose first page in the first row group has no CRC.

    Raises:
        ReleaseError: a page header cannot be read.
    """
    footer = view.footer_of(path)
    if footer.num_row_groups == 0:
        return []
    group = footer.row_group(0)
    bare = []
    with view.release.store.open(path) as file:
        for number in range(group.num_columns):
            column = group.column(number)
            offset = column.dictionary_page_offset or column.data_page_offset
            file.seek(offset)
            has = _has_crc(file.read(_HEADER_BYTES))
            if has is None:
                raise ReleaseError(path, f"has no page header at byte {offset}")
            if not has:
                bare.append(column.path_in_schema)
    return bare


def _has_crc(data: bytes) -> bool | None:
    """Whether a page header has a checksum; None where it is no page header."""
    place, field = 0, 0
    # The first fields are numbers: type, two sizes, then the optional checksum. The first structure ends the search.
    while place < len(data):
        head = data[place]
        delta, kind = head >> 4, head & 0x0F
        if kind != _I32 or delta == 0:
            return False
        field += delta
        if field == _CRC:
            return True
        place += 1
        while place < len(data) and data[place] & 0x80:
            place += 1
        place += 1
    return None
