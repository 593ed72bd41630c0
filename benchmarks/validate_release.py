"""Validating a release against only reading it: `python benchmarks/validate_release.py --chips 1000000`.

The release has the utm layout, unit vectors that vary smoothly with some noise, and as many 100 km squares as it takes.
Three ways of going through the same bytes, each in a process of its own, on as many threads as there are cores:

- hash: read every file and take its SHA-256;
- read: hash, and decode every column with page checksums verified;
- validate: all rules on data; documents, STAC and other readers, which cost the same at any size, are left out;
  its child process is counted, and so is the time that it takes to start.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from source_items import SENSOR, sources_of, write_sources

from clay_publish.geo.expected_cells import ZoneCells, expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import SQUARE, Square
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import SCALE_RULE, Fingerprint, composite_rule, mask_rule
from clay_publish.release.geoparquet import bbox_array, geo_metadata, group_rows, table_writer, total_bbox, write_table
from clay_publish.release.manifest import RUN_RECORD, RunRecord, dump_json, libraries, sha256, write_manifest
from clay_publish.release.measurements import Measurements, dump_measurements
from clay_publish.release.metadata import footer_emb
from clay_publish.release.tables import (
    TIMESTAMP,
    coverage_schema,
    embeddings_schema,
    hugging_face_features,
)
from clay_publish.spec.load import dump_spec
from clay_publish.spec.models import Spec
from clay_publish.validate import validate
from clay_publish.windows import Window

WINDOW = Window.parse("2023-01-01/2023-02-01")
SIZE, GSD = 128, 10
ITEM = "one-image"
Cells = tuple[np.ndarray, np.ndarray, np.ndarray]
"""EPSG code, row and column."""
Images = Mapping[str, datetime]
"""Names of items, and their times."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--at", type=Path, help="where the release is, or is made and kept")
    parser.add_argument("--way", choices=WAYS, help="one way only, in this process")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(timed(chosen.way, chosen.at)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        where = chosen.at or Path(scratch) / "release"
        if not (where / paths.MANIFEST).exists():
            make(where, chosen.chips, chosen.dimensions)
        size = sum(file.stat().st_size for file in where.rglob("*.parquet"))
        print(f"{chosen.chips:,} chips of {chosen.dimensions} dimensions, {size / 1e9:.2f} GB")
        compare(where, chosen.rounds)


def compare(where: Path, rounds: int) -> None:
    """The best of some rounds, taking turns."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--at", str(where)]
            made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if way not in best or made["seconds"] < best[way]["seconds"]:
                best[way] = made
    for way, seen in best.items():
        wall, cpu = (seen[key] / best["read"][key] for key in ("seconds", "cpu"))
        print(
            f"{way:<9} {seen['seconds']:7.2f} s  {seen['cpu']:7.2f} CPU-s  {seen['mib']:6.0f} MiB  {wall:5.2f} × read"
            f"  {cpu:5.2f} × its CPU-s"
        )


def timed(way: str, where: Path) -> dict[str, float]:
    begun, cpu = time.perf_counter(), time.process_time()
    WAYS[way](Release(str(where)))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for child in psutil.Process().children():  # that of a validation reads everything
        times = child.cpu_times()
        cpu += times.user + times.system
        mib += int(Path(f"/proc/{child.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return {"seconds": seconds, "cpu": cpu, "mib": mib}


def hash_all(release: Release) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: sha256(release.store, path), release.published_files()))


def read_all(release: Release) -> None:
    def read(path: str) -> None:
        sha256(release.store, path)
        if path.endswith(".parquet"):
            for _ in release.parquet(path, verify=True).iter_batches(8192, use_threads=False):
                pass

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, release.published_files()))


def validate_all(release: Release) -> None:
    report = validate(release, skip=("DOC", "STC", "RDR", "PRV", "EXP", *_ABSENT))
    assert not report.findings, report.findings[:3]


_ABSENT = ("INT010", "SCH016", "VEC014")
"""Rules on files that the release does not have: documents, codes, reference vectors."""

WAYS: dict[str, Callable[[Release], None]] = {"hash": hash_all, "read": read_all, "validate": validate_all}


def make(where: Path, chips: int, dimensions: int) -> None:
    """A release of about so many chips around the central meridian of zone 31, and of zone 32 when it gets wide."""
    release = Release(str(where))
    grid = UtmGrid(SIZE * GSD)
    side = np.sqrt(chips) * grid.cell / 111_320
    area = [3 - side / 2, 5.0, 3 + side / 2, 5.0 + side]
    decided = fingerprint(dimensions, SIZE)
    made = 0
    for zone in expected_cells(grid, shapely.box(*area), rule="intersects"):
        for square, cells in by_square(grid, zone):
            write_square(release, grid, square, cells, decided=decided, images={ITEM: WINDOW.middle})
        write_coverage(release, grid, zone, lambda _: [ITEM])
        made += len(zone)
    write_documents(release, grid, area, decided=decided, chips=made)
    write_source(release, shapely.box(*area).buffer(0.1))
    write_manifest(release, "benchmark 1")


def by_square(grid: UtmGrid, zone: ZoneCells) -> Iterator[tuple[Square, Cells]]:
    """Cells of a zone by 100 km square."""
    epsg, row, col = zone.cells()
    column = np.floor_divide((col + 0.5) * grid.cell, SQUARE).astype(int)
    line = np.floor_divide((row + 0.5) * grid.cell, SQUARE).astype(int)
    place = column * 1000 + line
    order = np.argsort(place, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
        first = mine[0]
        yield Square(zone.zone, int(column[first]), int(line[first])), (epsg[mine], row[mine], col[mine])


def fingerprint(dimensions: int, size: int) -> Fingerprint:
    return Fingerprint(
        encoder="random-features",
        encoder_version="1",
        model_name="none",
        model_link="https://example.org",
        weights_sha256="0" * 64,
        dimensions=dimensions,
        parameters={},
        sensor="sentinel-2-l2a",
        bands=tuple(band.statistics for band in SENSOR.bands),
        layout="utm",
        size=size,
        gsd=GSD,
        resampling="none",
        scale=SCALE_RULE,
        mask=mask_rule(SENSOR, None),
        composite=composite_rule("utm"),
        nodata="none",
        padding="none",
        metadata="none",
        precision="float32",
        dtype="float32",
    )


def vectors_at(lon: np.ndarray, lat: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """Unit vectors that vary smoothly over the ground, with noise."""
    waves = np.random.default_rng(1).normal(size=(2, dimensions)) * 36
    vectors = np.sin(np.radians(np.stack([lon, lat], axis=1)) @ waves)
    vectors += np.random.default_rng(seed).normal(size=vectors.shape) * 0.15
    made: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return made


def write_square(
    release: Release,
    grid: UtmGrid,
    square: Square,
    cells: Cells,
    *,
    decided: Fingerprint,
    images: Images,
    seed: int = 0,
) -> None:
    """The embeddings file of a square: neighbors are of different images."""
    epsg, row, col = cells
    count = len(row)
    lon, lat = grid.centers(epsg, row, col)
    shapes = grid.footprints(epsg, row, col)
    schema = embeddings_schema(decided.dimensions)
    vectors = vectors_at(lon, lat, decided.dimensions, seed + int(grid.numbers(epsg[:1], row[:1], col[:1])[0]))
    boxes = bbox_array(shapes)
    turn = pa.array((row + col) % len(images))
    image, moments = pa.array([*images]).take(turn), pa.array([*images.values()], TIMESTAMP).take(turn)
    values = {
        "id": _ids(grid, epsg, row, col),
        "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
        "bbox": boxes,
        "datetime": moments,
        "start_datetime": moments,
        "end_datetime": moments,
        "lon": lon,
        "lat": lat,
        "embedding": pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.reshape(-1)), type=schema.field("embedding").type
        ),
        "loss": pa.nulls(count, pa.float32()),
        "valid_fraction": np.ones(count, np.float32),
        "cloud_fraction": np.zeros(count, np.float32),
        "item_id": image,
        "item_ids": one_each(image),
        "epsg": epsg,
        "row": row,
        "col": col,
    }
    sides = np.stack([boxes.field(name).to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    kinds = {shape.geom_type for shape in shapes}
    footer = {
        "geo": json.dumps(geo_metadata(kinds, total_bbox(sides))),
        "emb": json.dumps(footer_emb(decided, GSD)),
        "huggingface": json.dumps({"info": {"features": hugging_face_features(schema)}}),
    }
    arrays = [v if isinstance(v, pa.Array) else pa.array(v, schema.field(n).type) for n, v in values.items()]
    table = pa.Table.from_arrays(arrays, schema=schema.with_metadata(footer))
    write_table(release.store, f"{paths.EMBEDDINGS}/{DataFile(square, WINDOW).name}", table)


def _ids(grid: UtmGrid, epsg: np.ndarray, row: np.ndarray, col: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(
        grid.token, *(pa.array(part).cast(pa.string()) for part in (epsg, row, col)), WINDOW.token, "_"
    )


def one_each(values: pa.Array) -> pa.ListArray:
    """Lists of one."""
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1), pa.int32()), values)


def write_coverage(release: Release, grid: UtmGrid, zone: ZoneCells, items: Callable[[Square], Iterable[str]]) -> None:
    """The coverage table of a zone of which all chips are embedded, as `write_square` does."""
    schema, names = coverage_schema(), list[str]()
    epsg, row, col, image = (np.empty(len(zone), dtype=np.int64) for _ in range(4))
    filled = 0
    for square, cells in by_square(grid, zone):
        mine = slice(filled, filled + len(cells[0]))
        epsg[mine], row[mine], col[mine] = cells
        own = [*items(square)]
        image[mine] = len(names) + (cells[1] + cells[2]) % len(own)
        names.extend(own)
        filled = mine.stop
    order, rows = np.lexsort((col, row, epsg)), group_rows(schema)
    with table_writer(release.store, f"{paths.COVERAGE}/zone={zone.zone:02d}.parquet", schema) as writer:
        for start in range(0, len(row), rows):
            part = order[start : start + rows]
            count = len(part)
            values = {
                "id": _ids(grid, epsg[part], row[part], col[part]),
                "epsg": pa.array(epsg[part], pa.int32()),
                "row": pa.array(row[part], pa.int32()),
                "col": pa.array(col[part], pa.int32()),
                "window_start": pa.repeat(pa.scalar(WINDOW.start, TIMESTAMP), count),
                "window_end": pa.repeat(pa.scalar(WINDOW.end, TIMESTAMP), count),
                "status": pa.repeat("embedded", count),
                "reason": pa.nulls(count, pa.string()),
                "item_ids": one_each(pa.array(names, pa.string()).take(pa.array(image[part]))).cast(
                    schema.field("item_ids").type
                ),
                "detail": pa.nulls(count, pa.string()),
            }
            writer.write_table(pa.Table.from_arrays([values[name] for name in schema.names], schema=schema))


def write_source(release: Release, shape: shapely.Geometry) -> None:
    """The table of one image."""
    table = sources_of([ITEM], np.array([shape]), [WINDOW.middle], ["sentinel-2a datatake"])
    write_sources(release, [table], shape.bounds)


def write_documents(release: Release, grid: UtmGrid, area: object, *, decided: Fingerprint, chips: int) -> None:
    """The spec and the record of the run."""
    spec = Spec.model_validate(
        {
            "name": "benchmark",
            "released": "2026-11-28",
            "imagery": {"stac": "items", "sensor": "sentinel-2-l2a", "area": area, "windows": [str(WINDOW)]},
            "chips": {"layout": "utm", "size": round(grid.cell / GSD), "gsd": GSD},
            "outputs": {"codes": False, "explorer": False},
        }
    )
    release.store.write(paths.SPEC, dump_spec(spec.published()))
    release.store.write(paths.GAPS, dump_json({"type": "FeatureCollection", "features": []}))
    record = RunRecord(
        fingerprint=decided,
        plan_sha256="0" * 64,
        libraries=libraries(),
        coverage={"expected": chips, "embedded": chips},
    )
    release.store.write(RUN_RECORD, record.model_dump_json())
    measurements = Measurements(seconds=0, machines=[], libraries=record.libraries)
    release.store.write(paths.MEASUREMENTS, dump_measurements(measurements))


if __name__ == "__main__":
    main()
