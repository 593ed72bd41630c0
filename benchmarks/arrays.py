"""One pixel, 256² and 2,048² pixels from arrays against the same chips from the table, and what a vector takes.

`python benchmarks/arrays.py [DIMENSIONS [SIDE …]]`: SIDE × SIDE pixels for each SIDE (1, 256 and 2,048), from as many
chips of 40 m as the largest takes, in one 100 km square, table and arrays of int8. Locally and 30 ms away.

`python benchmarks/arrays.py memory [DIMENSIONS …]`: the memory that a shard takes while it is made, in a process of its
own.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from scenes import served

from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import Square
from clay_publish.release.array_store import ArrayGrid
from clay_publish.release.directory import EMBEDDINGS, DataFile, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.geoparquet import geo_metadata, group_rows, hilbert_distance, table_writer, write_table
from clay_publish.release.metadata import footer_emb
from clay_publish.release.tables import coverage_schema, embeddings_schema
from clay_publish.search.arrays.dataset import TableCube, arrays_dataset
from clay_publish.spec.models import Spec
from clay_publish.windows import Window

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))
from array_copy import write_arrays
from tiny_release import fingerprint

CELL = 40.0
ROW, COL = 100_000, 12_544
"""Of the south-western chip: in one square of 100 km, 256 chips from where a shard starts."""
SHARD_ROW = 391 * 256
"""The same, where a shard starts."""
WINDOW = Window.parse("2023-01-01/2024-01-01")
SIZES = (1, 256, 2048)
NO_PATCHES: Any = SimpleNamespace(patches=0, patch_layers=())


def main() -> None:
    """Print one line for each size, place and form; or for each number of dimensions."""
    if sys.argv[1:2] == ["memory"]:
        for number in sys.argv[2:] or ["128", "1024", "4096"]:
            subprocess.run([sys.executable, __file__, "shard", number], check=True)
        return
    if sys.argv[1:2] == ["shard"]:
        measure_memory(int(sys.argv[2]))
        return
    if sys.argv[1:2] == ["tables"]:
        _tables(Release(sys.argv[2]), _fingerprint(int(sys.argv[3])), int(sys.argv[4]), SHARD_ROW)
        return
    dimensions, *sizes = (int(text) for text in sys.argv[1:] or ["128"])
    sizes = sizes or [*SIZES]
    side, made = max(sizes), _fingerprint(dimensions)
    with tempfile.TemporaryDirectory() as folder:
        release = Release(folder)
        spec = _documents(release)
        file = _tables(release, made, side)
        begun = time.perf_counter()
        write_arrays(release, spec, NO_PATCHES)
        seconds = time.perf_counter() - begun
        chips = side**2
        stored = {
            name: _bytes(Path(folder), name) for name in ("arrays/arrays.zarr/*/embeddings", "arrays", "embeddings")
        }
        print(f"{chips:,} chips of {dimensions} dimensions; arrays in {seconds:.1f} s, {chips / seconds:,.0f} chips/s")
        for name, size in stored.items():
            print(f"{name:<34} {size:>13,} bytes, {size / chips:.1f} a vector")
        ways: dict[str, Callable[[Release], Any]] = {
            "arrays": lambda where: arrays_dataset(where, 18, ""),
            "table": lambda where: TableCube(where, 18, [WINDOW]).dataset(),
        }
        with served(Path(folder), 0.03) as server:
            for place, where in (("local", folder), ("30 ms away", server.url)):
                for size in sizes:
                    for name, way in ways.items():
                        opened = partial(_opened, way, where, file)
                        _measure(server, f"{place}, {size}², {name}", side, size, opened)


def measure_memory(dimensions: int) -> None:
    """Print what a process takes above what it held before, while it makes one shard and while it makes four."""
    before = 0
    for side in (256, 512):
        with tempfile.TemporaryDirectory() as folder:
            release = Release(folder)
            spec = _documents(release)
            # Written by another process, whose memory does not count.
            subprocess.run([sys.executable, __file__, "tables", folder, str(dimensions), str(side)], check=True)
            before = before or _memory("VmRSS")
            write_arrays(release, spec, NO_PATCHES)
            grid = ArrayGrid(CELL, dimensions, 1)
            shard, shards = grid.shard**2 * dimensions, (side // grid.shard) ** 2
            taken = _memory("VmHWM") - before
            what = f"{dimensions:,} dimensions, {shards:,} shards of {shard / 2**20:,.0f} MiB"
            print(f"{what}: {taken / 2**20:,.0f} MiB more, {taken / shard:.1f} × the embeddings of a shard", flush=True)


def _memory(which: str) -> int:
    """Bytes: `VmRSS`, what this process takes; `VmHWM`, the most that it took."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(which)) * 1024


def _fingerprint(dimensions: int) -> Fingerprint:
    return fingerprint("int8").model_copy(update={"dimensions": dimensions, "size": 8, "gsd": CELL / 8})


class OneFile(Release):
    """A release whose embeddings file is known, as a reader knows it from the items."""

    def __init__(self, where: str, file: str) -> None:
        super().__init__(where)
        self._file = file

    def data_files(self, table: str = EMBEDDINGS) -> list[str]:
        """That file."""
        return [self._file] if table == EMBEDDINGS else super().data_files(table)


def _opened(way: Callable[[Release], Any], where: str, file: str) -> Any:
    return way(OneFile(where, file))


def _measure(server: Any, name: str, side: int, size: int, open_cube: Callable[[], Any]) -> None:
    before = server.now()
    begun = time.perf_counter()
    cube = open_cube()
    opened = time.perf_counter() - begun
    top = cube.attrs["embrel:cells"]["row_top"] - (ROW + side - 1)
    start = (side - size) // 2
    values = cube.embeddings[0, top + start : top + start + size, COL + start : COL + start + size].values
    seconds = time.perf_counter() - begun
    assert np.isfinite(values).all()
    requests, sent = (after - first for after, first in zip(server.now(), before, strict=True))
    remote = f", {requests:,} requests, {sent / 1e6:,.2f} MB" if requests else ""
    print(f"{name:<26} {seconds:8.3f} s, of which {opened:.3f} s to open{remote}", flush=True)


def _bytes(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for found in folder.glob(pattern) for path in found.rglob("*") if path.is_file())


def _documents(release: Release) -> Spec:
    document = {
        "name": "bench",
        "released": "2026-01-01",
        "imagery": {"stac": "https://example.org", "sensor": "sentinel-2-l1c", "windows": [str(WINDOW)]},
        "chips": {"layout": "utm", "size": 8},
        "outputs": {"dtype": "int8", "arrays": True},
    }
    release.store.write("release.yaml", yaml.safe_dump(document))
    return Spec.model_validate(document)


def _tables(release: Release, made: Fingerprint, side: int, first: int = ROW) -> str:
    """Write one embeddings file of side × side chips and the coverage; path of the file."""
    row, col = (axis.ravel() for axis in np.mgrid[first : first + side, COL : COL + side])
    epsg = np.full(len(row), 32618)
    lon, lat = UtmGrid(CELL).centers(epsg, row, col)
    order = np.argsort(hilbert_distance(lon, lat), kind="stable")
    row, col, lon, lat = row[order], col[order], lon[order], lat[order]
    schema = embeddings_schema(made.dimensions, "int8")
    file = DataFile(Square(18, int((COL + 1) * CELL // 100_000), int((first + 1) * CELL // 100_000)), WINDOW)
    path = f"{EMBEDDINGS}/{file.name}"
    footer = {"emb": json.dumps(footer_emb(made, CELL / 8)), "geo": json.dumps(geo_metadata({"Polygon"}, None))}
    rng = np.random.default_rng(0)
    same = {"geometry": b"\0" * 93, "item_id": "image", "item_ids": ["image"], "valid_fraction": 1.0}
    times = dict.fromkeys(("datetime", "start_datetime", "end_datetime"), WINDOW.start)
    kind = schema.field("embedding").type
    with table_writer(release.store, path, schema.with_metadata(footer)) as writer:
        step = group_rows(schema)
        for start in range(0, len(row), step):
            some = slice(start, start + step)
            count = len(row[some])
            values = np.clip(rng.normal(size=(count, made.dimensions)) * 30, -127, 127).astype(np.int8)
            box = {"xmin": lon[some], "ymin": lat[some], "xmax": lon[some], "ymax": lat[some]}
            columns: dict[str, Any] = {
                **{name: [value] * count for name, value in {**same, **times}.items()},
                "id": [f"chip-{n}" for n in range(start, start + count)],
                "bbox": pa.StructArray.from_arrays(
                    [pa.array(v) for v in box.values()], fields=list(schema.field("bbox").type)
                ),
                "lon": lon[some],
                "lat": lat[some],
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind),
                "scale": rng.uniform(0.01, 0.02, count).astype(np.float32),
                "loss": pa.nulls(count, pa.float32()),
                "cloud_fraction": np.zeros(count, np.float32),
                "epsg": epsg[:count].astype(np.int32),
                "row": row[some].astype(np.int32),
                "col": col[some].astype(np.int32),
            }
            arrays = [v if isinstance(v := columns[f.name], pa.Array) else pa.array(v, f.type) for f in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema.with_metadata(footer)), row_group_size=step)
    _coverage(release, row, col)
    return path


def _coverage(release: Release, row: np.ndarray, col: np.ndarray) -> None:
    order, count = np.lexsort((col, row)), len(row)
    kind = coverage_schema()
    columns = {
        "id": pa.nulls(count, pa.string()).fill_null("x"),
        "epsg": pa.array(np.full(count, 32618, np.int32)),
        "row": pa.array(row[order].astype(np.int32)),
        "col": pa.array(col[order].astype(np.int32)),
        "window_start": pa.repeat(pa.scalar(WINDOW.start, kind.field("window_start").type), count),
        "window_end": pa.repeat(pa.scalar(WINDOW.end, kind.field("window_end").type), count),
        "status": pa.repeat("embedded", count),
        "reason": pa.nulls(count, pa.string()),
        "item_ids": pa.repeat(pa.scalar(["image"], kind.field("item_ids").type), count),
        "detail": pa.nulls(count, pa.string()),
    }
    write_table(release.store, "coverage/zone=18.parquet", pa.Table.from_pydict(columns, schema=kind))


if __name__ == "__main__":
    main()
