"""Overviews of all land of the Earth in cells of 1 km: bytes per chip and layer, time, memory.

python benchmarks/explorer.py FOLDER [--cell METERS] [--zones ZONE …]

Embeddings files hold what the overviews are drawn from (8 numbers a vector, float16), the coverage table the missing
chips alone. With zones, only these are made; what lies in FOLDER already is taken as it is. Cells of 2 km are a quarter
of the chips.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from validate_release import fingerprint

from clay_publish.cards.explorer.build import draw_overviews
from clay_publish.cards.explorer.layers import Period, Periods
from clay_publish.geo.area import land
from clay_publish.geo.expected_cells import ZoneCells, expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import SQUARE, Square
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.metadata import footer_emb
from clay_publish.windows import Window

WINDOW = Window.parse("2023-01-01/2024-01-01")
DIMENSIONS = 8
MISSING = 0.04


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cell", type=int, default=1000)
    parser.add_argument("--zones", type=int, nargs="*")
    asked = parser.parse_args()
    release, grid = Release(str(asked.folder)), UtmGrid(asked.cell)
    if not asked.folder.exists():
        before = time.perf_counter()
        chips = sum(
            make(release, grid, part)
            for part in expected_cells(grid, land(), rule="intersects")
            if not asked.zones or part.zone in asked.zones
        )
        print(
            f"made {chips:,} chips in {len(release.data_files()):,} files: {time.perf_counter() - before:.0f} s",
            flush=True,
        )
    rows = sum(release.parquet(path).metadata.num_rows for path in release.data_files())
    before = time.perf_counter()
    times = Periods((Period(WINDOW.token, WINDOW.start, WINDOW.end),))
    drawn = draw_overviews(release, times, grid.cell)
    seconds = time.perf_counter() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"overviews of {rows:,} chips: {seconds:.0f} s, {rows / seconds:,.0f} chips/s, peak memory {peak:.0f} MB")
    for path in sorted(drawn.paths):
        size = release.store.size(path)
        print(f"{path}: {size / 1e6:.1f} MB, {size / rows:.2f} bytes per chip")


def make(release: Release, grid: UtmGrid, part: ZoneCells) -> int:
    epsg, row, col = part.cells()
    rng = np.random.default_rng(part.zone)
    lost = rng.random(len(row)) < MISSING
    zone = f"zone={part.zone:02d}"
    where = np.flatnonzero(lost)
    table = pa.table(
        {
            "epsg": pa.array(epsg[where], pa.int32()),
            "row": pa.array(row[where], pa.int32()),
            "col": pa.array(col[where], pa.int32()),
            "window_start": pa.array(np.full(len(where), WINDOW.start.replace(tzinfo=None), "datetime64[us]")).cast(
                pa.timestamp("us", "UTC")
            ),
            "status": pa.array(["missing"] * len(where)),
            "reason": pa.array(np.where(rng.random(len(where)) < 0.7, "cloud", "no_imagery")),
            "item_ids": pa.array([[]] * len(where), pa.list_(pa.string())),
        }
    )
    write(release, f"{paths.COVERAGE}/{zone}.parquet", table)
    east = np.floor_divide((col + 0.5) * grid.cell, SQUARE).astype(int)
    north = np.floor_divide((row + 0.5) * grid.cell, SQUARE).astype(int)
    square = east * 1000 + north + 500
    order = np.argsort(square, kind="stable")
    made = 0
    for all_there in np.split(order, np.flatnonzero(np.diff(square[order])) + 1):
        mine = all_there[~lost[all_there]]
        if len(mine):
            file = DataFile(Square(part.zone, int(east[mine[0]]), int(north[mine[0]])), WINDOW)
            write(release, f"{paths.EMBEDDINGS}/{file.name}", rows_of(grid, (epsg[mine], row[mine], col[mine]), rng))
            made += len(mine)
    return made


def rows_of(grid: UtmGrid, cells: tuple[np.ndarray, ...], rng: np.random.Generator) -> pa.Table:
    epsg, row, col = cells
    lon, lat = grid.centers(epsg, row, col)
    waves = np.random.default_rng(1).normal(size=(DIMENSIONS, 2)) * np.array([6.0, 6.0])
    phase = np.stack([lon, lat], axis=1) @ np.radians(waves.T) * 6
    noise = rng.normal(size=(len(row), DIMENSIONS)) * 0.15
    vectors = (np.sin(phase) / (1 + np.arange(DIMENSIONS)) + noise / (1 + np.arange(DIMENSIONS))).astype(np.float16)
    ids = pc.binary_join_element_wise(
        f"utm-{grid.cell:g}m", *(pa.array(part).cast(pa.string()) for part in (epsg, row, col)), WINDOW.token, "_"
    )
    acquired = np.datetime64("2023-01-01", "us") + (rng.integers(0, 12, 1) * 30 + (lon * 3).astype(int) % 30).astype(
        "timedelta64[D]"
    )
    west, east = (lon.min(), lon.max()) if lon.max() - lon.min() < 180 else (lon[lon > 0].min(), lon[lon < 0].max())
    geo = {"columns": {"geometry": {"bbox": [west - 0.1, lat.min() - 0.02, east + 0.1, lat.max() + 0.02]}}}
    kind = pa.list_(pa.field("element", pa.float16(), nullable=False), DIMENSIONS)
    table = pa.table(
        {
            "id": ids,
            "datetime": pa.array(acquired).cast(pa.timestamp("us", "UTC")),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind),
            "loss": (0.2 + 0.05 * np.sin(lon) + 0.01 * rng.normal(size=len(row))).astype(np.float32),
            "cloud_fraction": np.clip(rng.gamma(0.5, 0.1, len(row)), 0, 1).astype(np.float32),
            "epsg": pa.array(epsg, pa.int32()),
            "row": pa.array(row, pa.int32()),
            "col": pa.array(col, pa.int32()),
        }
    )
    decided = fingerprint(DIMENSIONS, int(grid.cell / 10)).model_copy(update={"dtype": "float16"})
    return table.replace_schema_metadata({"geo": json.dumps(geo), "emb": json.dumps(footer_emb(decided, 10.0))})


def write(release: Release, path: str, table: pa.Table) -> None:
    with release.store.writer(path) as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            row_group_size=1 << 14,
            use_dictionary=["epsg", "row", "col", "datetime", "status", "reason"],
        )


if __name__ == "__main__":
    main()
