"""All land of the Earth in cells of 1 km: time, memory, and the same expectation by polygons on one zone.

python benchmarks/plan_land.py [ZONE]
"""

import resource
import sys
import time

import numpy as np
import shapely

from clay_publish.geo.area import land
from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import utm

GRID = UtmGrid(1000)


def by_polygons(area: shapely.Geometry, zone: int, row: np.ndarray, col: np.ndarray) -> int:
    """Cells among these that share ground with the area, each asked as a polygon of the prepared area in the plane."""
    window = shapely.box(6 * zone - 187, -80.5, 6 * zone - 179, 84.5)
    plane = shapely.transform(
        shapely.segmentize(shapely.intersection(area, window), 0.01), utm(zone).transform, interleaved=False
    )
    shapely.prepare(plane)
    side = GRID.cell
    return int(shapely.intersects(plane, shapely.box(col * side, row * side, (col + 1) * side, (row + 1) * side)).sum())


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    zone = int(sys.argv[1]) if len(sys.argv) > 1 else 33
    before = time.perf_counter()
    area = land()
    print(f"land read: {time.perf_counter() - before:.2f} s, {shapely.get_num_coordinates(area):,} points")
    idle = memory()
    before, cells, runs = time.perf_counter(), 0, 0
    for part in expected_cells(GRID, area, rule="intersects"):
        cells, runs = cells + len(part), runs + len(part.runs[0])
    seconds = time.perf_counter() - before
    print(f"all land at 1 km: {cells:,} cells in {runs:,} runs, {seconds:.1f} s, {cells / seconds / 1e6:.0f} M cells/s")
    print(f"peak memory {memory():.0f} MB, {memory() - idle:.0f} MB more than before planning")

    mine = next(p for p in expected_cells(GRID, area, rule="intersects") if p.zone == zone)
    _, row, col = mine.cells()
    sample = np.random.default_rng(0).choice(len(row), min(len(row), 200_000), replace=False)
    before = time.perf_counter()
    found = by_polygons(area, zone, row[sample], col[sample])
    polygons = (time.perf_counter() - before) * len(row) / len(sample)
    alone = seconds * len(mine) / cells
    print(f"zone {zone}: {len(mine):,} cells; by polygons {polygons:.1f} s (from {len(sample):,} of them,")
    print(f"{len(sample) - found} disagree), its share of the run above {alone:.3f} s: ratio {polygons / alone:.0f}")


if __name__ == "__main__":
    main()
