"""What one chip, one column and a whole scan cost, by the rows of a row group and the bytes of a page.

`python benchmarks/row_groups.py [ROWS] [DIMENSIONS]`
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scenes import served

from clay_publish.release import geoparquet
from clay_publish.release.geoparquet import group_rows, write_table
from clay_publish.storage.store import Store
from clay_publish.validate.data.page_headers import page_headers

_PAGES = (64, 128, 256, 512, 1024)
"""kB of a data page, at most."""


def main() -> None:
    """Print one line for each way of writing."""
    rows, dimensions = (int(text) for text in (*sys.argv[1:], "65536", "512")[:2])
    values = np.random.default_rng(0).normal(size=rows * dimensions).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), dimensions)
    table = pa.table({"id": [f"chip-{n:09}" for n in range(rows)], "embedding": vectors})
    with tempfile.TemporaryDirectory() as folder:
        written = {"format-1": Path(folder) / "format-1.parquet", "grouped": Path(folder) / "grouped.parquet"}
        options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": False,
            "use_byte_stream_split": ["embedding.list.element"],
        }
        options |= {"compression_level": 1, "use_content_defined_chunking": True, "write_page_checksum": True}
        pq.write_table(table, written["format-1"], row_group_size=16_384, **options)
        pq.write_table(table, written["grouped"], row_group_size=group_rows(table.schema), **options)
        for size in _PAGES:
            geoparquet._PAGE = size * 875  # noqa: SLF001 - what is compared: a page ends after the batch that reaches it
            name = f"{size}-kB"
            write_table(Store(folder), f"{name}.parquet", table)
            written[name] = Path(folder) / f"{name}.parquet"
        with served(Path(folder), 0.0) as server:
            for name, path in written.items():
                _measure(name, path, values[:dimensions], server)


def _measure(name: str, path: Path, query: np.ndarray, server: Any) -> None:
    group = pq.read_metadata(path).row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith("embedding"))
    start = column.data_page_offset
    with path.open("rb") as file:
        pages = [
            page.length + page.compressed for page in page_headers(file, start, start + column.total_compressed_size)
        ]
    scan = _seconds(lambda: pq.read_table(path, columns=["embedding"]))
    top = f"SELECT id FROM '{path}' ORDER BY list_cosine_similarity(embedding, {query.tolist()}::FLOAT[]) DESC LIMIT 10"
    similar = _seconds(lambda: duckdb.execute(top).fetchall())
    _, before = server.now()
    address = f"{server.url}/{path.name}"
    streamed = datasets.load_dataset("parquet", data_files=address, split="train", streaming=True, columns=["id"])
    stream = _seconds(lambda: sum(1 for _ in streamed))
    print(
        f"{name:<9} {path.stat().st_size:>12,} bytes; one chip: {column.total_compressed_size:>10,} without page index,"
        f" {round(np.mean(pages)):>10,} with; pyarrow {scan:.2f} s, DuckDB top 10 {similar:.2f} s,"
        f" datasets streams `id` {stream:.2f} s, {server.now()[1] - before:,} bytes",
        flush=True,
    )


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
