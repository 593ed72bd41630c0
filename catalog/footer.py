"""Putting right what a Parquet file's footer says, without touching its data."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_MAGIC = b"PAR1"
_TAIL = 8
"""Bytes after the footer: its length and the magic."""


def replace_geo(path: Path, geo: dict[str, Any]) -> None:
    """Replace the `geo` key of a local Parquet file.

    Row groups stay where they are; a new footer that points at them takes the place of the old one. This costs nothing,
    where a second pass over the data would double the work.
    """
    old = pq.read_metadata(path)
    schema = pq.read_schema(path)
    schema = schema.with_metadata({**(schema.metadata or {}), b"geo": json.dumps(geo).encode()})
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "footer"
        pq.write_metadata(schema, draft, metadata_collector=[old])
        footer = draft.read_bytes()
    with path.open("r+b") as file:
        file.seek(-_TAIL, 2)
        end = file.tell()
        length = int.from_bytes(file.read(4), "little")
        file.seek(end - length)
        file.truncate()
        file.write(footer.removeprefix(_MAGIC))
