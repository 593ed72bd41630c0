"""The `scene` layout: one unit an image, which is cut on its own pixel grid."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.raster_grid import ground_size
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import Square
from clay_publish.producer.imagery.chips import ChipBlock, ImplausibleError, Reading
from clay_publish.producer.imagery.remote import check_unchanged
from clay_publish.producer.layouts.base import (
    Areas,
    Chosen,
    Counts,
    Ints,
    ItemTimes,
    Places,
    SquareCount,
    Unit,
    unit_id,
)
from clay_publish.producer.layouts.scene import SceneChips, read_scene
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.release.directory import DataFile
from clay_publish.spec.models import Imagery
from clay_publish.windows import Window


@dataclass(frozen=True)
class SceneUnit(Unit):
    """One image."""

    area: shapely.Geometry | None
    """Only chips whose center lies in it, OGC:CRS84."""
    size: int
    """Pixels per side of a chip."""
    left_out: Chosen | None = None
    """[rows, columns], chips that are of another unit."""
    across: int = 1
    """100 km squares along a side of the ground of one file."""

    @property
    def scene(self) -> SceneChips | None:
        """Where its chips lie; None while the image's pixel grid is unknown."""
        return scene_of(self.items[0], self.size, self.across)

    @property
    def chips(self) -> int:
        """All of the image, whatever part of it the area asks for; or exactly, where some are of another unit."""
        every = 0 if self.scene is None else self.scene.rows * self.scene.columns
        return every if self.left_out is None else int(np.count_nonzero(~self.left_out))

    @property
    def rivals(self) -> str:
        """Its image alone."""
        return f"{self.items[0].id} {self.window.token}"

    def read(self, reading: Reading) -> Generator[ChipBlock]:
        """Its chips, a row of them at a time."""
        (item,) = self.items
        if item.id in reading.refused:
            raise ImplausibleError(f"item {item.id}", "is left out", fix=reading.refused[item.id])
        check_unchanged(item)
        return read_scene(item, reading, self.area, self.left_out, self.across)

    def missing(self, reason: str, detail: str) -> ChipBlock | None:
        """All chips that the image was expected to give."""
        if self.scene is None:
            return None
        places = self.scene.places(*self._cells(self.scene))
        return places.missing(places.squares, self.scene.epsg, (self.items[0].id,), (reason, detail))

    def _cells(self, scene: SceneChips) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        rows, cols = scene.within(self.area)
        if self.left_out is None:
            return rows, cols
        mine = ~self.left_out[rows, cols]
        return rows[mine], cols[mine]

    def touched(self, images: Sequence[shapely.Geometry | None], outlines: npt.NDArray[np.object_]) -> Chosen:
        """All of them: its one image decides every chip."""
        return np.full(len(outlines), bool(images))

    def part(self, chosen: Chosen, decided: dict[str, Any], *, reused: bool) -> "SceneUnit":
        """Some chips of the image."""
        assert self.scene is not None, "whose chips are known"
        rows, cols = self._cells(self.scene)
        left_out = np.ones((self.scene.rows, self.scene.columns), dtype=bool)
        left_out[rows[chosen], cols[chosen]] = False
        name = unit_id(self.items, np.packbits(left_out).tobytes(), decided)
        return replace(self, id=name, left_out=left_out, reused=reused)


@dataclass(frozen=True)
class SceneLayout:
    """Every image cut on its own pixel grid, no resampling of its finest band, whole chips only."""

    size: int
    nominal: float
    """Meters a pixel of the sensor: what is taken where no image states its grid."""
    across: int = 1
    """100 km squares along a side of the ground of one file."""
    gsd: None = None
    resampling: str = "bands coarser than the finest one are brought to its grid by nearest neighbor"

    def units(self, considered: Sequence[Considered], areas: Areas, decided: dict[str, Any]) -> tuple[SceneUnit, ...]:
        """One unit an image."""
        return tuple(self._unit(item, _ground(item, areas), decided) for item in _used(considered))

    def _unit(self, item: SourceItem, area: shapely.Geometry | None, decided: dict[str, Any]) -> SceneUnit:
        scene = scene_of(item, self.size, self.across)
        squares = [] if scene is None else sorted(set(scene.squares(area)))
        files = tuple(DataFile(square, item.window) for square in squares)
        name = unit_id([item], None if area is None else shapely.to_wkb(area), decided)
        return SceneUnit(name, (item,), item.window, files, area, self.size, across=self.across)

    def count(self, considered: Sequence[Considered], areas: Areas) -> Counts:
        """Chips of all images. Where an item does not state its pixel grid, its footprint is measured."""
        found: Counter[tuple[Square, Window]] = Counter()
        images: Counter[tuple[Square, Window]] = Counter()
        by_item = np.zeros(len(considered), np.int64)
        for number, each in enumerate(considered):
            if each.status != "used":
                continue
            item = each.item
            mine = self._squares(item, _ground(item, areas))
            by_item[number] = mine.total()
            for square, chips in mine.items():
                found[square, item.window] += chips
                images[square, item.window] += 1
        rows = (SquareCount(*key, chips, chips, 0, images[key]) for key, chips in found.items())
        ordered = sorted(rows, key=lambda each: (each.window, each.square))
        return Counts(tuple(ordered), by_item, across=self.across)

    def _squares(self, item: SourceItem, area: shapely.Geometry | None) -> Counter[Square]:
        scene = scene_of(item, self.size, self.across)
        if scene is not None:
            return Counter(scene.squares(area))
        if item.geometry is None:
            return Counter()
        ground = item.geometry if area is None else shapely.intersection(item.geometry, area)
        if ground.is_empty:
            return Counter()
        cells = expected_cells(UtmGrid(self.size * self.nominal), ground, rule="covered")
        return Counter(dict(square for zone in cells for square in zone.squares(self.across)))

    def beyond(self, considered: Sequence[Considered], areas: Areas) -> list[str]:  # noqa: ARG002 - of the protocol
        """Nothing: an image may lie anywhere."""
        return []

    def ground_size(self, units: Sequence[Unit]) -> float:
        """The median of the images' pixels, each measured in its middle row."""
        grids = [grid for unit in units if (grid := unit.items[0].grid) is not None]
        return float(np.median([ground_size(grid, grid.height / 2) for grid in grids])) if grids else self.nominal

    def rivals(self, item: ItemTimes, block: Imagery) -> str:  # noqa: ARG002 - of the protocol
        """Each image alone."""
        return f"{item.id} {item.window.token}"

    def together(self, file: DataFile) -> int | None:  # noqa: ARG002 - of the protocol
        """All of them: an image may reach over the edge of a zone."""
        return None

    def owners(self, chips: pa.Table) -> Ints:
        """One number per image."""
        indices = chips["item_id"].combine_chunks().dictionary_encode().indices
        return np.asarray(indices.to_numpy().astype(np.int64))

    def places(self, chips: pa.Table, side: int, window: Window, units: Sequence[Unit]) -> Places:  # noqa: ARG002
        """Cells of the images' own grids, `side` times as large."""
        row, col = ((chips[name].to_numpy() // side).astype(np.int32) for name in ("row", "col"))
        names, items = chips["item_id"].to_numpy(), {unit.items[0].id: unit.items[0] for unit in units}
        count = len(names)
        lon, lat, ids, outlines = np.empty(count), np.empty(count), np.empty(count, object), np.empty(count, object)
        for name in dict.fromkeys(names.tolist()):
            scene, mine = scene_of(items[name], self.size * side, self.across), np.flatnonzero(names == name)
            assert scene is not None, f"{name} gave chips"
            here = scene.places(row[mine], col[mine])
            ids[mine], outlines[mine], lon[mine], lat[mine] = here.ids, here.geometry, here.lon, here.lat
        return Places(
            ids, chips["epsg"].to_numpy(), row.astype(np.int64), col.astype(np.int64), lon, lat, outlines, self.across
        )


def scene_of(item: SourceItem, size: int, across: int) -> SceneChips | None:
    """Where an image's chips lie; None while its pixel grid is unknown."""
    return None if item.grid is None else SceneChips(item, item.grid, size, across)


def _used(considered: Sequence[Considered]) -> list[SourceItem]:
    return [each.item for each in considered if each.status == "used"]


def _ground(item: SourceItem, areas: Areas) -> shapely.Geometry | None:
    area = areas[item.block]
    return None if area is None else area.geometry
