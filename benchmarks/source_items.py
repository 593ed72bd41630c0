"""Tables of source items for releases that benchmarks build: like those of Sentinel-2 that a plan makes.

Ten bands, a mask, eleven assets with addresses and checksums, a sample of the pixels, and a footprint for each item.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import shapely

from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import bbox_array, geo_metadata, group_rows, table_writer
from clay_publish.release.tables import TIMESTAMP, sources_schema
from clay_publish.spec.sensors import SENSORS

SENSOR = SENSORS["sentinel-2-l2a"]
ASSETS = [band.name for band in SENSOR.bands]


def sources_of(
    names: Sequence[str],
    shapes: np.ndarray,
    moments: Sequence[datetime],
    acquisitions: Sequence[str],
    corners: Sequence[tuple[int, float, float]] | None = None,
) -> pa.Table:
    """Images that are all used, by their footprints, with the schema of `sources.parquet`.

    Corners are those in the north-west, as an EPSG code, x and y; without them, items do not state their pixel grid.
    """
    count, schema = len(names), sources_schema()
    band = {"band": 1, "scale": 0.0001, "offset": -0.1, "source": "band: common name; values: item"}
    sample = {"valid": 0.9, "minimum": 1001.0, "p1": 1100.0, "p50": 2500.0, "p99": 6000.0, "maximum": 9000.0}
    mask = {"asset": "scl", "bands": [1], "format": "classes", "cloudy": [3, 8, 9, 10], "nodata": [0]}
    values = {
        "id": names,
        "collection": ["sentinel-2-l2a"] * count,
        "block": [0] * count,
        "status": ["used"] * count,
        "reason": [None] * count,
        "geometry": shapely.to_wkb(shapes),
        "bbox": bbox_array(shapes),
        "datetime": pa.array(moments, TIMESTAMP),
        "start_datetime": pa.nulls(count, TIMESTAMP),
        "end_datetime": pa.nulls(count, TIMESTAMP),
        "platform": ["sentinel-2a"] * count,
        "acquisition": acquisitions,
        "cloud_cover": np.random.default_rng(count).uniform(0, 100, count),
        "proj_code": [f"EPSG:{epsg}" for epsg, _, _ in corners] if corners else [None] * count,
        "proj_shape": [[10980, 10980] if corners else None] * count,
        "proj_transform": [[10.0, 0.0, x, 0.0, -10.0, y] for _, x, y in corners] if corners else [None] * count,
        "bands": [[band | {"name": name, "asset": name} for name in ASSETS]] * count,
        "mask": [mask] * count,
        "level": ["s2:product_type 's2msi2a'"] * count,
        "evidence": [
            {
                "status": "plausible",
                "sentences": [],
                "bands": [sample | {"name": name, "p50": 2500.0 + n % 1000} for name in ASSETS],
            }
            for n in range(count)
        ],
        "license": ["CC0-1.0"] * count,
        "attribution": ["Contains modified Copernicus Sentinel data 2023"] * count,
        "href": [f"https://example.org/collections/sentinel-2-l2a/items/{name}" for name in names],
        "assets": [
            [
                {
                    "key": key,
                    "href": f"https://example.org/sentinel-s2-l2a-cogs/31/N/EG/2023/1/{name}/{key}.tif",
                    "etag": f'"{hashlib.sha256(name.encode()).hexdigest()[:32]}-{place}"',
                    "size": None,
                }
                for place, key in enumerate([*ASSETS, "scl"])
            ]
            for name in names
        ],
    }
    arrays = [v if isinstance(v, pa.Array) else pa.array(v, schema.field(n).type) for n, v in values.items()]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_sources(release: Release, tables: Iterable[pa.Table], bbox: Sequence[float]) -> None:
    """Write `sources.parquet`, some rows at a time."""
    rows = group_rows(sources_schema())
    schema = sources_schema().with_metadata({"geo": json.dumps(geo_metadata({"Polygon"}, [*bbox]))})
    with table_writer(release.store, paths.SOURCES, schema) as writer:
        for table in tables:
            for start in range(0, table.num_rows, rows):
                writer.write_table(table.slice(start, rows).cast(schema), row_group_size=rows)
