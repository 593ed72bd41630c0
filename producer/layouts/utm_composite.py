"""Chips of several acquisitions in the `utm` layout: composites, and series for encoders that take time steps."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.enums import Resampling

from clay_publish.errors import ImageryError, SpecError
from clay_publish.producer.encoders.base import Steps
from clay_publish.producer.imagery.chips import ChipBlock, Combined, normalize, short_of_pixels, to_input, under_cloud
from clay_publish.producer.imagery.composite import Reducer, bands_at_once, reducer
from clay_publish.producer.layouts.utm import Acquisition, Cell, Piece, touches
from clay_publish.producer.sources.item import SourceItem
from clay_publish.spec.models import Composite
from clay_publish.windows import Window

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_LEAST_TELLING = ("no_imagery", "excluded", "implausible", "nodata", "cloud", "too_few_images")
"""Reasons of the steps of a chip, the one that says least first; those that they lack say most."""


def read_combined(piece: Piece, window: Window) -> ChipBlock:
    """Chips of a superblock, each of several acquisitions as the spec asks for.

    Raises:
        ImageryError: an image has values that overflow.
        SpecError: a reduction of one's own gives anything but finite numbers.
    """
    composite, steps = piece.reading.composite, piece.reading.steps
    if steps is None:
        return _one(piece, window)
    if composite is not None and composite.method == "best" and composite.images is not None:
        blocks = _best(piece, window, steps)
        return _series(piece, window, blocks, [window.middle] * steps, by_time=True)
    parts = window.split(steps)
    blocks = (_one(_within(piece, part), part) for part in parts)
    return _series(piece, window, blocks, [part.middle for part in parts], by_time=False)


def clear_by_masks(piece: Piece, window: Window, composite: Composite) -> list[tuple[int, npt.NDArray[np.uint8]]]:
    """Acquisitions that each chip would read, and clear observations of its pixels, as far as masks tell."""
    return _Composing(piece, composite, window).by_masks()


def _one(piece: Piece, window: Window) -> ChipBlock:
    composite = piece.reading.composite
    if composite is None or composite.method == "best":
        return piece.read(window)
    return _Composing(piece, composite, window).read()


def _within(piece: Piece, part: Window) -> Piece:
    """The same superblock with the acquisitions of a part of the window."""
    return replace(piece, acquisitions=[each for each in piece.acquisitions if each.first.acquired in part])


def _best(piece: Piece, window: Window, count: int) -> Iterator[ChipBlock]:
    """The best image of each chip, then the second best, and so on."""
    clouds = piece.rank(window)
    for _ in range(count):
        piece.fill(clouds)
        yield piece.block(window)
        for n, cell in enumerate(piece.found):
            if cell.reason is None:
                piece.pixels[n] = 0
                cell.reason, cell.detail, cell.used, cell.source = "no_imagery", None, (), None


class _DamagedError(Exception):
    """An image turned out to be unreadable after others were reduced with it."""

    def __init__(self, item: SourceItem, error: ImageryError) -> None:
        super().__init__(item.id)
        self.item, self.error = item, error


class _Chip:
    """What becomes of one composite."""

    def __init__(self, bands: int, size: int) -> None:
        self.hidden: Bools = np.zeros((size, size), bool)
        """Pixels that an image saw under cloud."""
        self.counts: npt.NDArray[np.uint8] = np.zeros((bands, size, size), np.uint8)
        """Clear observations of each pixel."""
        self.images: dict[int, dict[str, SourceItem]] = {}
        """Acquisition → items that gave pixels, by id."""

    @property
    def items(self) -> list[SourceItem]:
        return [item for items in self.images.values() for item in items.values()]

    @property
    def observations(self) -> npt.NDArray[np.uint8]:
        """Clear observations of each pixel in all bands."""
        return np.asarray(self.counts.min(axis=0))

    def reset(self) -> None:
        """Forget what was read of the bands."""
        self.counts[:] = 0
        self.images.clear()


class _Composing:
    """One superblock of composites: masks first, then the images that its chips chose, each of them once."""

    def __init__(self, piece: Piece, composite: Composite, window: Window) -> None:
        self.piece, self.composite, self.window = piece, composite, window
        count, size = len(piece.reading.bands), piece.reading.rules.size
        self.chips = [_Chip(count, size) for _ in piece.found]
        self.orders: list[list[int]] = []
        """Acquisitions of each chip, the best first."""
        at_once = bands_at_once(piece.canvas.width, count, composite)
        self.groups = [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]
        self.reach: dict[str, Bools] = {}
        """Item id → chips that its footprint touches."""
        self.clear: dict[str, npt.NDArray[np.uint8]] = {}
        """Item id → pixels of the superblock that its mask calls clear, eight a byte."""

    def read(self) -> ChipBlock:
        self._rank()
        while not self._all_bands():
            pass
        for n in range(len(self.chips)):
            self._finish(n)
        block = self.piece.block(self.window)
        block.combined = [
            None if cell.reason is not None else _combined(chip, self.composite, self.window)
            for chip, cell in zip(self.chips, self.piece.found, strict=True)
        ]
        return block

    def by_masks(self) -> list[tuple[int, npt.NDArray[np.uint8]]]:
        """As `clear_by_masks`; no band is read."""
        self._rank()
        found = []
        for n, order in enumerate(self.orders):
            chosen, counts = order[: self.composite.most], self.chips[n].counts[0]
            for number in chosen:
                seen = np.zeros(counts.shape, dtype=bool)
                for item in self.piece.acquisitions[number].items:
                    if self.reach[item.id][n] and item.id not in self.piece.unchecked:
                        seen |= self.piece.cut(self._clear(item), n)
                counts += seen
            found.append((len(chosen), counts))
        return found

    def _clear(self, item: SourceItem) -> Bools:
        """Where the item's mask is clear; everywhere without one."""
        shape = (self.piece.canvas.height, self.piece.canvas.width)
        if item.id not in self.clear:
            return np.ones(shape, dtype=bool)
        bits = np.unpackbits(self.clear[item.id], count=shape[0] * shape[1])
        return np.asarray(bits.reshape(shape), dtype=bool)

    def _rank(self) -> None:
        """Order each chip's acquisitions: least cloud and nodata, nearest to the window's middle, then id."""
        shares = [self._shares(number, each) for number, each in enumerate(self.piece.acquisitions)]
        for n, cell in enumerate(self.piece.found):
            ranks = {}
            for number, share in enumerate(shares):
                first = cell.candidates.get(number)
                if first is not None and share[n] > 0:
                    away = abs((first.acquired - self.window.middle).total_seconds())
                    ranks[number] = (1 - float(share[n]), away, first.id)
            self.orders.append(sorted(ranks, key=ranks.__getitem__))
            if not cell.candidates and not cell.tried:
                self.piece.explain(n, cell)

    def _shares(self, number: int, acquisition: Acquisition) -> npt.NDArray[np.float64]:
        """Share of each chip that an acquisition sees clear: by its masks, else by cloud cover and footprint."""
        piece = self.piece
        seen = np.zeros((piece.canvas.height, piece.canvas.width), dtype=bool)
        clouded = np.zeros_like(seen)
        shares = np.zeros(len(self.chips))
        for item in acquisition.items:
            reach = self.reach[item.id] = touches(item.geometry, piece.outlines)
            places = np.flatnonzero(reach).tolist()
            for n in places:
                piece.found[n].tried.append(item.id)
            if not places or not self._mask(item, places, seen, clouded):
                continue
            for n in places:
                piece.found[n].candidates.setdefault(number, item)
            if not item.has_mask:
                shares[reach] = np.maximum(shares[reach], _guess(item, piece.outlines[reach]))
        if seen.any():
            shares = np.maximum(shares, [float(piece.cut(seen, n).mean()) for n in range(len(self.chips))])
        return shares

    def _mask(self, item: SourceItem, places: list[int], seen: Bools, clouded: Bools) -> bool:
        """Read an item's mask, and add to `seen` where it is clear; False where it cannot be read.

        The first mask of an acquisition that observed a pixel decides: `clouded` is what one before called cloud.
        """
        mask = item.mask
        if mask is None:
            return True
        piece = self.piece
        try:
            layers = piece.opened.warp(piece.opened.masks(item), piece.canvas, Resampling.nearest)
            observed, cloud = under_cloud(layers, mask.values)
        except ImageryError as error:
            piece.blame(item, error)
            piece.unchecked.add(item.id)
            return False
        clear = observed & ~cloud & ~clouded
        self.clear[item.id] = np.packbits(clear)
        for n in places:
            hidden = piece.cut(clouded, n)
            hidden |= piece.cut(cloud, n) & ~piece.cut(seen, n)
            own = piece.cut(seen, n)
            own |= piece.cut(clear, n)
            self.chips[n].hidden |= piece.cut(cloud, n)
        return True

    def _all_bands(self) -> bool:
        """Read and reduce all bands, some at a time; False where an image has to be left out, and all is read again."""
        waiting = [list(order) for order in self.orders]
        for chip in self.chips:
            chip.reset()
        try:
            for group in self.groups:
                self._reduce(group, waiting)
        except _DamagedError as damaged:
            self.piece.blame(damaged.item, damaged.error)
            self.piece.unchecked.add(damaged.item.id)
            return False
        return True

    def _reduce(self, group: slice, waiting: list[list[int]]) -> None:
        """Read some bands of the images that chips chose; with the first of them, chips choose."""
        reducers = [reducer(self.composite) for _ in self.chips]
        used: set[int] = set()
        for wanted in self._rounds(waiting) if group.start == 0 else [self._chosen()]:
            for number, places in sorted(wanted.items()):
                used.update(self._add(number, places, group, reducers))
        for n in used:
            self.piece.pixels[n, group] = reducers[n].result()

    def _chosen(self) -> dict[int, list[int]]:
        """Acquisitions, and the chips that chose them."""
        chosen: dict[int, list[int]] = {}
        for n, chip in enumerate(self.chips):
            for number in chip.images:
                chosen.setdefault(number, []).append(n)
        return chosen

    def _rounds(self, waiting: list[list[int]]) -> Iterator[dict[int, list[int]]]:
        """Acquisitions that chips still lack, and which chips; of each chip, its best."""
        while True:
            wanted: dict[int, list[int]] = {}
            for n, chip in enumerate(self.chips):
                lacking = self.composite.most - len(chip.images)
                for number in waiting[n][:lacking]:
                    wanted.setdefault(number, []).append(n)
                waiting[n] = waiting[n][lacking:]
            if not wanted:
                return
            yield wanted

    def _add(self, number: int, places: list[int], group: slice, reducers: list[Reducer]) -> list[int]:
        """Read some bands of an acquisition; returns the chips that its clear pixels went to."""
        piece, size, bands = self.piece, self.piece.reading.rules.size, self.piece.reading.bands[group]
        values = dict(zip(places, np.zeros((len(places), len(bands), size, size), np.float32), strict=True))
        taken = dict(zip(places, np.zeros((len(places), len(bands), size, size), bool), strict=True))
        for item in piece.acquisitions[number].items:
            mine = [n for n in places if self.reach[item.id][n]]
            if not mine or item.id in piece.unchecked:
                continue
            try:
                read = piece.opened.warp(piece.opened.bands(item)[group], piece.canvas, Resampling.bilinear)
            except ImageryError as error:
                raise _DamagedError(item, error) from error
            clear = self._clear(item)
            for band, (statistics, (raw, valid)) in enumerate(zip(bands, read, strict=True)):
                seen = valid & clear
                made = _digital_numbers(raw, seen, item, statistics.name, piece)
                for n in mine:
                    fresh = piece.cut(seen, n) & ~taken[n][band]
                    if fresh.any():
                        np.copyto(values[n][band], piece.cut(made, n), where=fresh)
                        taken[n][band] |= fresh
                        self.chips[n].images.setdefault(number, {})[item.id] = item
        given = [n for n in places if taken[n].any()]
        for n in given:
            self.chips[n].counts[group] += taken[n]
            reducers[n].add(values[n], taken[n], piece.found[n].candidates[number].acquired)
        return given

    def _finish(self, n: int) -> None:
        """Make the chip of what was read, or say why there is none."""
        piece, chip, cell = self.piece, self.chips[n], self.piece.found[n]
        if not chip.images:
            if cell.tried and cell.reason == "no_imagery":
                under = float(chip.hidden.mean())
                cell.reason, cell.detail = "nodata", "0.000 of the pixels are valid"
                if under and under >= piece.reading.rules.max_cloud:
                    cell.reason, cell.detail = "cloud", f"{under:.3f} of the pixels are under cloud"
            return
        enough = chip.observations >= self.composite.min_valid
        valid, rules = float(enough.mean()), piece.reading.rules
        masked = all(item.has_mask for item in chip.items)
        cloud = float((chip.hidden & ~enough).mean()) if masked else math.nan
        reason = detail = None
        if short_of_pixels(valid, rules):
            least = self.composite.min_valid
            reason = "too_few_images"
            detail = f"{valid:.3f} of the pixels have {least} or more clear observations in {len(chip.images)} images"
        elif cloud > rules.max_cloud + 1e-6:
            reason, detail = "cloud", f"{cloud:.3f} of the pixels are under cloud"
        if reason is not None:
            if cell.reason == "no_imagery":
                cell.reason, cell.detail = reason, detail
            return
        self._normalize(n, enough)
        cell.reason = cell.detail = None
        cell.valid, cell.cloud = valid, cloud
        cell.source = _nearest(chip.items, self.window)
        cell.used = tuple(sorted({item.id for item in chip.items}))

    def _normalize(self, n: int, enough: Bools) -> None:
        reading, values = self.piece.reading, self.piece.pixels[n]
        if not np.isfinite(values[:, enough]).all():
            raise SpecError(
                f"imagery.composite.method: {self.composite.method}", "gave NaN or infinity", "a number per pixel"
            )
        for band, statistics in enumerate(reading.bands):
            values[band] = normalize(values[band], enough, statistics, (1.0, 0.0), decibels=reading.sensor.decibels)


def _guess(item: SourceItem, outlines: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Share of chips that an item without a mask sees clear, by its footprint and its cloud cover."""
    clear = 1 - (item.cloud_cover or 0.0) / 100
    if item.geometry is None:
        return np.full(len(outlines), clear)
    covered = shapely.area(shapely.intersection(item.geometry, outlines)) / shapely.area(outlines)
    return np.asarray(clear * covered, dtype=np.float64)


def _digital_numbers(
    raw: npt.NDArray[np.generic], valid: Bools, item: SourceItem, band: str, piece: Piece
) -> npt.NDArray[np.float32]:
    """Values as those of the sensor's statistics; of radar, linear power."""
    factor, summand = item.scaling(band).to_input(piece.reading.sensor)
    made = to_input(raw, (factor, 0.0 if piece.reading.sensor.decibels else summand), decibels=False)
    if raw.dtype.kind == "f" and not (np.isfinite(made) | ~valid).all():
        raise ImageryError(f"item {item.id}: band {band}", "has values that overflow", "finite numbers")
    return made


def _nearest(items: Iterable[SourceItem], window: Window) -> SourceItem:
    """The image nearest to the window's middle, then by id."""
    return min(items, key=lambda item: (abs((item.acquired - window.middle).total_seconds()), item.id))


def _combined(chip: _Chip, composite: Composite, window: Window) -> Combined:
    counts, items = chip.observations, chip.items
    counts = counts[counts >= composite.min_valid]
    return Combined(
        images=len(chip.images),
        observations=(int(counts.min()), float(np.median(counts))),
        first=min(item.acquired for item in items),
        last=max(item.acquired for item in items),
        start=min(item.start for item in items),
        end=max(item.end for item in items),
        encoder_time=window.middle,
    )


def _alone(item: SourceItem) -> Combined:
    """A step that is one image."""
    moment = item.acquired
    return Combined(1, (1, 1.0), first=moment, last=moment, start=item.start, end=item.end, encoder_time=moment)


class _Series:
    """The steps of one chip; `middles` date those that it lacks."""

    def __init__(self, middles: list[datetime]) -> None:
        self.times = list(middles)
        self.parts: list[Combined | None] = [None] * len(middles)
        self.sources: list[SourceItem] = []
        self.valid: list[float] = []
        self.cloud: list[float] = []
        self.reasons: list[tuple[str, str | None]] = []
        self.used: set[str] = set()
        self.tried: set[str] = set()

    def take(self, block: ChipBlock, n: int, step: int) -> None:
        """Take what a block has of the chip."""
        reason, source = block.reasons[n], block.source[n]
        if reason is not None or source is None:
            self.reasons.append((reason or "failed", block.details[n]))
            self.tried.update(block.item_ids[n])
            return
        part = None if block.combined is None else block.combined[n]
        part = part or _alone(source)
        self.parts[step], self.times[step] = part, part.encoder_time
        self.sources.append(source)
        self.used.update(block.item_ids[n])
        self.valid.append(float(block.valid_fraction[n]))
        self.cloud.append(float(block.cloud_fraction[n]))

    def sort(self) -> list[int]:
        """Put the steps in the order of their time, those that lack last; returns the places they had."""
        order = sorted(range(len(self.parts)), key=lambda step: (self.parts[step] is None, self.times[step]))
        self.parts, self.times = [self.parts[step] for step in order], [self.times[step] for step in order]
        return order

    def cell(self, window: Window) -> Cell:
        """What becomes of the chip; without any step, the reason that tells most."""
        if not self.sources:
            reason, detail = max(self.reasons, key=lambda said: _telling(said[0]))
            return Cell(reason=reason, detail=detail, tried=sorted(self.tried))
        return Cell(
            reason=None,
            valid=float(np.mean(self.valid)),
            cloud=float(np.mean(self.cloud)),
            source=_nearest(self.sources, window),
            used=tuple(sorted(self.used)),
        )

    def combined(self, window: Window) -> Combined | None:
        """All steps together; of the observations, the least and the median of the steps' medians."""
        parts = [part for part in self.parts if part is not None]
        if not parts:
            return None
        least = min(part.observations[0] for part in parts)
        return Combined(
            images=sum(part.images for part in parts),
            observations=(least, float(np.median([part.observations[1] for part in parts]))),
            first=min(part.first for part in parts),
            last=max(part.last for part in parts),
            start=min(part.start for part in parts),
            end=max(part.end for part in parts),
            encoder_time=window.middle,
        )


def _telling(reason: str) -> int:
    return _LEAST_TELLING.index(reason) if reason in _LEAST_TELLING else len(_LEAST_TELLING)


def _series(
    piece: Piece, window: Window, blocks: Iterable[ChipBlock], middles: list[datetime], *, by_time: bool
) -> ChipBlock:
    """Chips of several steps from the chips of each, in the order of the blocks or of their time."""
    pixels = np.zeros((len(piece.rows), len(middles), *piece.pixels.shape[1:]), dtype=np.float32)
    chips = [_Series(middles) for _ in piece.rows]
    for step, block in enumerate(blocks):
        made = [n for n, reason in enumerate(block.reasons) if reason is None]
        for place, n in enumerate(made):
            pixels[n, step] = block.pixels[place]
        for n, chip in enumerate(chips):
            chip.take(block, n, step)
    if by_time:
        for n, chip in enumerate(chips):
            pixels[n] = pixels[n][chip.sort()]
    piece.pixels, piece.found = pixels, [chip.cell(window) for chip in chips]
    whole = piece.block(window)
    whole.combined = [chip.combined(window) for chip in chips]
    whole.steps = Steps(
        there=np.array([[part is not None for part in chip.parts] for chip in chips], dtype=bool),
        dates=np.array([[(t.year, t.month, t.day) for t in chip.times] for chip in chips], dtype=np.int64),
    )
    return whole
