"""Expected against present against described cells, exactly: `python benchmarks/validate_coverage.py --cells 50000000`.

Bitmaps by zone, as `validate` keeps them, against sorted sets of cell numbers. Both have to find the same gaps: some
cells that are nowhere, some that are only said to be there, some that are not asked for.

With `--tables`, the coverage tables of a release of so many cells are written and validated by the coverage rules; only
the embeddings themselves, and the ids of their chips, are not made.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from validate_release import ITEM, SIZE, WINDOW, fingerprint, write_documents, write_source

from clay_publish.geo.expected_cells import ZoneCells, expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import write_table
from clay_publish.release.manifest import write_manifest
from clay_publish.release.tables import coverage_schema
from clay_publish.validate.checks import run_rule
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.expected.cells import EXPECTED, PRESENT, SAID_EMBEDDED
from clay_publish.validate.expected.layers import expected_layer
from clay_publish.validate.registry import select

OF_EMBEDDINGS = ("COV009", "COV012", "COV013", "COV014", "COV017", "COV018")
"""Rules that open the embeddings files, which are not made here."""
Counts = dict[str, int]
Cells = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2_000_000)
    parser.add_argument("--cell", type=float, default=1280, help="meters")
    parser.add_argument("--tables", action="store_true", help="from tables on disk, by the rules")
    chosen = parser.parse_args()
    grid = UtmGrid(chosen.cell)
    west, south, east, north = -60.0, -20.0, -60 + 10.0, 20.0
    share = chosen.cells * chosen.cell**2 / (1_113_200 * 4_453_000 * 0.98)
    area = shapely.box(west, south, min(west + (east - west) * share, 180), north)
    begun = time.process_time()
    zones = list(expected_cells(grid, area, rule="intersects"))
    total = sum(map(len, zones))
    if chosen.tables:
        with tempfile.TemporaryDirectory() as scratch:
            from_tables(Path(scratch), zones, list(area.bounds))
        return
    print(f"{total:,} cells in {len(zones)} zones; expected from the area in {time.process_time() - begun:.2f} CPU-s")
    inputs = [truth(zone) for zone in zones]
    ways = {"bitmaps": bitmaps, "sorted sets": sorted_sets}
    seen = {}
    for name, way in ways.items():
        begun = time.process_time()
        found = way(zones, iter(inputs))
        seen[name] = found, time.process_time() - begun
    assert seen["bitmaps"][0] == seen["sorted sets"][0], seen
    print(f"found by both: {seen['bitmaps'][0]}")
    for name, (_, seconds) in seen.items():
        print(f"{name:<12} {seconds:6.2f} CPU-s  {seconds / seen['bitmaps'][1]:5.1f} × bitmaps")
    print(f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB, inputs included")


def from_tables(where: Path, zones: list[ZoneCells], area: list[float]) -> None:
    """Write the coverage of these cells, one in twenty of them missing, and validate it."""
    release = Release(str(where))
    files: dict[str, DataFile] = {}
    slices: dict[str, slice] = {}
    rows: list[np.ndarray] = []
    cols: list[np.ndarray] = []
    made = 0
    for zone in zones:
        there = write_coverage(release, zone)
        path = f"{paths.EMBEDDINGS}/zone={zone.zone:02d}/{zone.zone:02d}_01_01_2023-01-01_2023-02-01.parquet"
        files[path] = DataFile.parse(path)
        slices[path] = slice(made, made + len(there[0]))
        made += len(there[0])
        rows.append(there[0])
        cols.append(there[1])
    write_documents(release, zones[0].grid, area, decided=fingerprint(8, SIZE), chips=made)
    write_source(release, shapely.box(*area).buffer(0.1))
    write_manifest(release, "benchmark 1")
    facts = Facts(slices, rows=np.concatenate(rows), cols=np.concatenate(cols), items=np.zeros(1, np.int32))
    context = ReleaseContext(release, sample=20_000)
    known = {"embeddings": list(files), "named": files, "keys": {path: {"emb": {"gsd": 10}} for path in files}}
    vars(context.tables).update(known, rows=made)
    vars(context).update(fingerprint=fingerprint(8, SIZE), scan=SimpleNamespace(facts=facts))
    spent, peak = 0.0, 0.0
    for rule in select(["COV"], OF_EMBEDDINGS):
        begun = time.process_time()
        _, outcome = run_rule(rule, context)
        assert outcome == "passed", f"{rule.code}: {outcome}"
        spent += time.process_time() - begun
        print(f"{rule.code} {time.process_time() - begun:6.2f} CPU-s  {outcome}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(map(len, zones)):,} cells in all: {spent:.2f} CPU-s, peak {peak:,.0f} MiB, inputs included")


class Facts(dict[str, np.ndarray]):
    """What the pass over the embeddings would have left."""

    def __init__(self, slices: dict[str, slice], **columns: np.ndarray) -> None:
        super().__init__(columns)
        self._slices = slices

    def slices(self) -> dict[str, slice]:
        """Which rows lie in which file."""
        return self._slices


def write_coverage(release: Release, zone: ZoneCells) -> Cells:
    """Write the table of a zone; rows and columns of what it calls embedded."""
    epsg, row, col = zone.cells()
    count, schema = len(row), coverage_schema()
    missing = np.random.default_rng(zone.zone).random(count) < 0.05
    texts = [pa.array(part).cast(pa.string()) for part in (epsg, row, col)]
    item = pa.array(np.arange(count + 1, dtype=np.int32)), pa.repeat(pa.scalar(ITEM), count)
    values = {
        "id": pc.binary_join_element_wise("utm-1280m", *texts, WINDOW.token, "_"),
        "epsg": pa.array(epsg, pa.int32()),
        "row": pa.array(row, pa.int32()),
        "col": pa.array(col, pa.int32()),
        "window_start": pa.repeat(pa.scalar(WINDOW.start, schema.field("window_start").type), count),
        "window_end": pa.repeat(pa.scalar(WINDOW.end, schema.field("window_end").type), count),
        "status": pc.if_else(pa.array(missing), "missing", "embedded"),
        "reason": pc.if_else(pa.array(missing), "cloud", pa.scalar(None, pa.string())),
        "item_ids": pa.ListArray.from_arrays(*item, type=schema.field("item_ids").type),
        "detail": pa.nulls(count, pa.string()),
    }
    table = pa.Table.from_arrays([values[name] for name in schema.names], schema=schema)
    write_table(release.store, f"{paths.COVERAGE}/zone={zone.zone:02d}.parquet", table)
    return row[~missing].astype(np.int32), col[~missing].astype(np.int32)


def truth(zone: ZoneCells) -> tuple[Cells, Cells]:
    """Rows and columns of the present cells and of those said to be embedded, in no order."""
    _, row, col = zone.cells()
    row, col = row.astype(np.int32), col.astype(np.int32)
    chance = np.random.default_rng(zone.zone)
    lost = chance.random(len(row)) < 1e-4
    only_said = chance.random(len(row)) < 1e-4
    order = chance.permutation(len(row)).astype(np.int32)
    present = order[~(lost | only_said)[order]]
    more = np.array([row.max() + 5], np.int32)
    said = np.flatnonzero(~lost)
    return (np.append(row[present], more), np.append(col[present], col[:1])), (row[said], col[said])


def bitmaps(zones: list[ZoneCells], inputs: Iterator[tuple[Cells, Cells]]) -> Counts:
    found = {"nowhere": 0, "only said": 0, "not asked for": 0}
    for zone, (present, said) in zip(zones, inputs, strict=True):
        layer = expected_layer(zone, "")
        layer.mark(*present, PRESENT)
        layer.mark(*said, SAID_EMBEDDED)
        summary = layer.summary()
        found["nowhere"] += summary.counts[EXPECTED]
        found["only said"] += summary.counts[EXPECTED | SAID_EMBEDDED]
        unexpected = summary.unexpected.get(PRESENT, [(0, 0)])[0][0]
        found["not asked for"] += summary.counts[PRESENT] + unexpected
    return found


def sorted_sets(zones: list[ZoneCells], inputs: Iterator[tuple[Cells, Cells]]) -> Counts:
    found = {"nowhere": 0, "only said": 0, "not asked for": 0}
    for zone, (present, said) in zip(zones, inputs, strict=True):
        epsg = np.int64(32600 + zone.zone)
        there = zone.grid.numbers(epsg, *present)
        stated = zone.grid.numbers(epsg, *said)
        asked = zone.numbers()
        missing = np.setdiff1d(asked, there, assume_unique=True)
        only_said = np.intersect1d(missing, stated, assume_unique=True)
        found["only said"] += len(only_said)
        found["nowhere"] += len(missing) - len(only_said)
        found["not asked for"] += len(np.setdiff1d(there, asked, assume_unique=True))
    return found


if __name__ == "__main__":
    main()
