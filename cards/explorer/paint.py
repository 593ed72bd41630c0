"""Which chip each pixel of a tile shows."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clay_publish.cards.explorer.chips import WORLD, Chips, Section
from clay_publish.geo.utm_grid import NORTH, SOUTH, UtmGrid

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
