"""The `utm` layout: the Earth cut once, and for every cell and window the best acquisition."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.enums import Resampling

from clay_publish.errors import ImageryError
from clay_publish.geo.expected_cells import Runs, size, spread, union
from clay_publish.geo.utm_grid import Cut, UtmGrid
from clay_publish.producer.imagery.chips import ChipBlock, Reading, missing_reason, normalize, under_cloud
from clay_publish.producer.imagery.remote import SourceChangedError
from clay_publish.producer.imagery.warp import Canvas, Images, Layer, images
from clay_publish.producer.sources.item import SourceItem
from clay_publish.spec.models import ChipSpec
from clay_publish.windows import Window

Ints = npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)
R = TypeVar("R")


@dataclass(frozen=True)
class Cells:
    """Cells of one square that a unit is asked for."""

    grid: UtmGrid
    cut: Cut
    runs: Runs
    """Along rows: a plan holds the cells of all of its units."""
    excluded: tuple[SourceItem, ...]
    """Images left out as known to be bad: they explain cells without imagery."""

    @classmethod
    def of(cls, grid: UtmGrid, cut: Cut, rows: Ints, cols: Ints, excluded: tuple[SourceItem, ...]) -> "Cells":
        """The cells with these rows and columns, in the order of both."""
        return cls(grid, cut, union(rows, cols, cols + 1), excluded)

    def __len__(self) -> int:
        return size(self.runs)

    @property
    def rows(self) -> Ints:
        """Of each cell."""
        row, first, stop = self.runs
        return np.repeat(row, stop - first)

    @property
    def cols(self) -> Ints:
        """Of each cell."""
        _, first, stop = self.runs
        return spread(first, stop)[1]


@dataclass(frozen=True)
class Acquisition:
    """Images of one acquisition: only these may be mosaicked."""

    items: tuple[SourceItem, ...]

    @property
    def first(self) -> SourceItem:
        """The one with the highest id: of two processings of one image, the newer."""
        return self.items[0]


@dataclass
class Cell:
    """What becomes of one cell."""

    candidates: dict[int, SourceItem] = field(default_factory=dict)
    """The first image of each acquisition that reaches it. Others of the acquisition have no say: which of them a unit
    knows depends on its other cells."""
    order: list[int] = field(default_factory=list)
    """Acquisitions still to be tried, the best first."""
    reason: str | None = "no_imagery"
    detail: str | None = None
    tried: list[str] = field(default_factory=list)
    valid: float = 0.0
    cloud: float = float("nan")
    source: SourceItem | None = None
    used: tuple[str, ...] = ()


def read_cells(
    cells: Cells,
    items: tuple[SourceItem, ...],
    window: Window,
    reading: Reading,
    read: Callable[["Piece", Window], R],
) -> Generator[R]:
    """What `read` makes of a unit's cells, one superblock at a time.

    A superblock is warped whole and always the same one for a cell, so that a chip's pixels do not depend on which
    other cells were asked for.
    """
    cut = cells.cut
    down, right = cut.superblocks(cells.rows, cells.cols)
    order = np.lexsort((cells.cols, cells.rows, right, down))
    blocks = groupby(order.tolist(), key=lambda n: (int(down[n]), int(right[n])))
    refused = tuple(item for item in items if item.id in reading.refused)
    acquisitions = acquisitions_of(tuple(item for item in items if item.id not in reading.refused))
    names = tuple(band.name for band in reading.bands)
    with images(names, reading.sensor, reading.threads) as opened:
        for (block_row, block_col), members in blocks:
            canvas = _canvas(cells, reading.rules, cut.row + block_row * cut.side, cut.col + block_col * cut.side)
            piece = Piece(cells, canvas, np.array(list(members)), acquisitions, reading, opened, refused)
            yield read(piece, window)


def acquisitions_of(items: tuple[SourceItem, ...]) -> list[Acquisition]:
    """Images by acquisition, in the order of their first id.

    Within an acquisition, the highest id comes first: ids of two processings of one image end in their baseline, time
    or number, and where both see a pixel the newer decides.
    """
    ordered = sorted(sorted(items, key=lambda item: item.id, reverse=True), key=lambda item: item.acquisition)
    found = [Acquisition(tuple(group)) for _, group in groupby(ordered, key=lambda item: item.acquisition)]
    return sorted(found, key=lambda acquisition: acquisition.first.id)


def _canvas(cells: Cells, rules: ChipSpec, row: int, col: int) -> Canvas:
    """The pixels of a superblock from its south-western cell."""
    epsg, side = cells.cut.square.epsg, cells.cut.side
    west, _, _, _ = cells.grid.bounds(epsg, row, col)[0]
    _, _, _, north = cells.grid.bounds(epsg, row + side - 1, col)[0]
    pixels = side * rules.size
    return Canvas(epsg, float(west), float(north), cells.grid.cell / rules.size, pixels, pixels)


def _rank_of(item: SourceItem, cloud: float, window: Window) -> tuple[float, float, str]:
    unknown = (item.cloud_cover or 0.0) / 100
    return (unknown if np.isnan(cloud) else cloud, abs((item.acquired - window.middle).total_seconds()), item.id)


@dataclass
class Piece:
    """One superblock: its cells, and the acquisitions that may fill them."""

    cells: Cells
    canvas: Canvas
    members: Ints
    acquisitions: list[Acquisition]
    reading: Reading
    opened: Images
    refused: tuple[SourceItem, ...] = ()
    """Images left out for their pixel values."""
    found: list[Cell] = field(default_factory=list)
    unchecked: set[str] = field(default_factory=set)
    """Images whose cloud mask cannot be read: they are not used."""

    def __post_init__(self) -> None:
        self.rows, self.cols = self.cells.rows[self.members], self.cells.cols[self.members]
        self.outlines = self.cells.grid.footprints(self.canvas.epsg, self.rows, self.cols)
        self.lon, self.lat = self.cells.grid.centers(self.canvas.epsg, self.rows, self.cols)
        self.found = [Cell() for _ in self.rows]
        size = self.reading.rules.size
        # The system gives memory to zeros once they are written to.
        self.pixels: npt.NDArray[np.float32] = np.zeros(
            (len(self.rows), len(self.reading.bands), size, size), dtype=np.float32
        )

    def read(self, window: Window) -> ChipBlock:
        """Choose and read the best acquisition of each cell."""
        self.fill(self.rank(window))
        return self.block(window)

    def fill(self, clouds: list[npt.NDArray[np.float64]]) -> None:
        """Read acquisitions in each cell's order until one gives enough; `clouds` as `rank` gives them."""
        while waiting := [n for n, cell in enumerate(self.found) if cell.order and cell.reason is not None]:
            wanted: dict[int, list[int]] = {}
            for n in waiting:
                wanted.setdefault(self.found[n].order.pop(0), []).append(n)
            for number, places in sorted(wanted.items()):
                self._try(number, places, clouds[number])

    def rank(self, window: Window) -> list[npt.NDArray[np.float64]]:
        """Order each cell's candidates: least cloud, nearest to the window's middle, then id.

        Returns:
            The share of cloud by acquisition and cell.
        """
        clouds = []
        for number, acquisition in enumerate(self.acquisitions):
            reached = np.zeros(len(self.rows), dtype=bool)
            for item in acquisition.items:
                mine = touches(item.geometry, self.outlines)
                reached |= mine
                for n in np.flatnonzero(mine).tolist():
                    self.found[n].candidates.setdefault(number, item)
                    self.found[n].tried.append(item.id)
            clouds.append(self._clouds(acquisition, reached))
        for n, cell in enumerate(self.found):
            cell.order = sorted(
                cell.candidates, key=lambda number: _rank_of(cell.candidates[number], float(clouds[number][n]), window)
            )
            if not cell.candidates:
                self.explain(n, cell)
        return clouds

    def explain(self, n: int, cell: Cell) -> None:
        """Say why no image reaches a cell."""
        implausible = [item.id for item in self.refused if touches(item.geometry, self.outlines[n : n + 1])[0]]
        if implausible:
            cell.reason, cell.detail, cell.tried = "implausible", self.reading.refused[implausible[0]], implausible
            return
        left_out = [item.id for item in self.cells.excluded if touches(item.geometry, self.outlines[n : n + 1])[0]]
        if left_out:
            cell.reason, cell.tried = "excluded", left_out

    def _clouds(self, acquisition: Acquisition, touches: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Share of each cell under cloud; NaN where no mask of the acquisition tells."""
        shares = np.full(len(self.rows), np.nan)
        if not touches.any():
            return shares
        seen = np.zeros((self.canvas.height, self.canvas.width), dtype=bool)
        under = np.zeros_like(seen)
        for item in acquisition.items:
            mask = item.mask
            if mask is None:
                continue
            try:
                layers = self.opened.warp(self.opened.masks(item), self.canvas, Resampling.nearest)
                observed, cloud = under_cloud(layers, mask.values)
            except ImageryError as error:
                self.blame(item, error)
                self.unchecked.add(item.id)
                continue
            under |= cloud & ~seen
            seen |= observed
        for n in np.flatnonzero(touches).tolist():
            if self.cut(seen, n).any():
                shares[n] = self.cut(under, n).mean()
        return shares

    def blame(self, item: SourceItem, error: ImageryError) -> None:
        """Remember that an image cannot be read, for the unit and for the cells that find no other."""
        self.reading.damaged.setdefault(item.id, str(error))
        for cell in self.found:
            if item.id in cell.tried and cell.reason == "no_imagery":
                cell.reason = "source_changed" if isinstance(error, SourceChangedError) else "unreadable"
                cell.detail = f"item {item.id}: {error}"

    def _try(self, number: int, places: list[int], cloud: npt.NDArray[np.float64]) -> None:
        """Read an acquisition and give its pixels to the cells that it fills well enough."""
        acquisition = self.acquisitions[number]
        clear = [n for n in places if not cloud[n] > self.reading.rules.max_cloud + 1e-6]
        for n in places:
            if n not in clear:
                self._refuse(n, "cloud", f"{cloud[n]:.3f} of the pixels are under cloud")
        if not clear:
            return
        owner = np.full((self.canvas.height, self.canvas.width), -1, dtype=np.int16)
        for place, item in enumerate(acquisition.items):
            if item.id in self.unchecked:
                continue
            try:
                read = self.opened.warp(self.opened.bands(item), self.canvas, Resampling.bilinear)
            except ImageryError as error:
                self.blame(item, error)
                continue
            fresh = np.logical_and.reduce([valid for _, valid in read]) & (owner < 0)
            if not fresh.any():
                continue
            self._fill(clear, item, read, fresh)
            owner[fresh] = place
        for n in clear:
            self._give(n, acquisition, self.cut(owner, n), float(cloud[n]))

    def _fill(self, places: list[int], item: SourceItem, read: list[Layer], fresh: npt.NDArray[np.bool_]) -> None:
        """Put an image's pixels where no other of its acquisition has any."""
        for band, (statistics, (values, valid)) in enumerate(zip(self.reading.bands, read, strict=True)):
            made = normalize(
                values,
                valid,
                statistics,
                item.scaling(statistics.name).to_input(self.reading.sensor),
                decibels=self.reading.sensor.decibels,
            )
            for n in places:
                np.copyto(self.pixels[n, band], self.cut(made, n), where=self.cut(fresh, n))

    def _give(self, n: int, acquisition: Acquisition, owner: npt.NDArray[np.int16], cloud: float) -> None:
        valid = float(np.count_nonzero(owner >= 0) / owner.size)
        reason, detail = missing_reason(valid, cloud, self.reading.rules)
        if reason is not None:
            self.pixels[n] = 0
            self._refuse(n, reason, detail)
            return
        shares = np.bincount(owner[owner >= 0], minlength=len(acquisition.items))
        cell = self.found[n]
        cell.reason = cell.detail = None
        cell.valid, cell.cloud = valid, cloud
        cell.source = acquisition.items[int(shares.argmax())]
        cell.used = tuple(item.id for item, share in zip(acquisition.items, shares, strict=True) if share)

    def _refuse(self, n: int, reason: str, detail: str | None) -> None:
        """The reason of the best candidate stands, unless a damaged image is to blame for a hole."""
        cell = self.found[n]
        if cell.reason == "no_imagery" or (cell.reason == "nodata" and reason == "cloud"):
            cell.reason, cell.detail = reason, detail

    def cut(self, layer: npt.NDArray[T], n: int) -> npt.NDArray[T]:
        """The pixels of a cell."""
        size, cut = self.reading.rules.size, self.cells.cut
        down = cut.side - 1 - (int(self.rows[n]) - cut.row) % cut.side
        right = (int(self.cols[n]) - cut.col) % cut.side
        return layer[down * size : (down + 1) * size, right * size : (right + 1) * size]

    def block(self, window: Window) -> ChipBlock:
        """What became of the cells."""
        made = [cell.reason is None for cell in self.found]
        grid, epsg = self.cells.grid, self.canvas.epsg
        return ChipBlock(
            ids=[grid.chip_id(epsg, r, c, window) for r, c in zip(self.rows.tolist(), self.cols.tolist(), strict=True)],
            epsg=epsg,
            rows=self.rows.astype(np.int32),
            cols=self.cols.astype(np.int32),
            geometry=self.outlines,
            lon=self.lon,
            lat=self.lat,
            gsd=self.canvas.gsd,
            squares=[self.cells.cut.square] * len(self.rows),
            reasons=[cell.reason for cell in self.found],
            details=[cell.detail for cell in self.found],
            pixels=self.pixels if all(made) else self.pixels[made],
            valid_fraction=np.array([cell.valid for cell in self.found], dtype=np.float32),
            cloud_fraction=np.array([cell.cloud for cell in self.found], dtype=np.float32),
            source=[cell.source for cell in self.found],
            item_ids=[cell.used or tuple(sorted(set(cell.tried))) for cell in self.found],
        )


def touches(footprint: shapely.Geometry | None, outlines: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Which cells an image may have pixels of; all of them where it does not say where it lies."""
    if footprint is None:
        return np.ones(len(outlines), dtype=bool)
    shapely.prepare(footprint)
    return np.asarray(shapely.intersects(footprint, outlines))
