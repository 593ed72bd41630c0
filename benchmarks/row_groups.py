"""What one chip and a whole scan cost with row groups of two sizes, with and without small pages.

`python benchmarks/row_groups.py [ROWS] [DIMENSIONS]`
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.release.geoparquet import group_rows, write_table
from clay_publish.storage.store import Store


class _Counted:
    """A file that counts the bytes read from it."""

    closed = False

    def __init__(self, path: Path) -> None:
        self.file, self.bytes = path.open("rb"), 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bytes += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def main() -> None:
    """Print one line for each way of writing."""
    rows, dimensions = (int(text) for text in (*sys.argv[1:], "65536", "512")[:2])
    values = np.random.default_rng(0).normal(size=rows * dimensions).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), dimensions)
    table = pa.table({"id": [f"chip-{n:09}" for n in range(rows)], "embedding": vectors})
    with tempfile.TemporaryDirectory() as folder:
        old, grouped, new = (Path(folder) / f"{name}.parquet" for name in ("old", "grouped", "new"))
        options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": False,
            "use_byte_stream_split": ["embedding.list.element"],
        }
        options |= {"compression_level": 1, "use_content_defined_chunking": True, "write_page_checksum": True}
        pq.write_table(table, old, row_group_size=16_384, **options)
        pq.write_table(table, grouped, row_group_size=group_rows(table.schema), **options)
        write_table(Store(folder), new.name, table)
        for path in (old, grouped, new):
            counted = _Counted(path)
            file = pq.ParquetFile(counted)
            before = counted.bytes
            file.read_row_group(0, columns=["embedding"])
            begun = time.perf_counter()
            pq.read_table(path, columns=["embedding"])
            scan = time.perf_counter() - begun
            begun = time.perf_counter()
            duckdb.sql(
                f"SELECT id FROM '{path}' ORDER BY list_cosine_similarity(embedding,"
                f" {values[:dimensions].tolist()}::FLOAT[]) DESC LIMIT 10"
            ).fetchall()
            query = time.perf_counter() - begun
            print(
                f"{path.stem:<8} {path.stat().st_size:>12,} bytes, footer {before:>9,}, one chip"
                f" {counted.bytes - before:>11,}, pyarrow scan {scan:.2f} s, DuckDB top 10 {query:.2f} s"
            )


if __name__ == "__main__":
    main()
