"""A global release and every stage after `produce`, measured: `python benchmarks/global.py FOLDER --fraction 0.01`.

Chips of 1 km with vectors of 8 numbers on the real land of the Earth, from 20° west eastward until the stated fraction
of it is covered; 1 is all land, 144,261,750 chips. Each 100 km square has images of its own, one unless `--images` says
more, so that neighbors are of different ones. The release is written file by file and can be continued; building stops
when the disk gets full. Documents come from `catalog` and `card`; the release is without reference vectors, and without
codes and explorer, which `search.py` and `explorer.py` measure.

Each stage is a process of its own. Its processor time and its peak memory are those of it and all its children, the
memory as the sum of their resident sets, looked at ten times a second: pages that they share count twice.
"""

import argparse
import itertools
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from source_items import sources_of, write_sources
from stac_geoparquet.arrow import parse_stac_items_to_arrow
from validate_release import (
    WINDOW,
    by_square,
    fingerprint,
    write_coverage,
    write_documents,
    write_square,
)

from clay_publish.geo.area import land, to_equal_area
from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.footprints import footprints
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import SQUARE, Square
from clay_publish.publish import bucket, publish_release
from clay_publish.publish.package import Package
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.findings import FileVerdict, ValidationReport
from clay_publish.release.manifest import UNITS, FileEntry, write_manifest
from clay_publish.release.run_status import keep_file_verdict
from clay_publish.release.unit_receipts import RECEIPTS, SHOWN, UnitReceipt

GRID, DIMENSIONS = UtmGrid(1000), 8
WEST = -20.0
SIDE = 109_800.0
MARGIN = (SIDE - SQUARE) / 2
"""Meters by which images of a square reach beyond it."""
FREE, MOST = 20e9, 15e9
"""Bytes that stay free on the disk, and that the release may take."""
AT_ONCE = 1 << 14
"""Images that are made together."""
ABSENT = ("INT010", "SCH016", "VEC014")
"""Rules on reference vectors and codes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fraction", type=float, default=0.1, help="of the land of the Earth")
    parser.add_argument("--images", type=int, default=1, help="of each 100 km square")
    parser.add_argument("--tiles", type=Path, help="Sentinel-2 tiles, for `plan`: the file grids/… of the shared data")
    parser.add_argument("--rounds", type=int, default=1, help="windows, quarters of 2023, that `plan` gets items for")
    parser.add_argument("--days", type=int, default=1, help="of each window with an item of each tile; at most 76")
    parser.add_argument("--stages", nargs="*", default=[*STAGES], choices=[*STAGES, "publishing"])
    asked = parser.parse_args()
    if asked.stages == ["publishing"]:
        publish_linked(asked.folder)
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    chips = build(asked.folder / "release", asked.fraction, asked.images)
    print(f"{chips:,} chips; stage, seconds, CPU-seconds, peak memory of all its processes", flush=True)
    for name in asked.stages:
        if name == "plan" and asked.tiles is None:
            continue
        measure(name, STAGES[name](asked), asked.folder)


def build(where: Path, fraction: float, images: int) -> int:
    """The release; what is there already is kept."""
    release, decided = Release(str(where)), fingerprint(DIMENSIONS, 100)
    area, stated = ground(fraction)
    squares, chips = list[Square](), 0
    for zone in expected_cells(GRID, area, rule="intersects"):
        chips += len(zone)
        for square, cells in by_square(GRID, zone):
            squares.append(square)
            if not release.store.exists(f"{paths.EMBEDDINGS}/{DataFile(square, WINDOW).name}"):
                check_disk(where)
                write_square(release, GRID, square, cells, decided=decided, images=images_of(square, images))
        if not release.store.exists(f"{paths.COVERAGE}/zone={zone.zone:02d}.parquet"):
            write_coverage(release, GRID, zone, lambda square: images_of(square, images))
    if not release.store.exists(paths.MANIFEST):
        write_documents(release, GRID, stated, decided=decided, chips=chips)
        write_sources(release, source_tables(squares, images), [-180, -90, 180, 90])
        write_manifest(release, "benchmark 1")
    return chips


def ground(fraction: float) -> tuple[shapely.Geometry, object]:
    """An area with about this fraction of the land, and how a spec states it.

    It has no holes: simplified, the land has some that are none, such as fjords whose mouths close.
    """
    everywhere = land()
    if fraction >= 1:
        return everywhere, "land"
    coarse = shapely.simplify(everywhere, 0.05)
    whole, low, high = to_equal_area(coarse).area, WEST, 180.0
    while high - low > 0.01:
        east = (low + high) / 2
        part = shapely.intersection(coarse, shapely.box(WEST, -80, east, 84))
        low, high = (east, high) if to_equal_area(part).area < fraction * whole else (low, east)
    part = shapely.make_valid(shapely.simplify(part, 0.1))
    pieces = [piece for piece in shapely.get_parts(part) if piece.geom_type == "Polygon" and piece.area > 0.01]
    rounded = shapely.set_precision(shapely.multipolygons(pieces), 0.001)  # which closes fjords, too
    filled = [shapely.polygons(piece.exterior) for piece in shapely.get_parts(rounded)]
    stated = json.loads(shapely.to_geojson(shapely.multipolygons(filled)))
    return shapely.from_geojson(json.dumps(stated)), stated


def images_of(square: Square, images: int) -> dict[str, datetime]:
    """Images of a square and their times, evenly over the window."""
    every = (WINDOW.end - WINDOW.start) / images
    return {f"{square.token}_{number:03d}": WINDOW.start + every * (number + 0.5) for number in range(images)}


def source_tables(squares: Sequence[Square], images: int) -> Iterator[pa.Table]:
    """Images of all squares: those of a zone and a moment are of one acquisition."""
    step = max(1, AT_ONCE // images)
    for start in range(0, len(squares), step):
        names, moments, acquisitions = list[str](), list[datetime](), list[str]()
        corners = list[tuple[int, float, float]]()
        some = squares[start : start + step]
        for square in some:
            own = images_of(square, images)
            names += own
            moments += own.values()
            x, y = west_and_south(square)
            corners += [(32600 + square.zone, x, y + SIDE)] * images
            acquisitions += [f"sentinel-2a GS2A_{square.zone:02d}_{number:06d}" for number in range(images)]
        shapes = np.repeat(np.array([outline(square) for square in some]), images)
        north = np.random.default_rng(start).uniform(0, 0.02, len(shapes)) * (images > 1)
        north = np.repeat(north, shapely.get_num_coordinates(shapes))
        shapes = shapely.transform(shapes, lambda points, by=north: points + np.stack([0 * by, by], axis=1))
        yield sources_of(names, shapes, moments, acquisitions, corners)


def outline(square: Square) -> shapely.Geometry:
    """The footprint of images, with corners only, as catalogs have them."""
    x, y = west_and_south(square)
    corners = np.array([[[x, y], [x + SIDE, y], [x + SIDE, y + SIDE], [x, y + SIDE]]])
    return shapely.simplify(footprints(f"EPSG:{32600 + square.zone}", corners)[0], 0.01)


def west_and_south(square: Square) -> tuple[float, float]:
    return square.column * SQUARE - MARGIN, square.row * SQUARE - MARGIN


def check_disk(where: Path) -> None:
    where.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(where).free < FREE:
        sys.exit(f"{where}: less than {FREE / 1e9:.0f} GB are free; what is made stays, and is continued from")
    if next(CHECKS) % 1000 == 0 and sum(f.stat().st_size for f in where.rglob("*.parquet")) > MOST:
        sys.exit(f"{where}: takes more than {MOST / 1e9:.0f} GB; choose a smaller --fraction")


CHECKS = itertools.count(1)

Command = Callable[[argparse.Namespace], list[str]]
PROGRAM = [sys.executable, "-m", "clay_publish"]


def plan(asked: argparse.Namespace) -> list[str]:
    items = asked.folder / f"items-{asked.rounds}-{asked.days}.parquet"
    if not items.exists():
        write_items(items, asked.tiles, asked.rounds, asked.days)
    windows = [f"2023-{3 * n + 1:02d}-01/{2023 + (n == 3)}-{(3 * n + 3) % 12 + 1:02d}-01" for n in range(asked.rounds)]
    spec = {
        "name": "plan",
        "imagery": {"stac": str(items), "sensor": "sentinel-2-l2a", "area": "land", "windows": windows},
        "chips": {"layout": "utm", "size": 100, "gsd": 10},
        "cost": {"chips_per_hour": 1_000_000, "usd_per_hour": 1},
    }
    path = asked.folder / "plan.yaml"
    path.write_text(json.dumps(spec))
    return [*PROGRAM, "plan", str(path), "--out", str(asked.folder / "planned"), "--json"]


def card(asked: argparse.Namespace) -> list[str]:
    return [*PROGRAM, "card", str(asked.folder / "release"), "--json"]


def catalog(asked: argparse.Namespace) -> list[str]:
    """Items and Collection; the card is there, so that it is not made too."""
    release = Release(str(asked.folder / "release"))
    if not release.store.exists(paths.CARD):
        release.store.write(paths.CARD, "# To be written by `card`\n")
    return [*PROGRAM, "catalog", str(asked.folder / "release"), "--no-json-items", "--json"]


def check(asked: argparse.Namespace) -> list[str]:
    skipped = [option for code in ABSENT for option in ("--skip", code)]
    return [*PROGRAM, "validate", str(asked.folder / "release"), *skipped, "--json"]


def search(asked: argparse.Namespace) -> list[str]:
    return [*PROGRAM, "search", str(asked.folder / "release"), "--bbox", "10,40,12,42", "--datetime", "2023", "--json"]


def diff(asked: argparse.Namespace) -> list[str]:
    """Against a version of which one file has other vectors."""
    old, new = asked.folder / "release", asked.folder / "newer"
    if not new.exists():
        shutil.copytree(old, new, copy_function=os.link)
        release = Release(str(new))
        path = new / paths.SPEC
        text = path.read_text().replace("version: 1.0.0", "version: 1.1.0")
        path.unlink()
        path.write_text(text)
        zone = next(expected_cells(GRID, ground(asked.fraction)[0], rule="intersects"))
        square, cells = next(by_square(GRID, zone))
        (new / paths.EMBEDDINGS / DataFile(square, WINDOW).name).unlink()
        write_square(
            release,
            GRID,
            square,
            cells,
            decided=fingerprint(DIMENSIONS, 100),
            images=images_of(square, asked.images),
            seed=1,
        )
        (new / paths.MANIFEST).unlink()
        write_manifest(release, "benchmark 1")
    return [*PROGRAM, "diff", str(old), str(new), "--json"]


def publish(asked: argparse.Namespace) -> list[str]:
    shutil.rmtree(asked.folder / "published", ignore_errors=True)
    return [sys.executable, __file__, str(asked.folder), "--stages", "publishing"]


def publish_linked(where: Path) -> None:
    """Publish to a directory, with the report of `validate`. Data is hashed and linked; a directory gets copies."""
    release = Release(str(where / "release"))
    report = ValidationReport.model_validate_json((where / "validate.json").read_text())

    def send(
        self: bucket.LocalBucket, folder: str, package: Package, entry: FileEntry, sent: Callable[[int], None]
    ) -> int:
        for _ in package.pieces(entry, 1 << 22):
            pass
        target = Path(self.where) / folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(package.release.store.path(entry.path), target)
        sent(entry.size)
        return entry.size

    with patch.object(bucket.LocalBucket, "send", send):
        receipt = publish_release(release, str(where / "published"), report, allow_unchecked=True)
    print(receipt.line)


def status(asked: argparse.Namespace) -> list[str]:
    """Of a run that stopped before its last steps: a unit, of an image on each of `--days`, and a verdict per file."""
    release = Release(str(asked.folder / "release"))
    if not release.store.exists(UNITS):
        units = []
        for path in release.data_files():
            name, rows = Path(path).stem, release.parquet(path).metadata.num_rows
            units.append(name)
            receipt = UnitReceipt(
                unit=name,
                images=asked.days,
                items=[f"S2A_{name}_{day}" for day in range(min(asked.days, SHOWN))],
                parts={},
                counts={"embedded": rows},
                seconds=rows / 3,
                finished=1.7e9 + len(units),
                device="cuda",
            )
            release.store.write(f"{RECEIPTS}/{name}.json", receipt.model_dump_json())
            verdict = FileVerdict(file=path, sha256="0" * 64, validator="1", findings=[], unchecked={})
            keep_file_verdict(release, verdict)
        release.store.write(UNITS, json.dumps({"units": units, "chips": {"expected": 1, "to_compute": 1}}))
    return [*PROGRAM, "status", str(asked.folder / "release"), "--json"]


STAGES: dict[str, Command] = {
    "plan": plan,
    "catalog": catalog,
    "card": card,
    "validate": check,
    "search": search,
    "diff": diff,
    "publish": publish,
    "status": status,
}


def measure(name: str, command: Sequence[str], folder: Path) -> None:
    """Run a stage and print what it took."""
    before = time.perf_counter()
    with (folder / f"{name}.json").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = psutil.Popen(command, stdout=out, stderr=err)
    peak, ended = [0], threading.Event()
    cpu: dict[int, float] = {}
    watcher = threading.Thread(target=watch, args=(process, peak, cpu, ended))
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    seconds = time.perf_counter() - before
    print(f"{name:<9} {seconds:8.1f} s {sum(cpu.values()):8.1f} CPU-s {peak[0] / 1e9:6.2f} GB  exit {code}", flush=True)


def watch(process: psutil.Process, peak: list[int], cpu: dict[int, float], ended: threading.Event) -> None:
    """Add up memory and processor time of a process and its children."""
    while not ended.wait(0.1):
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        total = 0
        for each in family:
            try:
                total += each.memory_info().rss
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            cpu[each.pid] = times.user + times.system
        peak[0] = max(peak[0], total)


def write_items(path: Path, tiles: Path, rounds: int, days: int) -> None:
    """Items of Sentinel-2 as Earth Search has them, with projection fields: of each tile some in each quarter."""
    grid = pq.read_table(tiles)
    with pq.ParquetWriter(path, items_of(grid.slice(0, 1), 0).schema) as writer:
        for number in range(rounds):
            for start in range(0, grid.num_rows, 4096):
                first = items_of(grid.slice(start, 4096), number)
                for day in range(days):
                    writer.write_table(later(first, day))


def later(items: pa.Table, days: int) -> pa.Table:
    """The same images some days later: their times, names and addresses."""
    before = items["datetime"][0].as_py()
    after = before + timedelta(days=days)
    names = {f"{before:{form}}": f"{after:{form}}" for form in ("%Y%m%d", "%Y-%m-%d")}

    def renamed(column: pa.Array) -> pa.Array:
        if pa.types.is_struct(column.type):
            fields = [renamed(part) for part in column.flatten()]
            return pa.StructArray.from_arrays(fields, fields=list(column.type), mask=column.is_null())
        if pa.types.is_string(column.type):
            for old, new in names.items():
                column = pc.replace_substring(column, old, new)
        return column

    columns = [renamed(column.combine_chunks()) for column in items.columns]
    moved = pa.table(columns, schema=items.schema)
    place = items.schema.names.index("datetime")
    times = pc.add(items["datetime"], pa.scalar(timedelta(days=days), pa.duration("us")))
    return moved.set_column(place, items.schema.field(place), times.cast(items.schema.field(place).type))


BANDS = {"blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06", "rededge3": "B07"} | {
    "nir": "B08", "nir08": "B8A", "swir16": "B11", "swir22": "B12", "scl": "SCL"
}  # fmt: skip
FINE = {"blue", "green", "red", "nir"}


def items_of(tiles: pa.Table, number: int) -> pa.Table:
    shapes = np.empty(tiles.num_rows, dtype=object)
    epsg = tiles["epsg"].to_numpy()
    for code in np.unique(epsg):
        mine = np.flatnonzero(epsg == code)
        low = np.stack([tiles["xmin"].to_numpy()[mine], tiles["ymin"].to_numpy()[mine]], axis=-1).astype(float)
        steps = 109_800.0 * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        shapes[mine] = footprints(f"EPSG:{code}", low[:, None] + steps)
    shapes = shapely.simplify(shapes, 0.01)  # four corners, as catalogs have them
    items = [item_of(tile, shape, number) for tile, shape in zip(tiles.to_pylist(), shapes, strict=True)]
    return parse_stac_items_to_arrow(items).read_all()


def item_of(tile: dict[str, Any], shape: shapely.Geometry, number: int) -> dict[str, object]:
    name, day = f"S2A_{tile['tile_id']}_2023{3 * number + 1:02d}15_0_L2A", f"2023-{3 * number + 1:02d}-15"
    assets: dict[str, dict[str, Any]] = {}
    for band, key in BANDS.items():
        size = 10 if band in FINE else 20
        assets[band] = {
            "href": f"https://example.org/sentinel-s2-l2a-cogs/{tile['tile_id']}/{name}/{key}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "proj:shape": [109_800 // size, 109_800 // size],
            "proj:transform": [size, 0, tile["xmin"], 0, -size, tile["ymin"] + 109_800],
        }
        if band != "scl":
            assets[band]["eo:bands"] = [{"name": key, "common_name": band}]
            assets[band]["raster:bands"] = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
    west, south, east, north = shape.bounds
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": shapely.geometry.mapping(shape),
        "bbox": [west, south, east, north],
        "links": [],
        "properties": {
            "datetime": f"{day}T10:00:00Z",
            "platform": "sentinel-2a",
            "proj:epsg": tile["epsg"],
            "eo:cloud_cover": 20.5,
            "s2:processing_baseline": "05.09",
            "s2:product_type": "S2MSI2A",
            "s2:datatake_id": f"GS2A_{day}_{tile['tile_id'][:2]}_N05.09",
        },
        "assets": assets,
    }


if __name__ == "__main__":
    main()
