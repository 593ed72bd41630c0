"""Tile pyramids as PMTiles, made from the finest zoom upwards and depth first: only one branch is in memory."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from pmtiles.tile import Compression, TileType, tileid_to_zxy, zxy_to_tileid
from pmtiles.writer import Writer

from clay_publish.cards.explorer.chips import WORLD, Chips, Section
from clay_publish.cards.explorer.layers import Bytes, Layer, drawn, encoded, halved
from clay_publish.geo.utm_grid import NORTH, SOUTH, UtmGrid
from clay_publish.release.directory import Release

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SIDE = 512
"""Pixels of a tile's side."""

EARTH = 40_075_016.68
"""Circumference at the equator, meters."""

MAX_ZOOM = 18

_NOWHERE = -1
_ROWS_AT_ONCE = 1 << 21


class Tile:
    """One tile of the web mercator pyramid; x counts from the west, y from the north."""

    def __init__(self, z: int, x: int, y: int) -> None:
        self.z, self.x, self.y = z, x, y

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        west, east = (360 * (self.x + side) / (1 << self.z) - 180 for side in (0, 1))
        north, south = (_latitude((self.y + side) / (1 << self.z)) for side in (0, 1))
        return west, float(south), east, float(north)

    @cached_property
    def centers(self) -> tuple[Floats, Floats]:
        """Longitudes [n] of columns and latitudes [n] of rows, at the centers of pixels."""
        steps = (np.arange(SIDE) + 0.5) / SIDE
        return 360 * (self.x + steps) / (1 << self.z) - 180, _latitude((self.y + steps) / (1 << self.z))

    @cached_property
    def pixel(self) -> float:
        """Ground size of its largest pixel, meters."""
        _, south, _, north = self.box
        nearest = 0.0 if south <= 0 <= north else min(abs(south), abs(north))
        return EARTH * math.cos(math.radians(nearest)) / SIDE / (1 << self.z)

    def is_leaf(self, side: float) -> bool:
        """Whether the pyramid ends here: no pixel is larger than a chip."""
        return self.pixel <= side or self.z >= MAX_ZOOM

    def below(self) -> "list[Tile]":
        """The four tiles of the next zoom, row by row."""
        return [Tile(self.z + 1, 2 * self.x + col, 2 * self.y + row) for row in (0, 1) for col in (0, 1)]

    def meets(self, box: tuple[float, float, float, float]) -> bool:
        """Whether a box of degrees, whose longitudes may lie beyond ±180, shares ground with the tile."""
        west, south, east, north = self.box
        if box[1] > north or box[3] < south:
            return False
        return any(box[0] + turn <= east and box[2] + turn >= west for turn in (-360, 0, 360))


def _latitude(y: npt.ArrayLike) -> Floats:
    return np.asarray(np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * np.asarray(y, dtype=np.float64))))))


def owners(tile: Tile, chips: Chips, sections: Sequence[Section]) -> Ints:
    """[SIDE, SIDE] the row of `chips` that each pixel shows, -1 where there is none; later sections are on top."""
    return _cells(tile, chips, chips.grid, sections) if chips.grid else _quads(tile, chips, sections)


def _cells(tile: Tile, chips: Chips, grid: UtmGrid, sections: Sequence[Section]) -> Ints:
    """A pixel shows the cell that holds its center, in the plain zone of its longitude."""
    lon, lat = tile.centers
    rows = np.flatnonzero((lat >= SOUTH) & (lat <= NORTH))
    made = np.full((SIDE, SIDE), _NOWHERE, dtype=np.int64)
    near = [section for section in sections if tile.meets(section.box)]
    if not near or not len(rows):
        return made
    numbers = grid.numbers(*grid.cells_at(np.tile(lon, len(rows)), np.repeat(lat[rows], SIDE)))
    order = np.argsort(numbers, kind="stable")
    wanted, found = numbers[order], np.full(len(numbers), _NOWHERE, dtype=np.int64)
    for part in _parts(near):
        cells = np.concatenate([chips.places[section.start : section.stop] for section in part])
        number = np.concatenate([np.arange(section.start, section.stop) for section in part])
        line = np.argsort(cells, kind="stable")
        # Of equal cells the last: it belongs to the section that is drawn on top.
        place = np.searchsorted(cells[line], wanted, side="right") - 1
        hit = (place >= 0) & (cells[line[np.maximum(place, 0)]] == wanted)
        found[order[hit]] = number[line[place[hit]]]
    made[rows] = found.reshape(len(rows), SIDE)
    return made


def _parts(sections: Sequence[Section]) -> Iterator[list[Section]]:
    """Sections in order, in lists of about `_ROWS_AT_ONCE` rows."""
    part: list[Section] = []
    for section in sections:
        part.append(section)
        if sum(each.stop - each.start for each in part) >= _ROWS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _quads(tile: Tile, chips: Chips, sections: Sequence[Section]) -> Ints:
    """A pixel shows the last chip whose four-cornered footprint holds its center."""
    made = np.full((SIDE, SIDE), _NOWHERE, dtype=np.int64)
    scale = WORLD / (1 << tile.z) / SIDE
    for section in sections:
        if not tile.meets(section.box):
            continue
        quads = np.asarray(chips.places[section.start : section.stop])
        for turn in (-WORLD, 0, WORLD):
            corner = np.stack([quads[..., 0] + turn, quads[..., 1]], axis=-1) / scale
            _fill(made, corner - [tile.x * SIDE, tile.y * SIDE], section.start)
    return made


def _fill(made: Ints, corner: Floats, start: int) -> None:
    """Paint convex quadrilaterals, [n, 4, 2] in pixels, over a tile."""
    low = np.maximum(np.ceil(corner.min(axis=1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corner.max(axis=1) - 0.5), SIDE - 1).astype(np.int64)
    size = np.maximum(high - low + 1, 0)
    some = np.flatnonzero((size > 0).all(axis=1))
    if not len(some):
        return
    size, low, corner = size[some], low[some], corner[some]
    # Counterclockwise on the screen, so that inside is on the same side of all four edges.
    following = np.roll(corner, -1, axis=1)
    area = (corner[..., 0] * following[..., 1] - following[..., 0] * corner[..., 1]).sum(axis=1)
    corner = np.where((area < 0)[:, None, None], corner[:, ::-1], corner)
    edge = np.roll(corner, -1, axis=1) - corner
    total = size[:, 0] * size[:, 1]
    budget = 1 << 21
    for part in np.split(np.arange(len(some)), np.flatnonzero(np.diff(np.cumsum(total) // budget)) + 1):
        which = np.repeat(part, total[part])
        step = np.arange(len(which)) - np.repeat(np.cumsum(total[part]) - total[part], total[part])
        col, row = low[which, 0] + step % size[which, 0], low[which, 1] + step // size[which, 0]
        across = np.stack([col + 0.5, row + 0.5], axis=-1)[:, None] - corner[which]
        inside = (edge[which, :, 0] * across[..., 1] - edge[which, :, 1] * across[..., 0] >= 0).all(axis=1)
        made[row[inside], col[inside]] = start + some[which[inside]]


_THREADS = 4


@dataclass
class _Spool:
    """Tiles in the order they are made, to be written in the order of their ids."""

    file: IO[bytes]
    where: dict[int, tuple[int, int]] = field(default_factory=dict)
    size: int = 0

    def add(self, tile: Tile, data: bytes) -> None:
        self.file.write(data)
        self.where[zxy_to_tileid(tile.z, tile.x, tile.y)] = (self.size, len(data))
        self.size += len(data)

    def in_order(self) -> Iterator[tuple[int, bytes]]:
        for number, (start, size) in sorted(self.where.items()):
            self.file.seek(start)
            yield number, self.file.read(size)


def write_pyramids(
    release: Release, chips: Chips, period: int, *, layers: Sequence[Layer], paths: Sequence[str], side: float
) -> tuple[list[str], int]:
    """Draw one period in each layer, and write a PMTiles file of each in which there is anything.

    Tiles are divided until no pixel is larger than a chip: nearer to the poles that is the case at a lower zoom.

    Args:
        release: where to write.
        chips: what to draw.
        period: which.
        layers: in which ways.
        paths: a file for each.
        side: of a chip, meters.

    Returns:
        The paths that were written, and the finest zoom.
    """
    sections = [section for section in chips.sections if section.period == period]
    with ExitStack() as stack:
        spools = [_Spool(stack.enter_context(tempfile.TemporaryFile())) for _ in layers]
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        drawing = _Pyramid(chips, layers, spools, side, pool)
        drawing.draw(Tile(0, 0, 0), sections)
        drawn = [(layer, spool, path) for layer, spool, path in zip(layers, spools, paths, strict=True) if spool.where]
        for layer, spool, path in drawn:
            _write(release, path, spool, layer)
        return [path for _, _, path in drawn], drawing.zoom


@dataclass
class _Pyramid:
    chips: Chips
    layers: Sequence[Layer]
    spools: Sequence[_Spool]
    side: float
    pool: ThreadPoolExecutor
    zoom: int = 0
    """The finest so far."""

    def draw(self, tile: Tile, sections: Sequence[Section]) -> list[Bytes] | None:
        """Draw a tile and all below it; its pixels in each layer, None where nothing is."""
        near = [section for section in sections if tile.meets(section.box)]
        made = (self._leaf if tile.is_leaf(self.side) else self._branch)(tile, near) if near else None
        if made is not None:
            for spool, data in zip(self.spools, self.pool.map(_encoded, self.layers, made), strict=True):
                if data:
                    spool.add(tile, data)
        return made

    def _leaf(self, tile: Tile, near: Sequence[Section]) -> list[Bytes] | None:
        self.zoom = max(self.zoom, tile.z)
        owner = owners(tile, self.chips, near)
        return None if (owner < 0).all() else [drawn(layer, self.chips.values, owner) for layer in self.layers]

    def _branch(self, tile: Tile, near: Sequence[Section]) -> list[Bytes] | None:
        below = [self.draw(quarter, near) for quarter in tile.below()]
        if all(quarter is None for quarter in below):
            return None
        quarters = ([None if q is None else q[place] for q in below] for place in range(len(self.layers)))
        return list(self.pool.map(joined, self.layers, quarters))


def _encoded(layer: Layer, pixels: Bytes) -> bytes:
    """A tile as it is stored; empty where nothing is in it."""
    return encoded(layer, pixels) if pixels.any() else b""


def joined(layer: Layer, quarters: Sequence[Bytes | None]) -> Bytes:
    """A tile from the four below it, row by row; None is an empty one."""
    shape = (SIDE, SIDE) if layer.kind == "palette" else (SIDE, SIDE, 4)
    full = [np.zeros(shape, dtype=np.uint8) if quarter is None else quarter for quarter in quarters]
    return halved(layer, np.concatenate([np.concatenate(full[:2], axis=1), np.concatenate(full[2:], axis=1)]))


def _write(release: Release, path: str, spool: _Spool, layer: Layer) -> None:
    with release.store.writer(path) as file:
        writer: Any = Writer(file)
        for number, data in spool.in_order():
            writer.write_tile(number, data)
        west, south, east, north = _bounds(spool.where)
        header = {
            "tile_type": TileType.WEBP,
            "tile_compression": Compression.NONE,
            "min_lon_e7": round(west * 1e7),
            "min_lat_e7": round(south * 1e7),
            "max_lon_e7": round(east * 1e7),
            "max_lat_e7": round(north * 1e7),
        }
        writer.finalize(header, {"name": layer.title})


def _bounds(numbers: dict[int, tuple[int, int]]) -> tuple[float, float, float, float]:
    """Bounds of the tiles of the finest zoom."""
    tiles = [tileid_to_zxy(number) for number in numbers]
    finest = max(z for z, _, _ in tiles)
    boxes = np.array([Tile(*each).box for each in tiles if each[0] == finest])
    return (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
