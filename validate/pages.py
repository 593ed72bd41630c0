"""Whether the pages of a Parquet file carry checksums, from the page headers themselves.

"""

from typing import Any

import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.validate.page_headers import page_header

_HEADER_BYTES = 4096


def columns_without_checksum(file: Any, footer: pq.FileMetaData, path: str) -> list[str]:
    """Columns whose first page in the first row group has no CRC.

    Raises:
        ReleaseError: a page header cannot be read.
    """
    if footer.num_row_groups == 0:
        return []
    group = footer.row_group(0)
    bare = []
    for number in range(group.num_columns):
        column = group.column(number)
        offset = column.dictionary_page_offset or column.data_page_offset
        file.seek(offset)
        try:
            header = page_header(file.read(_HEADER_BYTES))
        except ValueError as error:
            raise ReleaseError(path, f"has no page header at byte {offset}") from error
        if not header.crc:
            bare.append(column.path_in_schema)
    return bare
