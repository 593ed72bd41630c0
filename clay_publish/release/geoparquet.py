"""Writing GeoParquet 1.1 the way every table of a release is written.

Source: GeoParquet 1.1.0, https://geoparquet.org/releases/v1.1.0/.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS

from clay_publish.storage.store import Store

_EARTH = (-180.0, -90.0, 180.0, 90.0)
_LEVEL = 16
_POINTS = 65_536
"""Made at once: a million of them as objects would weigh more than most tables."""


def hilbert_distance(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Distance [n] along a Hilbert curve of level 16 over the Earth; degrees, OGC:CRS84."""
    import geopandas  # noqa: PLC0415 - slow to import, with pandas

    distance = np.empty(len(lon), dtype=np.uint32)
    for start in range(0, len(lon), _POINTS):
        some = slice(start, start + _POINTS)
        points = geopandas.GeoSeries.from_xy(lon[some], lat[some])
        distance[some] = points.hilbert_distance(total_bounds=_EARTH, level=_LEVEL).to_numpy()
    return distance


_VECTORS = 4_000_000
"""Bytes of vectors in a row group, at most: a reader that wants one chip fetches little more."""
_FEWEST, _MOST, _PLAIN = 1_024, 16_384, 4_096
_PAGE = 112_000
"""Encoded bytes after which a data page ends: with the values of one more batch, at most 128 kB."""


def group_rows(schema: pa.Schema) -> int:
    """Rows of a row group, from the schema alone, so that boundaries are the same in every run.

    The largest power of two with at most 4 MB of vectors, within 1,024 and 16,384; 4,096 for a table without vectors.
    """
    vectors = [field.type for field in schema if pa.types.is_fixed_size_list(field.type)]
    if not vectors:
        return _PLAIN
    row: int = sum(kind.list_size * kind.value_type.bit_width // 8 for kind in vectors)
    fitting: int = _VECTORS // max(row, 1)
    return min(_MOST, max(_FEWEST, 1 << max(fitting.bit_length() - 1, 0)))


def bbox_array(geometries: npt.NDArray[np.object_]) -> pa.StructArray:
    """Bounds of CRS84 geometries as the covering struct.

    A MultiPolygon whose parts touch both +180 and −180 crosses the antimeridian: its xmin is the western edge of its
    eastern-hemisphere part, so xmin > xmax (RFC 7946, 5.2).
    """
    bounds = shapely.bounds(geometries)
    west, east = bounds[:, 0].copy(), bounds[:, 2].copy()
    kinds = shapely.get_type_id(geometries)
    crosses = np.flatnonzero((kinds == shapely.GeometryType.MULTIPOLYGON) & (west <= -180) & (east >= 180))
    for place in crosses:
        parts = shapely.bounds(shapely.get_parts(geometries[place]))
        if len(parts) == 1 or np.any((parts[:, 0] <= -180) & (parts[:, 2] >= 180)):
            continue  # all the way round
        west[place] = parts[parts[:, 2] >= 180, 0].min()
        east[place] = parts[parts[:, 0] <= -180, 2].max()
    sides = (west, bounds[:, 1], east, bounds[:, 3])
    fields = [pa.field(name, pa.float64(), nullable=False) for name in ("xmin", "ymin", "xmax", "ymax")]
    return pa.StructArray.from_arrays([pa.array(side) for side in sides], fields=fields)


def geo_metadata(geometry_types: Iterable[str], bbox: list[float] | None) -> dict[str, Any]:
    """The `geo` footer of a table whose column `geometry` is WKB in OGC:CRS84 with a `bbox` covering."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(geometry_types),
        "crs": json.loads(CRS("OGC:CRS84").to_json()),
        "orientation": "counterclockwise",
        "edges": "planar",
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if bbox is not None:
        column["bbox"] = bbox
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def total_bbox(boxes: npt.NDArray[np.float64]) -> list[float] | None:
    """One box around boxes of shape (n, 4); the smaller way round where some cross the antimeridian."""
    if not len(boxes):
        return None
    south, north = float(boxes[:, 1].min()), float(boxes[:, 3].max())
    crossing = boxes[:, 0] > boxes[:, 2]
    if not crossing.any():
        return [float(boxes[:, 0].min()), south, float(boxes[:, 2].max()), north]
    # Measured eastward from the first crossing box's west, everything fits in one turn or goes all the way round.
    starts = np.where(boxes[:, 0] < 0, boxes[:, 0] + 360, boxes[:, 0])
    widths = boxes[:, 2] - boxes[:, 0] + 360 * crossing
    west, east = float(starts.min()), float((starts + widths).max())
    if east - west >= 360:
        return [-180.0, south, 180.0, north]
    return [west if west <= 180 else west - 360, south, east if east <= 180 else east - 360, north]


@contextmanager
def table_writer(store: Store, path: str, schema: pa.Schema, *, index: str = "id") -> Iterator[pq.ParquetWriter]:
    """Write a table that appears complete or not at all.

    ZSTD level 1, BYTE_STREAM_SPLIT on float32 vectors, dictionary on integer ones and on text, page checksums, a bloom
    filter on `index`, content-defined chunking, a page index. Give it at most `group_rows` rows a call.
    """
    rows = group_rows(schema)
    split = [f"{f.name}.list.element" for f in schema if _is_float32_vector(f.type)]
    dictionary = [path for f in schema if f.name != index for path in _dictionary_paths(f)]
    with (
        store.writer(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=dictionary,
            use_byte_stream_split=split,
            write_page_checksum=True,
            use_content_defined_chunking=True,
            write_page_index=True,
            data_page_size=_PAGE,
            write_batch_size=8 if "thumbnail" in schema.names else 32,  # rows between two looks at the size of a page
            bloom_filter_options={index: {"ndv": rows, "fpp": 0.01}} if index in schema.names else None,
        ) as writer,
    ):
        yield writer


def write_table(store: Store, path: str, table: pa.Table, *, index: str = "id") -> None:
    """Write a whole table in row groups of `group_rows` rows."""
    rows = group_rows(table.schema)
    with table_writer(store, path, table.schema, index=index) as writer:
        for start in range(0, table.num_rows, rows):
            writer.write_table(table.slice(start, rows), row_group_size=rows)


def _is_float32_vector(kind: pa.DataType) -> bool:
    """Float16 would be 8 % smaller in BYTE_STREAM_SPLIT, and DuckDB 2.0 could not read it."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type))


def _dictionary_paths(field: pa.Field) -> list[str]:
    kind = field.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        return [field.name]
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return [f"{field.name}.list.element"]
    if pa.types.is_fixed_size_list(kind) and pa.types.is_integer(kind.value_type):
        return [f"{field.name}.list.element"]
    return []
