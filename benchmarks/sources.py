"""Stages on a release of many source items: `python benchmarks/sources.py FOLDER --sources 200000`.

The release has few chips. Its table of source items is like that of a plan of Sentinel-2: ten bands, a mask, eleven
assets with addresses and checksums, a sample of the pixels, and a footprint of its own for each item. Each stage is a
process of its own, measured as in `global.py`.
"""

import argparse
import importlib
import itertools
import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from validate_release import WINDOW, by_square, fingerprint, write_coverage, write_documents, write_square

from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import bbox_array, geo_metadata, group_rows
from clay_publish.release.manifest import write_manifest
from clay_publish.release.tables import TIMESTAMP, sources_schema
from clay_publish.spec.sensors import SENSORS

SENSOR = SENSORS["sentinel-2-l2a"]
ASSETS = [band.name for band in SENSOR.bands]
GRID, SIDE = UtmGrid(1280), 1.2
AT_ONCE = 1 << 14
SKIPPED = ("DOC", "STC", "RDR", "INT010", "SCH016", "VEC014")
"""Rules that read no source items, or files that the release does not have."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sources", type=int, default=200_000)
    parser.add_argument("--stages", nargs="*", default=[*STAGES], choices=[*STAGES])
    asked = parser.parse_args()
    where = asked.folder / f"release-{asked.sources}"
    if not (where / paths.MANIFEST).exists():
        build(where, asked.sources)
    size = (where / paths.SOURCES).stat().st_size
    print(f"{asked.sources:,} source items, {size / asked.sources:,.0f} bytes each", flush=True)
    stages = importlib.import_module("global")  # a keyword
    for name in asked.stages:
        rest = STAGES[name]
        if name == "diff":
            rest = (str(newer(where)), *rest)
        stages.measure(name, [*stages.PROGRAM, name, str(where), *rest], asked.folder)


def build(where: Path, count: int) -> None:
    shutil.rmtree(where, ignore_errors=True)
    release, area = Release(str(where)), [3.0, 5.0, 3.0 + SIDE, 5.0 + SIDE]
    decided = fingerprint(8, 128).model_copy(update={"bands": tuple(band.statistics for band in SENSOR.bands)})
    chips = 0
    for zone in expected_cells(GRID, shapely.box(*area), rule="intersects"):
        for square, cells in by_square(GRID, zone):
            write_square(release, GRID, square, cells, decided=decided, item=name_of(0))
        write_coverage(release, GRID, zone, lambda _: name_of(0))
        chips += len(zone)
    few = sources_of(0, 1)
    write_documents(release, GRID, area, decided=decided, chips=chips, sources=few)
    footer = {"geo": json.dumps(geo_metadata({"Polygon"}, [2.0, 4.0, 5.0, 7.0]))}
    schema = few.schema.with_metadata(footer)
    with pq.ParquetWriter(where / paths.SOURCES, schema, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, count, AT_ONCE):
            table = sources_of(start, min(start + AT_ONCE, count)).cast(schema)
            writer.write_table(table, row_group_size=group_rows(schema))
    write_manifest(release, "benchmark 1")


def name_of(number: int) -> str:
    return f"S2A_31NEG_{WINDOW.start:%Y%m%d}_{number:08d}_L2A"


def sources_of(first: int, stop: int) -> pa.Table:
    """Images of the same ground, all of them used; 500 of each acquisition."""
    count, schema = stop - first, sources_schema()
    numbers = np.arange(first, stop)
    moved = np.random.default_rng(first).uniform(0, 0.1, (count, 4)) * [-1, -1, 1, 1]
    shapes = shapely.box(*(np.array([2.8, 4.8, 3.2 + SIDE, 5.2 + SIDE]) + moved).T)
    names = [name_of(number) for number in numbers.tolist()]
    moments = [WINDOW.middle + timedelta(seconds=int(n // 500) * 60) for n in numbers]
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
        "acquisition": [f"sentinel-2a GS2A_20230101T100000_{n // 500:06d}_N05.09" for n in numbers],
        "cloud_cover": np.random.default_rng(first).uniform(0, 100, count),
        "proj_code": ["EPSG:32631"] * count,
        "proj_shape": [[10980, 10980]] * count,
        "proj_transform": [[10.0, 0.0, 499_980.0, 0.0, -10.0, 700_020.0]] * count,
        "bands": [[band | {"name": name, "asset": name} for name in ASSETS]] * count,
        "mask": [mask] * count,
        "level": ["s2:product_type 's2msi2a'"] * count,
        "evidence": [
            {
                "status": "plausible",
                "sentences": [],
                "bands": [sample | {"name": name, "p50": 2500.0 + n % 1000} for name in ASSETS],
            }
            for n in numbers.tolist()
        ],
        "license": ["CC0-1.0"] * count,
        "attribution": ["Contains modified Copernicus Sentinel data 2023"] * count,
        "href": [f"https://example.org/collections/sentinel-2-l2a/items/{name}" for name in names],
        "assets": [
            [
                {
                    "key": key,
                    "href": f"https://example.org/sentinel-s2-l2a-cogs/31/N/EG/2023/1/{name}/{key}.tif",
                    "etag": f'"{number:032x}-{place}"',
                    "size": None,
                }
                for place, key in enumerate([*ASSETS, "scl"])
            ]
            for number, name in zip(numbers.tolist(), names, strict=True)
        ],
    }
    arrays = [v if isinstance(v, pa.Array) else pa.array(v, schema.field(n).type) for n, v in values.items()]
    return pa.Table.from_arrays(arrays, schema=schema)


def newer(where: Path) -> Path:
    """The same release as its next version."""
    made = where.with_name(f"{where.name}-newer")
    if not made.exists():
        shutil.copytree(where, made)
        spec = made / paths.SPEC
        spec.write_text(spec.read_text().replace("version: 1.0.0", "version: 1.1.0"))
        (made / paths.MANIFEST).unlink()
        write_manifest(Release(str(made)), "benchmark 1")
    return made


STAGES: dict[str, tuple[str, ...]] = {
    "catalog": ("--no-json-items", "--json"),
    "card": ("--json",),
    "validate": (*itertools.chain(*(("--skip", code) for code in SKIPPED)), "--json"),
    "search": ("--bbox", "3,5,3.1,5.1", "--datetime", "2023", "--json"),
    "status": ("--json",),
    "diff": ("--json",),
}


if __name__ == "__main__":
    main()
