"""Tile pyramids as PMTiles, made from the finest zoom upwards and depth first: only one branch is in memory."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from pmtiles.tile import Compression, TileType, tileid_to_zxy, zxy_to_tileid
from pmtiles.writer import Writer

from clay_publish.cards.explorer.chips import Chips, Section
from clay_publish.cards.explorer.layers import Bytes, Layer, drawn, encoded, halved
from clay_publish.cards.explorer.paint import SIDE, Tile, owners
from clay_publish.release.directory import Release

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
