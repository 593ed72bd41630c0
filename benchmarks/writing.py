"""Writing: parts to a published file in bounded memory, against GeoPandas' writer."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from scenes import SENSOR

from clay_publish.geo.utm_zones import Square
from clay_publish.producer.encoders.random_features import RandomFeatures
from clay_publish.producer.outputs.assemble import publish_file
from clay_publish.producer.outputs.parts import write_part
from clay_publish.producer.unit_plan import Plan
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.geoparquet import bbox_array
from clay_publish.release.tables import TIMESTAMP, embeddings_schema
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.windows import Window

Row = tuple[str, str, str]
DIMENSIONS = 1024
PART = 16_384
"""Rows of a part, as of a large unit."""


@contextmanager
def watched() -> Iterator[list[float]]:
    """MB of memory of this process's own, looked at while the block runs; mapped files are the system's to drop."""
    found, stop = [_own()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            found.append(_own())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _own() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1e3


def part(number: int, rows: int) -> pa.Table:
    """Rows of a unit: unit-normal vectors at places that are not in order."""
    generator = np.random.default_rng(number)
    schema = embeddings_schema(DIMENSIONS)
    lon, lat = generator.uniform(-76.1, -75, rows), generator.uniform(36.9, 37.8, rows)
    outline = shapely.box(lon - 0.006, lat - 0.005, lon + 0.006, lat + 0.005)
    vectors = generator.standard_normal((rows, DIMENSIONS), dtype=np.float32)
    kind = schema.field("embedding").type
    moment = pa.array([datetime(2024, 6, 1, tzinfo=UTC)] * rows, TIMESTAMP)
    columns = {
        "id": [f"utm-128px_32618_{number}_{row}_2024-06-01_2024-07-01" for row in range(rows)],
        "geometry": shapely.to_wkb(outline),
        "bbox": bbox_array(outline),
        **dict.fromkeys(("datetime", "start_datetime", "end_datetime"), moment),
        "lon": lon,
        "lat": lat,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind),
        "loss": pa.nulls(rows, pa.float32()),
        "valid_fraction": np.ones(rows, np.float32),
        "cloud_fraction": np.zeros(rows, np.float32),
        "item_id": ["S2A_18SVG_20240601_0_L2A"] * rows,
        "item_ids": [["S2A_18SVG_20240601_0_L2A"]] * rows,
        "epsg": np.full(rows, 32618, np.int32),
        "row": np.full(rows, number, np.int32),
        "col": np.arange(rows, dtype=np.int32),
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema.remove_metadata())


def begun(folder: Path, rows: int) -> tuple[Release, DataFile, list[UnitReceipt]]:
    """A release with the parts of one file, and the receipts of its units."""
    shutil.rmtree(folder, ignore_errors=True)
    release = Release(str(folder))
    file = DataFile(Square(18, 4, 41), Window.parse("2024-06-01/2024-07-01"))
    receipts = []
    for number, start in enumerate(range(0, rows, PART)):
        entry = write_part(release, f"unit{number}", file.token, [part(number, min(PART, rows - start))])
        receipts.append(
            UnitReceipt(
                unit=f"unit{number}", images=0, items=[], parts={file.token: entry}, counts={}, seconds=0, device="cpu"
            )
        )
    return release, file, receipts


def plan() -> Plan:
    """Of no units: its fingerprint goes into the footer."""
    import torch

    encoder = RandomFeatures.of(SENSOR, torch.device("cpu"))
    fields = {name: getattr(encoder, name) for name in ("model_name", "model_link", "weights_sha256", "bands")}
    fingerprint = Fingerprint(
        **fields,
        encoder="clay",
        encoder_version="1",
        dimensions=DIMENSIONS,
        parameters={},
        sensor=SENSOR.key,
        layout="utm",
        size=128,
        gsd=10,
        scale="none",
        mask="none",
        composite="none",
        resampling="",
        nodata="",
        padding="none",
        metadata="tutorial",
        precision="float32",
        dtype="float32",
    )
    return Plan((), fingerprint, {})


def rows(folder: Path, count: int = 65_536) -> Iterator[Row]:
    release, file, receipts = begun(folder / "writing", count)
    table = pa.concat_tables(part(number, PART) for number in range(count // PART)).to_pandas()
    frame = geopandas.GeoDataFrame(table.drop(columns=["bbox"]), geometry=shapely.from_wkb(table["geometry"]), crs=4326)
    begin = time.process_time(), time.perf_counter()
    frame.to_parquet(folder / "geopandas.parquet", compression="zstd", write_covering_bbox=True)
    theirs = time.process_time() - begin[0], time.perf_counter() - begin[1]
    begin = time.process_time(), time.perf_counter()
    publish_file(release, file, receipts, plan(), 10.0)
    ours = time.process_time() - begin[0], time.perf_counter() - begin[1]
    size = Path(release.store.path(f"embeddings/{file.name}")).stat().st_size
    other = (folder / "geopandas.parquet").stat().st_size
    yield (
        "writing: GeoPandas, a frame in memory",
        f"{count / theirs[1]:,.0f} rows/s, {other / count:.0f} bytes per row",
        "1",
    )
    yield (
        "writing: parts checked, sorted, published (this)",
        f"{count / ours[1]:,.0f} rows/s, {size / count:.0f} bytes per row",
        f"{theirs[1] / ours[1]:.1f} × the first",
    )
    shutil.rmtree(folder / "writing")


def large(folder: Path, count: int) -> None:
    """By hand: `python benchmarks/writing.py FOLDER 1000000`, in a process of its own."""
    release, file, receipts = begun(folder / "large", count)
    begin = time.perf_counter()
    with watched() as seen:
        publish_file(release, file, receipts, plan(), 10.0)
    seconds = time.perf_counter() - begin
    path = Path(release.store.path(f"embeddings/{file.name}"))
    meta = pq.read_metadata(path)
    print(f"{meta.num_rows:,} rows × {DIMENSIONS}, {path.stat().st_size / 1e9:.2f} GB in {seconds:.0f} s")
    print(f"{max(seen):.0f} MB of its own at most, {seen[0]:.0f} before; {meta.num_row_groups} row groups")
    shutil.rmtree(folder / "large")


if __name__ == "__main__":
    large(Path(sys.argv[1]), int(sys.argv[2]))
