"""Search by likeness: all vectors, codes, FAISS, usearch and DuckDB on the same release, in one run.

    python benchmarks/search.py 100000 1000000
    python benchmarks/search.py --codes 144000000 256

needs `pip install faiss-cpu usearch duckdb psutil`. Each method runs in a process of its own, which loads what it
needs; time is that of one search, the median of several; memory is the largest resident set; recall@10 is against
all vectors. Files lie on a disk and in its cache. Vectors are clustered around 500 centers; their spectrum decays.

The second form writes the codes alone of a global release, of random bits, and searches them: seconds, and the memory
of the process without the pages of the files, which the system may take back.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

DIMENSIONS = 512
QUERIES = 5
FILE = 6_000
"""Chips of a file: a third of a full one, so that a million are in 165 files."""


def write(folder: Path, count: int) -> None:
    """Write a release of `count` chips with the package's own writers."""
    import pyarrow as pa
    import shapely

    from clay_publish.catalog import write_items
    from clay_publish.geo.utm_grid import UtmGrid
    from clay_publish.geo.utm_zones import Square
    from clay_publish.producer.outputs.codes import write_codes
    from clay_publish.release.directory import DataFile, Release
    from clay_publish.release.fingerprint import Fingerprint
    from clay_publish.release.geoparquet import bbox_array, geo_metadata, hilbert_distance, total_bbox, write_table
    from clay_publish.release.manifest import RUN_RECORD, RunRecord
    from clay_publish.release.metadata import footer_emb
    from clay_publish.release.tables import embeddings_schema, sources_schema, vector_type
    from clay_publish.spec.sensors import BandStatistics
    from clay_publish.windows import Window

    random = np.random.default_rng(0)
    spread = np.arange(1, DIMENSIONS + 1) ** -0.7
    spread /= np.sqrt((spread**2).mean())
    basis = np.linalg.qr(random.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    centers = random.normal(size=(500, DIMENSIONS)) * spread + 3 * random.normal(size=DIMENSIONS)
    made = Fingerprint(
        encoder="random-features", encoder_version="1", model_name="benchmark", model_link="https://example.org",
        weights_sha256="0" * 64, dimensions=DIMENSIONS, parameters={}, sensor="sentinel-2-l2a",
        bands=(BandStatistics(name="red", mean=1, std=2, wavelength=0.66),), layout="utm", size=128, gsd=10,
        scale="none", mask="none", composite="none",
        resampling="nearest", nodata="0", padding="none", metadata="none", precision="float32", dtype="float32",
    )  # fmt: skip
    release, window = Release(str(folder)), Window(datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC))
    grid, schema, kind = UtmGrid(1280.0), embeddings_schema(DIMENSIONS), vector_type(DIMENSIONS, "float32")
    when = np.datetime64("2023-01-10T10:30", "us")
    for number in range(-(-count // FILE)):
        size = min(FILE, count - number * FILE)
        square = Square(20 + number % 20, 4, 2 + number // 20)
        down, along = np.divmod(np.arange(size), 78)
        row, col = square.row * 78 + down, square.column * 78 + along
        epsg = np.full(size, 32600 + square.zone)
        order = np.argsort(hilbert_distance(*grid.centers(epsg, row, col)))
        row, col = row[order], col[order]
        outlines = grid.footprints(epsg, row, col)
        lon, lat = grid.centers(epsg, row, col)
        noise = 0.5 * random.normal(size=(size, DIMENSIONS)) * spread
        vectors = ((centers[random.integers(0, 500, size)] + noise) @ basis).astype(np.float32)
        columns = {
            "id": [grid.chip_id(int(e), int(r), int(c), window) for e, r, c in zip(epsg, row, col, strict=True)],
            "geometry": shapely.to_wkb(outlines), "bbox": bbox_array(outlines), "lon": lon, "lat": lat,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind),
            "loss": pa.nulls(size, pa.float32()), "valid_fraction": np.ones(size, np.float32),
            "cloud_fraction": np.zeros(size, np.float32), "item_id": ["scene"] * size, "item_ids": [["scene"]] * size,
            "epsg": epsg, "row": row, "col": col,
        } | {name: np.full(size, when) for name in ("datetime", "start_datetime", "end_datetime")}  # fmt: skip
        table = pa.Table.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in schema], schema=schema)
        box = total_bbox(np.array([list(one.values()) for one in columns["bbox"].to_pylist()]))
        footer = {"geo": json.dumps(geo_metadata({"Polygon"}, box)), "emb": json.dumps(footer_emb(made, 10.0))}
        write_table(release.store, f"embeddings/{DataFile(square, window).name}", table.replace_schema_metadata(footer))
    empty: dict[str, Any] = dict.fromkeys(sources_schema().names)
    source = {**empty, "id": "scene", "block": 0, "status": "used", "bands": [],
              "license": "CC-BY-4.0", "href": "https://example.org/scene.json", "assets": []}  # fmt: skip
    write_table(release.store, "sources.parquet", pa.Table.from_pylist([source], schema=sources_schema()))
    release.store.write(
        "release.yaml",
        "name: bench\nreleased: 2023-02-01\nimagery: {stac: https://example.org, sensor: sentinel-2-l2a}\n",
    )
    run = RunRecord(fingerprint=made, plan_sha256="1" * 64, libraries={},
                    coverage={"expected": count, "embedded": count},
                    seconds=1, device="cpu")  # fmt: skip
    release.store.write(RUN_RECORD, run.model_dump_json())
    start = time.perf_counter()
    write_codes(release, made, wanted=True)
    print(f"  codes written in {time.perf_counter() - start:.1f} s", flush=True)
    write_items(release)


def search(method: str, folder: str) -> None:
    """Search by one method; print seconds of loading and searching, memory, and the ids that were found."""
    import pyarrow.parquet as pq

    from clay_publish.search.reader import open_release

    files = sorted(Path(folder).glob("embeddings/*/*.parquet"))
    first = pq.read_table(files[0], columns=["embedding"], partitioning=None)["embedding"].combine_chunks()
    asked = first.flatten().to_numpy().reshape(len(first), -1)[: QUERIES * 7 : 7]
    start = time.perf_counter()
    if method in {"faiss", "usearch"}:
        tables = [pq.read_table(file, columns=["id", "embedding"], partitioning=None) for file in files]
        ids = [name for table in tables for name in table["id"].to_pylist()]
        values = np.concatenate(
            [t["embedding"].combine_chunks().flatten().to_numpy().reshape(len(t), -1) for t in tables]
        )
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        del tables
    one: Callable[[np.ndarray], list[str]]
    if method == "faiss":
        import faiss

        index = faiss.IndexFlatIP(DIMENSIONS)
        index.add(values)
        one = lambda q: [ids[n] for n in index.search(q[None] / np.linalg.norm(q), 10)[1][0]]  # noqa: E731
    elif method == "usearch":
        from usearch.index import search as exact

        one = lambda q: [ids[n] for n in exact(values, q, 10, metric="cos", exact=True).keys]  # noqa: E731
    elif method == "duckdb":
        import duckdb

        query = (
            f"SELECT id FROM read_parquet('{folder}/embeddings/*/*.parquet') "
            f"ORDER BY array_cosine_distance(embedding::FLOAT[{DIMENSIONS}], ?::FLOAT[{DIMENSIONS}]) LIMIT 10"
        )
        one = lambda q: [row[0] for row in duckdb.execute(query, [q.tolist()]).fetchall()]  # noqa: E731
    else:
        reader = open_release(folder)
        one = lambda q: reader.similar(q, 10, columns=["id"], exact=method == "exact")["id"].to_pylist()  # noqa: E731
    loaded, seconds, found = time.perf_counter() - start, [], []
    for query_vector in asked:
        start = time.perf_counter()
        found.append(one(query_vector))
        seconds.append(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()  # getrusage counts what the parent held
    memory = int(status.partition("VmHWM:")[2].split()[0]) / 1000
    print(json.dumps({"load_s": loaded, "search_s": median(seconds), "memory_MB": memory, "found": found}))


def write_codes_alone(folder: Path, count: int, dimensions: int) -> list[str]:
    """Write files of codes of one window, as many chips in each of 60 zones; return their embeddings files."""
    import pyarrow as pa

    from clay_publish.geo.utm_zones import Square
    from clay_publish.release.directory import EMBEDDINGS, DataFile
    from clay_publish.search.code_files import BATCH, code_columns, code_path, code_schema
    from clay_publish.search.codes import Codes, Encoding
    from clay_publish.windows import Window

    encoding, random, paths = Encoding.of(dimensions), np.random.default_rng(0), []
    window = Window(datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC))
    for zone in range(1, 61):
        size = count // 60
        files = [f"{EMBEDDINGS}/{DataFile(Square(zone, 4, row), window).name}" for row in range(-(-size // BATCH))]
        schema = code_schema(encoding, files, (0.01, 0.01))
        path = folder / code_path(zone, window)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
            for number in range(len(files)):
                here = min(BATCH, size - number * BATCH)
                planes = (random.integers(0, 256, (here, encoding.plane_bytes), np.uint8) for _ in range(encoding.bits))
                codes = Codes(tuple(planes), np.full(here, 0.01, np.float32))
                lon = random.uniform(6 * zone - 186, 6 * zone - 180, here).astype(np.float32)
                place = [lon, random.uniform(-60, 70, here).astype(np.float32), np.full(here, number, np.int32)]
                rows = [*code_columns(codes), *map(pa.array, place), pa.array(np.arange(here, dtype=np.int32))]
                writer.write_batch(pa.RecordBatch.from_arrays(rows, schema=schema))
        paths += files
    return paths


def search_codes(count: int, dimensions: int) -> None:
    """Search the codes alone, three times."""
    import threading

    from clay_publish.release.directory import Release
    from clay_publish.search.candidates import best_codes
    from clay_publish.search.codes import Encoding
    from clay_publish.search.query import Extent
    from clay_publish.search.row_groups import Shelf

    with tempfile.TemporaryDirectory() as folder:
        paths = write_codes_alone(Path(folder), count, dimensions)
        held = sum(file.stat().st_size for file in Path(folder).rglob("*.arrow"))
        print(f"{count:,} codes of {dimensions} dimensions, {held / 1e9:.1f} GB", flush=True)
        most, ended = [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                status = Path("/proc/self/status").read_text()
                most[0] = max(most[0], int(status.partition("RssAnon:")[2].split()[0]))

        threading.Thread(target=watch).start()
        shelf = Shelf(paths, np.tile([-180.0, -90, 180, 90], (len(paths), 1)))
        for query_vector in np.random.default_rng(1).normal(size=(3, dimensions)):
            direction = query_vector / np.linalg.norm(query_vector)
            start, used = time.perf_counter(), time.process_time()
            best_codes(
                Release(folder), Encoding.of(dimensions), shelf, direction, count=100,
                extent=Extent(bbox=None, start=None, end=None),
            )  # fmt: skip
            seconds, cpu = time.perf_counter() - start, time.process_time() - used
            print(f"  search {seconds:6.1f} s  {cpu:6.1f} CPU-s  memory {most[0] / 1000:6.0f} MB", flush=True)
        ended.set()


def main(counts: list[int]) -> None:
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{count:,} chips of {DIMENSIONS} float32", flush=True)
            write(Path(folder), count)
            truth: list[set[str]] = []
            for method in ("exact", "codes", "duckdb", "faiss", "usearch"):
                command = [sys.executable, __file__, "--method", method, folder]
                made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                truth = truth or [set(ids) for ids in made["found"]]
                recall = np.mean([len(set(a) & b) / 10 for a, b in zip(made["found"], truth, strict=True)])
                print(
                    f"  {method:8s} load {made['load_s']:7.2f} s  search {made['search_s']:7.3f} s  "
                    f"memory {made['memory_MB']:6.0f} MB  recall@10 {recall:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--method"]:
        search(*sys.argv[2:4])
    elif sys.argv[1:2] == ["--codes"]:
        search_codes(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main([int(count) for count in sys.argv[1:] or ["100000", "1000000"]])
