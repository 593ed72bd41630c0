"""What reading a release on a server costs, in requests and bytes counted on loopback; and the cache on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from range_server import RangeServer

from clay_publish.catalog import write_items
from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import write_table
from clay_publish.search.reader import LIGHT, ReleaseReader, open_release
from clay_publish.storage.range_cache import RangeCache

WIDE = 512
PLACE = (-75.6, 36.35)
"""In the middle of the release."""


@pytest.fixture(scope="module")
def folder(once: Callable[..., Path], part: Any, make_release: Any) -> Path:
    """A release of 6,000 chips of 512 numbers in one file of several row groups, and a second file."""

    def build(home: Path) -> None:
        cells = [(row, col) for row in range(3126, 3203) for col in range(313, 390)]
        release = make_release(part(Square(18, 4, 40), cells), part(Square(17, 4, 40), cells[:1100]), home=home)
        random = np.random.default_rng(0)
        for path in release.data_files():
            table = pq.read_table(release.store.path(path), partitioning=None)
            kind = pa.list_(pa.field("element", pa.float32(), nullable=False), WIDE)
            values = pa.array(random.normal(size=table.num_rows * WIDE).astype(np.float32))
            column = pa.FixedSizeListArray.from_arrays(values, type=kind)
            field = pa.field("embedding", kind, nullable=False)
            wide = table.set_column(table.schema.get_field_index("embedding"), field, column)
            write_table(release.store, path, wide)
        write_items(release)

    return once("wide", build)
