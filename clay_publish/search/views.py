"""Chips with the columns of other embedding products, for readers that were written for these."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_publish.geo.major_tom_grid import cells_at, numbers_of_cell
from clay_publish.release.geoparquet import geo_metadata
from clay_publish.search.query import QueryError
from clay_publish.storage.store import Store

View = Literal["major-tom", "earth-index"]
VIEWS: tuple[View, ...] = get_args(View)

COLUMNS = ["id", "datetime", "lon", "lat", "item_id", "geometry", "embedding"]
"""Of a release, that the views are made of."""


def write_view(out: Path, view: View, batches: Iterable[pa.RecordBatch]) -> int:
    """Write chips as GeoParquet with the columns of another product; the file appears complete or not at all.

    `major-tom` is what TorchGeo's `MajorTOMEmbeddings` reads: `unique_id`, `embedding`, `timestamp`, `product_id`,
    `grid_cell`, `grid_row_u`, `grid_col_r`, `centre_lat`, `centre_lon` and the footprint as `geometry`. `earth-index`
    is what `EarthIndexEmbeddings` reads: `id`, `embedding`, and the center as `geometry`.

    Args:
        out: a file that ends in `.parquet`.
        view: which.
        batches: chips with `COLUMNS`.

    Returns:
        How many.

    Raises:
        QueryError: another ending, or no chip.
    """
    if out.suffix != ".parquet":
        raise QueryError(str(out), f"ends with {out.suffix or 'nothing'}", ".parquet")
    made = _major_tom(batches) if view == "major-tom" else _earth_index(batches)
    first = next(made, None)
    if first is None:
        raise QueryError(str(out), "no chip was found", "a box and a time with chips")
    geo = {b"geo": json.dumps(geo_metadata([], None)).encode()}
    rows = 0
    with (
        Store(out.resolve().parent).writer(out.name) as file,
        pq.ParquetWriter(file, first.schema.with_metadata(geo), compression="zstd", compression_level=1) as writer,
    ):
        for table in (first, *made):
            writer.write_table(table.replace_schema_metadata(geo))
            rows += table.num_rows
    return rows


def _major_tom(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    for batch in batches:
        lon, lat = batch["lon"].to_numpy(), batch["lat"].to_numpy()
        cells = cells_at(np.mod(lon + 180, 360) - 180, lat)
        numbers = np.array([numbers_of_cell(name) for name in cells], dtype=np.int64).reshape(-1, 2)
        columns = {
            "unique_id": batch["id"],
            "embedding": batch["embedding"],
            "timestamp": batch["datetime"],
            "product_id": batch["item_id"],
            "grid_cell": pa.array(cells.tolist(), pa.string()),
            "grid_row_u": pa.array(numbers[:, 0]),
            "grid_col_r": pa.array(numbers[:, 1]),
            "geometry": batch["geometry"],
            "centre_lat": batch["lat"],
            "centre_lon": batch["lon"],
        }
        yield pa.table(columns)


def _earth_index(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    for batch in batches:
        points = shapely.to_wkb(shapely.points(batch["lon"].to_numpy(), batch["lat"].to_numpy()))
        columns = {"id": batch["id"], "embedding": batch["embedding"], "geometry": pa.array(list(points), pa.binary())}
        yield pa.table(columns)
