"""Stages on a release of many source items: `python benchmarks/sources.py FOLDER --sources 200000`.

The release has few chips, of one of the items. Each stage is a process of its own, measured as in `global.py`.
"""

import argparse
import importlib
import itertools
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from source_items import sources_of, write_sources
from validate_release import WINDOW, by_square, fingerprint, write_coverage, write_documents, write_square

from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import write_manifest

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
    decided = fingerprint(8, 128)
    chips = 0
    for zone in expected_cells(GRID, shapely.box(*area), rule="intersects"):
        for square, cells in by_square(GRID, zone):
            write_square(release, GRID, square, cells, decided=decided, images={name_of(0): WINDOW.middle})
        write_coverage(release, GRID, zone, lambda _: [name_of(0)])
        chips += len(zone)
    write_documents(release, GRID, area, decided=decided, chips=chips)
    tables = (images(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE))
    write_sources(release, tables, [2.0, 4.0, 5.0, 7.0])
    write_manifest(release, "benchmark 1")


def name_of(number: int) -> str:
    return f"S2A_31NEG_{WINDOW.start:%Y%m%d}_{number:08d}_L2A"


def images(first: int, stop: int) -> pa.Table:
    """Images of the same ground, 500 of each acquisition."""
    moved = np.random.default_rng(first).uniform(0, 0.1, (stop - first, 4)) * [-1, -1, 1, 1]
    shapes = shapely.box(*(np.array([2.8, 4.8, 3.2 + SIDE, 5.2 + SIDE]) + moved).T)
    numbers = range(first, stop)
    moments = [WINDOW.middle + timedelta(seconds=n // 500 * 60) for n in numbers]
    acquisitions = [f"sentinel-2a GS2A_20230101T100000_{n // 500:06d}_N05.09" for n in numbers]
    corners = [(32631, 499_980.0, 700_020.0)] * len(numbers)
    return sources_of([name_of(n) for n in numbers], shapes, moments, acquisitions, corners)


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
