"""Expected against present against described cells, exactly: `python benchmarks/validate_coverage.py --cells 50000000`.

Bitmaps by zone, as `validate` keeps them, against sorted sets of cell numbers. Both have to find the same gaps: some
cells that are nowhere, some that are only said to be there, some that nobody asked for.
"""

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import shapely

from clay_publish.expectation import ZoneCells, expected_cells
from clay_publish.grid import UtmGrid
from clay_publish.validate.bitmaps import EXPECTED, PRESENT, SAID_EMBEDDED, Layer
from clay_publish.validate.expected_utm import expected_layer

Counts = dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2_000_000)
    parser.add_argument("--cell", type=float, default=1280, help="metres")
    chosen = parser.parse_args()
    grid = UtmGrid(chosen.cell)
    west, south, east, north = -60.0, -20.0, -60 + 10.0, 20.0
    share = chosen.cells * chosen.cell**2 / (1_113_200 * 4_453_000 * 0.98)
    area = shapely.box(west, south, min(west + (east - west) * share, 180), north)
    begun = time.process_time()
    zones = list(expected_cells(grid, area, rule="intersects"))
    total = sum(map(len, zones))
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


Cells = tuple[np.ndarray, np.ndarray]


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
        layer: Layer = expected_layer(zone, "")
        layer.mark(*present, PRESENT)
        layer.mark(*said, SAID_EMBEDDED)
        summary = layer.summary()
        found["nowhere"] += summary.counts[EXPECTED]
        found["only said"] += summary.counts[EXPECTED | SAID_EMBEDDED]
        strangers = summary.strangers.get(PRESENT, [(0, 0)])[0][0]
        found["not asked for"] += summary.counts[PRESENT] + strangers
    return found


def sorted_sets(zones: list[ZoneCells], inputs: Iterator[tuple[Cells, Cells]]) -> Counts:
    found = {"nowhere": 0, "only said": 0, "not asked for": 0}
    for zone, (present, said) in zip(zones, inputs, strict=True):
        epsg = np.int64(32600 + zone.zone)
        there = zone.grid.numbers(epsg, *present)
        told = zone.grid.numbers(epsg, *said)
        asked = zone.numbers()
        missing = np.setdiff1d(asked, there, assume_unique=True)
        only_said = np.intersect1d(missing, told, assume_unique=True)
        found["only said"] += len(only_said)
        found["nowhere"] += len(missing) - len(only_said)
        found["not asked for"] += len(np.setdiff1d(there, asked, assume_unique=True))
    return found


if __name__ == "__main__":
    main()
