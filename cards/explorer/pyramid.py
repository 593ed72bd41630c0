"""Tile pyramids as PMTiles, made from the finest zoom upwards and depth first: only one branch is in memory."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from pmtiles.tile import Compression, TileType, tileid_to_zxy, zxy_to_tileid
from pmtiles.writer import Writer

from clay_publish.cards.explorer.chips import Chips, Section
from clay_publish.cards.explorer.layers import Bytes, Layer, drawn, encoded, halved
from clay_publish.cards.explorer.paint import SIDE, Tile, owners
from clay_publish.release import Release

_EARTH = 40_075_016.68
"""Circumference at the equator, meters."""
_MAX_ZOOM = 18


def finest_zoom(side: float, south: float, north: float) -> int:
    """The first zoom at which no pixel is larger than a chip.

    Args:
        side: of a chip, meters.
        south: latitudes of the release: pixels are largest where it is nearest to the equator.
        north: as `south`.
    """
    nearest = 0.0 if south <= 0 <= north else min(abs(south), abs(north))
    whole = _EARTH * math.cos(math.radians(min(nearest, 85.0))) / SIDE
    return min(_MAX_ZOOM, max(0, math.ceil(math.log2(whole / side))))


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
    release: Release, chips: Chips, period: int, layers: Sequence[Layer], paths: Sequence[str], zoom: int
) -> None:
    """Draw one period in each layer, and write a PMTiles file of each.

    Args:
        release: where to write.
        chips: what to draw.
        period: which.
        layers: in which ways.
        paths: a file for each.
        zoom: the finest.
    """
    sections = [section for section in chips.sections if section.period == period]
    with ExitStack() as stack:
        spools = [_Spool(stack.enter_context(tempfile.TemporaryFile())) for _ in layers]
        _draw(Tile(0, 0, 0), zoom, chips, sections, layers, spools)
        for layer, spool, path in zip(layers, spools, paths, strict=True):
            _write(release, path, spool, layer)


def _draw(
    tile: Tile,
    zoom: int,
    chips: Chips,
    sections: Sequence[Section],
    layers: Sequence[Layer],
    spools: Sequence[_Spool],
) -> list[Bytes] | None:
    """Draw a tile and all below it; its pixels in each layer, None where nothing is."""
    near = [section for section in sections if tile.meets(section.box)]
    if not near:
        return None
    if tile.z == zoom:
        owner = owners(tile, chips, near)
        if (owner < 0).all():
            return None
        made = [drawn(layer, chips.values, owner) for layer in layers]
    else:
        below = [
            _draw(Tile(tile.z + 1, 2 * tile.x + col, 2 * tile.y + row), zoom, chips, near, layers, spools)
            for row in (0, 1)
            for col in (0, 1)
        ]
        if all(quarter is None for quarter in below):
            return None
        made = [joined(layer, [None if q is None else q[place] for q in below]) for place, layer in enumerate(layers)]
    for layer, spool, pixels in zip(layers, spools, made, strict=True):
        if pixels.any():
            spool.add(tile, encoded(layer, pixels))
    return made


def joined(layer: Layer, quarters: Sequence[Bytes | None]) -> Bytes:
    """A tile from the four below it, row by row; None is an empty one."""
    shape = (SIDE, SIDE) if layer.kind == "palette" else (SIDE, SIDE, 4)
    full = [np.zeros(shape, dtype=np.uint8) if quarter is None else quarter for quarter in quarters]
    return halved(layer, np.concatenate([np.concatenate(full[:2], axis=1), np.concatenate(full[2:], axis=1)]))


def _write(release: Release, path: str, spool: _Spool, layer: Layer) -> None:
    if not spool.where:  # no chip has this in this period
        release.store.remove(path)
        return
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
