"""Rows of the tables of bigger chips: where blocks lie, and what the means of their chips are."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.geoparquet import bbox_array
from clay_publish.producer.assemble import hilbert_order
from clay_publish.producer.rows import quantize
from clay_publish.squares import Square, squares_of
from clay_publish.tables import TIMESTAMP, Dtype

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Places:
    """Where blocks lie; one entry a block."""

    ids: npt.NDArray[np.object_]
    epsg: npt.NDArray[Any]
    row: Ints
    col: Ints
    lon: Floats
    lat: Floats
    geometry: npt.NDArray[np.object_]

    def only(self, which: Ints | slice) -> "Places":
        """Some of them, in this order."""
        return Places(
            ids=self.ids[which],
            epsg=self.epsg[which],
            row=self.row[which],
            col=self.col[which],
            lon=self.lon[which],
            lat=self.lat[which],
            geometry=self.geometry[which],
        )

    @cached_property
    def squares(self) -> list[Square]:
        """Which published file each belongs to."""
        return squares_of(self.lon, self.lat)

    @cached_property
    def order(self) -> Ints:
        """Along a Hilbert curve."""
        return hilbert_order(pa.table({"lon": self.lon, "lat": self.lat, "id": pa.array(self.ids, pa.string())}))


def block_rows(schema: pa.Schema, places: Places, chips: pa.Table, each: int, dtype: Dtype) -> pa.Table:
    """Rows for blocks of `each` chips, which follow one another in `chips`.

    The mean of what is stored, in float32; a loss or cloud fraction only where every chip has one; the period from the
    first start to the last end, and its middle as the date; the image that most chips are taken from.
    """
    count = len(places.ids)
    kind = schema.field("embedding").type
    stored, scale = quantize(_means(chips, each), dtype)
    begin = chips["start_datetime"].to_numpy().reshape(count, each).min(axis=1)
    end = chips["end_datetime"].to_numpy().reshape(count, each).max(axis=1)
    images = chips["item_id"].to_pylist()
    sources = chips["item_ids"].to_pylist()
    columns: dict[str, Any] = {
        "id": pa.array(places.ids, pa.string()),
        "geometry": shapely.to_wkb(places.geometry),
        "bbox": bbox_array(places.geometry),
        "datetime": pa.array(begin + (end - begin) // 2).cast(TIMESTAMP),
        "start_datetime": pa.array(begin).cast(TIMESTAMP),
        "end_datetime": pa.array(end).cast(TIMESTAMP),
        "lon": places.lon,
        "lat": places.lat,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1), kind.value_type), type=kind),
        "scale": scale,
        **{name: _mean(chips[name], each) for name in ("loss", "valid_fraction", "cloud_fraction")},
        "item_id": [_most(images[n : n + each]) for n in range(0, len(images), each)],
        "item_ids": [sorted(set().union(*sources[n : n + each])) for n in range(0, len(sources), each)],
        "epsg": pa.array(places.epsg, pa.int32(), from_pandas=True),
        "row": pa.array(places.row, pa.int32()),
        "col": pa.array(places.col, pa.int32()),
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema.remove_metadata())


def _means(chips: pa.Table, each: int) -> npt.NDArray[np.float32]:
    """[blocks, D]."""
    column = chips["embedding"].combine_chunks()
    values = column.flatten().to_numpy().reshape(chips.num_rows, -1).astype(np.float32)
    if "scale" in chips.column_names:
        values *= chips["scale"].to_numpy()[:, None]
    means: npt.NDArray[np.float32] = values.reshape(-1, each, values.shape[1]).mean(axis=1, dtype=np.float64)
    return means.astype(np.float32)


def _mean(column: pa.ChunkedArray, each: int) -> pa.Array:
    """Null where any chip has none."""
    values = column.to_numpy().astype(np.float64).reshape(-1, each).mean(axis=1)
    return pa.array(values.astype(np.float32), from_pandas=True)


def _most(names: list[str]) -> str:
    """The most frequent; of several, the first by name."""
    counts = Counter(names)
    return min(counts, key=lambda name: (-counts[name], name))
