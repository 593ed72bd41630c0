"""Reading: chips of a scene one by one, by odc-stac, and in strips; warped one by one and in superblocks."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import rasterio
import shapely
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window, from_bounds
from scenes import SENSOR, item_at, scene, served, stored_bytes

from clay_publish.geo.utm_grid import SUPERBLOCK, Cut, UtmGrid
from clay_publish.geo.utm_zones import Square
from clay_publish.producer.execution.context import READERS
from clay_publish.producer.imagery.chips import Reading
from clay_publish.producer.imagery.composite import superblock_side
from clay_publish.producer.imagery.raster import session
from clay_publish.producer.layouts.scene import read_scene
from clay_publish.producer.layouts.utm import Cells, Piece, read_cells
from clay_publish.producer.layouts.utm_composite import read_combined
from clay_publish.producer.sources.item import BandFile, ItemMask, SourceItem
from clay_publish.spec.models import ChipSpec, Composite
from clay_publish.windows import Window as Period

SIDE, SIZE = 2560, 128
IMAGES = 16
"""Of a composite."""
_YEAR = Period.parse("2016-01-01/2017-01-01")
SAMPLE = 24
"""Chips that slow ways are timed on."""
Row = tuple[str, str, str]


def reading(layout: str = "scene") -> Reading:
    bands = tuple(band.statistics for band in SENSOR.bands)
    return Reading(SENSOR, bands, ChipSpec(layout=layout, size=SIZE, max_nodata=1, max_cloud=1), READERS)


def rows(folder: Path) -> Iterator[Row]:
    path = scene(folder, SIDE)
    local = item_at(path)
    chips = (SIDE // SIZE) ** 2
    share = SAMPLE / chips
    ways: dict[str, tuple[Callable[[SourceItem], int], float]] = {
        "rasterio, open a chip and band": (naive, share),
        "strips (this)": (strips, 1.0),
    }
    if _odc_stac():
        ways["odc.stac.load a chip"] = (by_odc, share)
    with served(folder) as server:
        remote = item_at(path, f"{server.url}/{path.name}")
        for where, item in (("local", local), ("30 ms away", remote)):
            speed: dict[str, float] = {}
            for name, (way, part) in ways.items():
                before, begun = server.now(), time.perf_counter()
                count = way(item)
                speed[name] = count / (time.perf_counter() - begun)
                asked, fetched = (b - a for a, b in zip(before, server.now(), strict=True))
                needed = stored_bytes(local, folder) * part
                net = f", {asked / count:.1f} requests a chip, {fetched / needed:.2f} bytes a byte" if asked else ""
                yield f"reading, {where}: {name}", f"{speed[name]:.1f} chips/s{net}", _against(speed, name)
    yield from _warped(local)
    yield from _composites(local, folder)


def _against(speed: dict[str, float], name: str) -> str:
    first = next(iter(speed.values()))
    return f"{speed[name] / first:.1f} × the first" if len(speed) > 1 else "1"


def strips(item: SourceItem) -> int:
    return sum(len(block.pixels) for block in read_scene(item, reading(), None))


def naive(item: SourceItem) -> int:
    """As a dataset class does that opens what a chip needs, in random order."""
    place = np.random.default_rng(0)
    for _ in range(SAMPLE):
        row, col = place.integers(0, SIDE // SIZE, 2) * SIZE
        for file in item.bands:
            with session(), rasterio.open(file.href) as band:
                step = round(band.transform.a / 10)
                window = Window(col // step, row // step, SIZE // step, SIZE // step)
                band.read(1, window=window, out_shape=(SIZE, SIZE), resampling=Resampling.nearest)
    return SAMPLE


def _odc_stac() -> bool:
    from importlib.util import find_spec

    return find_spec("odc") is not None and find_spec("odc.stac") is not None


def by_odc(item: SourceItem) -> int:
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    assert item.geometry is not None
    outline = json.loads(shapely.to_geojson(item.geometry))
    made = pystac.Item("scene", outline, list(item.geometry.bounds), item.acquired, {"proj:code": "EPSG:32618"})
    for file in item.bands:
        made.add_asset(file.band, pystac.Asset(file.href, media_type="image/tiff", roles=["data"]))
    place = np.random.default_rng(0)
    for _ in range(SAMPLE):
        row, col = place.integers(0, SIDE // SIZE, 2) * SIZE
        west, north = 399_960 + 10 * col, 4_200_000 - 10 * row
        box = GeoBox((SIZE, SIZE), rasterio.Affine(10, 0, west, 0, -10, north), "EPSG:32618")
        odc.stac.load([made], bands=[f.band for f in item.bands], geobox=box, resampling="nearest")
    return SAMPLE


def _warped(item: SourceItem) -> Iterator[Row]:
    """To the neighboring UTM zone, so that every pixel is resampled."""
    grid = UtmGrid(SIZE * 10)
    cells = _cells(grid)
    begun = time.perf_counter()
    blocks = read_cells(cells, (item,), Period.parse("2016-01-12/2016-01-13"), reading("utm"), Piece.read)
    made = sum(len(block.pixels) for block in blocks)
    ours = made / (time.perf_counter() - begun)
    begun, count = time.perf_counter(), min(SAMPLE, len(cells.rows))
    for row, col in list(zip(cells.rows.tolist(), cells.cols.tolist(), strict=True))[-count:]:
        ((west, south, east, north),) = grid.bounds(cells.cut.square.epsg, np.array([row]), np.array([col]))
        for file in item.bands:
            with (
                session(),
                rasterio.open(file.href) as band,
                WarpedVRT(
                    band,
                    crs=CRS.from_epsg(cells.cut.square.epsg).to_wkt(),
                    transform=rasterio.Affine(10, 0, west, 0, -10, north),
                    width=SIZE,
                    height=SIZE,
                    resampling=Resampling.bilinear,
                ) as warped,
            ):
                warped.read(1, window=from_bounds(west, south, east, north, warped.transform))
    alone = count / (time.perf_counter() - begun)
    yield "warping: one warp a chip and band", f"{alone:.1f} chips/s", "1"
    yield "warping: superblocks (this)", f"{ours:.1f} chips/s", f"{ours / alone:.1f} × the first"


def _composites(item: SourceItem, folder: Path) -> Iterator[Row]:
    """As many images with a cloud mask as a composite takes, reduced, against chips of each image alone."""
    mask, path = _mask(folder)
    masked = item.changed(mask=mask, hrefs={**item.texts.hrefs, mask.asset: str(path)})
    dates = [item.acquired + timedelta(days=5 * number) for number in range(IMAGES)]
    items = tuple(
        masked.changed(id=f"{item.id}-{n}", acquisition=f"{n}", acquired=date, start=date, end=date)
        for n, date in enumerate(dates)
    )
    wide = _cells(UtmGrid(SIZE * 10))

    def alone() -> float:
        begun = time.process_time()
        for one in items:
            made = sum(len(block.pixels) for block in read_cells(wide, (one,), _YEAR, reading("utm"), Piece.read))
        return (time.process_time() - begun) / made

    def reduced(method: str) -> float:
        composite = Composite(method=method, images=IMAGES)
        side = superblock_side(SUPERBLOCK, SIZE, len(SENSOR.bands), composite, None)
        cells, asked = _cells(UtmGrid(SIZE * 10), side), replace(reading("utm"), composite=composite)
        begun = time.process_time()
        made = sum(len(block.pixels) for block in read_cells(cells, items, _YEAR, asked, read_combined))
        return (time.process_time() - begun) / made

    spent = [(alone(), reduced("median"), reduced("mean")) for _ in range(3)]
    single, *others = (min(column) for column in zip(*spent, strict=True))
    yield f"warping: {IMAGES} images, one after the other", f"{1e3 * single:.0f} ms of processor per chip", "1"
    for method, best in zip(("median", "mean"), others, strict=True):
        yield f"warping: {method} of {IMAGES} (this)", f"{1e3 * best:.0f} ms", f"{best / single:.2f} × the time"


def _mask(folder: Path) -> tuple[ItemMask, Path]:
    """Scene classes of 20 m with a tenth of cloud."""
    path = folder / "classes.tif"
    clouds = np.random.default_rng(0).random((SIDE // 64, SIDE // 64)) < 0.1
    classes = np.kron(np.where(clouds, 9, 4).astype(np.uint8), np.ones((32, 32), np.uint8))
    transform = rasterio.Affine(20, 0, 399_960, 0, -20, 4_200_000)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=SIDE // 2,
        height=SIDE // 2,
        count=1,
        dtype="uint8",
        crs="EPSG:32618",
        transform=transform,
        tiled=True,
        compress="deflate",
    ) as file:
        file.write(classes, 1)
    return ItemMask((BandFile("scl", "scl", "", None, None),), SENSOR.masks[0]), path


def _cells(grid: UtmGrid, pixels: int = SUPERBLOCK) -> Cells:
    """The superblock of the zone to the west that holds the middle of the scene."""
    from pyproj import Transformer

    back = Transformer.from_crs("EPSG:32618", "EPSG:32617", always_xy=True)
    x, y = back.transform(399_960 + 5 * SIDE, 4_200_000 - 5 * SIDE)
    cut = Cut.of(grid, Square(17, int(x // 100_000), int(y // 100_000)), SIZE, pixels=pixels)
    row, col = (
        first + (int(place // grid.cell) - first) // cut.side * cut.side
        for place, first in ((y, cut.row), (x, cut.col))
    )
    down, right = np.mgrid[row : row + cut.side, col : col + cut.side]
    return Cells.of(grid, cut, down.ravel().astype(np.int64), right.ravel().astype(np.int64), ())
