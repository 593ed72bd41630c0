"""The `scene` layout: every image cut on its own pixel grid, no resampling of its finest band, whole chips only."""

import hashlib
import math
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.geo.footprints import centers, footprints, to_lonlat
from clay_publish.geo.raster_grid import RasterGrid, ground_size
from clay_publish.geo.utm_zones import Square, squares_of
from clay_publish.producer.imagery.chips import ChipBlock, Reading, cut, missing_reason, normalize, under_cloud
from clay_publish.producer.imagery.raster import OpenBand, grid_of, open_bands
from clay_publish.producer.imagery.strips import Strip, check_axes, fine_grid, strips
from clay_publish.producer.layouts.base import Floats, Places
from clay_publish.producer.sources.item import ItemMask, SourceItem

MEMORY = 1 << 27
"""Bytes a reader may hold, whatever the size of the scene; two of them are at work at a time."""

_SPARSE = 1 / 8
"""Share of the chips between the first and the last column, below which few are asked for."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class SceneChips:
    """Where the chips of an image lie."""

    item: SourceItem
    grid: RasterGrid
    size: int
    across: int
    """100 km squares along a side of the ground of one file."""

    @property
    def rows(self) -> int:
        """Rows of whole chips; what remains at the lower edge is left out."""
        return self.grid.height // self.size

    @property
    def columns(self) -> int:
        """Columns of whole chips."""
        return self.grid.width // self.size

    @property
    def epsg(self) -> int | None:
        """EPSG code of the image, where it has one."""
        return int(self.grid.crs.removeprefix("EPSG:")) if self.grid.crs.startswith("EPSG:") else None

    def ids(self, rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]) -> list[str]:
        """Ids of chips: grid, item, row, column, period."""
        head = f"scene-{self.size}px_{safe_name(self.item.id)}"
        tail = self.item.window.token
        return [f"{head}_{row}_{col}_{tail}" for row, col in zip(rows.tolist(), cols.tolist(), strict=True)]

    def corners(self, rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]) -> Floats:
        """[n, 4, 2]: upper left, lower left, lower right, upper right, in the CRS of the image."""
        a, b, c, d, e, f = self.grid.transform
        column = (cols[:, None] + np.array([0, 0, 1, 1])) * self.size
        row = (rows[:, None] + np.array([0, 1, 1, 0])) * self.size
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=-1)

    def centers(self, rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]) -> tuple[Floats, Floats]:
        """Longitude and latitude of the middle of the pixels."""
        middle = self.corners(rows, cols).mean(axis=1)
        return centers(self.grid.crs, middle[:, 0], middle[:, 1])

    def footprints(self, rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]) -> npt.NDArray[np.object_]:
        """True footprints, OGC:CRS84."""
        return footprints(self.grid.crs, self.corners(rows, cols))

    def places(self, rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]) -> Places:
        """Where chips lie."""
        lon, lat = self.centers(rows, cols)
        ids = np.array(self.ids(rows, cols), dtype=object)
        epsg = np.full(len(rows), self.epsg)
        return Places(
            ids, epsg, rows.astype(np.int64), cols.astype(np.int64), lon, lat, self.footprints(rows, cols), self.across
        )

    def within(self, area: shapely.Geometry | None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Row and column of every whole chip whose center lies in the area, row by row."""
        row, col = np.divmod(np.arange(self.rows * self.columns, dtype=np.int32), np.int32(max(self.columns, 1)))
        mine = self.inside(area, row, col)
        return row[mine], col[mine]

    def inside(
        self, area: shapely.Geometry | None, rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.bool_]:
        """Which chips lie on the Earth, whose whole projections go beyond it, with their centers in the area."""
        corners = self.corners(rows, cols)
        lon, lat = centers(self.grid.crs, corners[..., 0], corners[..., 1])
        # Sinusoidal and others answer for points beyond the Earth as well, with the place of another point.
        back = np.stack(to_lonlat(self.grid.crs).transform(lon, lat, direction="INVERSE"), axis=-1)
        with np.errstate(invalid="ignore"):
            mine = (np.hypot(*np.moveaxis(back - corners, -1, 0)) < self.grid.pixel).all(axis=1)
        if area is not None:
            mine &= shapely.intersects_xy(area, *self.centers(rows, cols))
        return np.asarray(mine)

    def asked(self, area: shapely.Geometry | None, left_out: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
        """[rows, columns], chips that `inside` has and that are not left out."""
        cols = np.arange(self.columns, dtype=np.int32)
        chosen = np.ones((self.rows, self.columns), dtype=bool) if left_out is None else ~left_out
        for row in np.flatnonzero(chosen.any(axis=1)).astype(np.int32):
            chosen[row] &= self.inside(area, np.full_like(cols, row), cols)
        return chosen

    def squares(self, area: shapely.Geometry | None) -> list[Square]:
        """Which published file each of these chips belongs to."""
        return squares_of(*self.centers(*self.within(area)), self.across)


def safe_name(text: str) -> str:
    """An id as part of a file name or chip id: other characters replaced, a digest added where anything changed."""
    safe = _UNSAFE.sub("-", text)[:100]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def read_scene(
    item: SourceItem,
    reading: Reading,
    area: shapely.Geometry | None,
    left_out: npt.NDArray[np.bool_] | None = None,
    across: int = 1,
) -> Generator[ChipBlock]:
    """Chips of an image, a row of chips at a time and at most `MEMORY` bytes at once; nothing else of it is read.

    Args:
        item: the image.
        reading: what it is read for.
        area: only chips whose center lies in it.
        left_out: [rows, columns], chips that are not asked for.
        across: 100 km squares along a side of the ground of one file.

    Raises:
        ImageryError: the image cannot be opened or read, or is not what its item says.
    """
    by_name = {file.band: file for file in item.bands}
    files = [by_name[band.name] for band in reading.bands]
    wanted = [*files, *(item.mask.files if item.mask is not None else ())]
    zeros = reading.sensor.zero_is_nodata
    with open_bands(wanted, reading.sensor.nodata, item.etags, zero_is_nodata=zeros) as opened:
        fine = fine_grid(opened[: len(files)], item.grid)
        for band in opened[len(files) :]:
            check_axes(band, fine.crs)
        scene = SceneChips(item, fine, reading.rules.size, across)
        asked = scene.asked(area, left_out)
        for first, last in _panels(opened, scene, asked):
            columns = first + np.flatnonzero(asked[:, first:last].any(axis=0))
            if not len(columns):
                continue
            left, right = int(columns[0]) * scene.size, (int(columns[-1]) + 1) * scene.size
            tops = (np.flatnonzero(asked[:, first:last].any(axis=1)) * scene.size).tolist()
            threads = reading.threads
            for strip in strips(opened, fine, tops=tops, rows=scene.size, left=left, right=right, threads=threads):
                yield _block(strip, scene, reading, asked)


def _panels(opened: list[OpenBand], scene: SceneChips, asked: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Ranges of columns of chips so that strips of all bands stay within memory.

    Where few chips are asked for, a panel is as wide as a block, so that few blocks without such a chip are read.
    """
    if not asked.any():
        return
    deepest = max(band.block_rows for band in opened) + scene.size
    a_column = sum((deepest * band.dtype.itemsize + scene.size * 9) for band in opened)
    most = max(1, int(MEMORY // (2 * a_column * scene.size)))
    even = math.ceil(scene.columns / math.ceil(scene.columns / most))
    # A panel that ends where blocks do has none of them decoded twice.
    block = max(band.block_columns * grid_of(band).pixel / scene.grid.pixel for band in opened) / scene.size
    chips = math.ceil(even / block) * round(block) if 1 <= block <= even else even
    if asked.sum() < _SPARSE * np.ptp(np.flatnonzero(asked.any(axis=0))) * asked.any(axis=1).sum():
        chips = min(chips, max(1, round(block)))
    for first in range(0, scene.columns, chips):
        yield first, min(first + chips, scene.columns)


def _block(strip: Strip, scene: SceneChips, reading: Reading, asked: npt.NDArray[np.bool_]) -> ChipBlock:
    sensor, bands, rules = reading.sensor, reading.bands, reading.rules
    size, item = scene.size, scene.item
    count = strip.values[0].shape[1] // size
    cols = np.arange(count, dtype=np.int32) + np.int32(strip.left // size)
    rows = np.full(count, strip.top // size, dtype=np.int32)
    lon, lat = scene.centers(rows, cols)
    mine = np.flatnonzero(asked[rows, cols])
    everywhere = np.logical_and.reduce(strip.valid[: len(bands)])
    valid = _share(cut(everywhere, size))
    cloud = _cloud(strip, item.mask, len(bands), size)
    verdicts = [missing_reason(v, c, rules) for v, c in zip(valid[mine].tolist(), cloud[mine].tolist(), strict=True)]
    kept = mine[[reason is None for reason, _ in verdicts]]
    pixels = np.empty((len(kept), len(bands), size, size), dtype=np.float32)
    if len(kept):
        for place, band in enumerate(bands):
            linear = item.scaling(band.name).to_input(sensor)
            whole = normalize(strip.values[place], everywhere, band, linear, decibels=sensor.decibels)
            pixels[:, place] = cut(whole, size)[kept]
    rows, cols = rows[mine], cols[mine]
    return ChipBlock(
        ids=scene.ids(rows, cols),
        epsg=scene.epsg,
        rows=rows,
        cols=cols,
        geometry=scene.footprints(rows, cols),
        lon=lon[mine],
        lat=lat[mine],
        gsd=ground_size(scene.grid, strip.top + size / 2),
        squares=squares_of(lon[mine], lat[mine], scene.across),
        reasons=[reason for reason, _ in verdicts],
        details=[detail for _, detail in verdicts],
        pixels=pixels,
        valid_fraction=valid[mine],
        cloud_fraction=cloud[mine],
        source=[item] * len(mine),
        item_ids=[(item.id,)] * len(mine),
    )


def _cloud(strip: Strip, mask: ItemMask | None, place: int, size: int) -> npt.NDArray[np.float32]:
    """Share of each chip under cloud; NaN where no mask tells."""
    count = strip.values[0].shape[1] // size
    if mask is None:
        return np.full(count, np.nan, dtype=np.float32)
    observed, under = under_cloud(list(zip(strip.values[place:], strip.valid[place:], strict=True)), mask.values)
    share = _share(cut(under, size))
    share[~cut(observed, size).any(axis=(1, 2))] = np.nan
    return share


def _share(chips: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """[n, size, size] of truth values → the share of true ones, [n]."""
    return np.asarray(np.count_nonzero(chips, axis=(1, 2)) / chips[0].size, dtype=np.float32)
