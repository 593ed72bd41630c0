"""How often a composite will see the ground: clear observations per pixel, before any money is spent.

An estimate takes the cloud cover that an item states as the chance that a pixel of it is hidden, the same everywhere in
the image and independent of other images. A measurement reads the masks of a few cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import BaseModel, ConfigDict

from clay_publish.geo.expected_cells import ZoneCells, expected_cells
from clay_publish.geo.maps import Frame, png, whole_box
from clay_publish.geo.utm_grid import epsg_of
from clay_publish.producer.layouts.utm_layout import UtmLayout, WindowSources
from clay_publish.producer.sources.cloud_mask import NO_MASK
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.unit_plan import Inputs
from clay_publish.spec.models import Composite, Spec
from clay_publish.windows import Window

SAMPLE = 4_000
"""Cells of a window that are looked at, spread evenly over all."""
_PANELS = 12
"""Windows that the picture shows, at most."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Observations(BaseModel):
    """Clear observations of one window, or of a part of it that is a step of time."""

    model_config = ConfigDict(frozen=True)

    window: str
    measured: bool
    """By masks that were read; else estimated from the cloud cover of the items."""
    cells: int
    """That were looked at."""
    histogram: list[int]
    """Cells by their clear observations per pixel, rounded down: 0, 1, and so on."""
    median: float
    """Of the cells' clear observations per pixel."""
    images: float
    """Acquisitions that are read per cell, on average; at most `imagery.composite.images`."""
    enough: float
    """Share of the pixels with `imagery.composite.min_valid` or more."""
    short: float
    """Share of the cells with too few such pixels: they would be missing."""


@dataclass(frozen=True)
class CellSample:
    """Some cells of a window, and the images of the window."""

    window: Window
    used: Sequence[SourceItem]
    epsg: Ints
    row: Ints
    col: Ints
    lon: Floats
    lat: Floats


@dataclass(frozen=True)
class Seen:
    """What a window's cells will see."""

    sample: CellSample
    per_pixel: Floats
    """[cells] clear observations of a pixel, on average."""
    observed: Observations


def samples(inputs: Inputs, count: int = SAMPLE) -> Iterator[CellSample]:
    """Cells of each window, or of each step of time in it."""
    layout, parts = inputs.layout, parts_of(inputs.spec)
    assert isinstance(layout, UtmLayout), "composites are of this layout"
    for each in layout.windows(inputs.selection.considered, inputs.areas):
        epsg, row, col = _spread(layout, each, count)
        lon, lat = layout.grid.centers(epsg, row, col)
        for part in (each.window,) if parts == 1 else each.window.split(parts):
            used = [item for item in each.used if item.acquired in part]
            yield CellSample(part, used, epsg, row, col, lon, lat)


def parts_of(spec: Spec) -> int:
    """Parts of a window whose acquisitions are chosen apart: its steps of time, unless these are single images."""
    return 1 if spec.model.steps is None or spec.images_in_order else spec.model.steps


def composite_of(spec: Spec) -> Composite:
    """How a chip, or a step of it, is made."""
    return spec.imagery[0].composite or Composite(method="best")


def may_lack(spec: Spec) -> float:
    """Share of a chip's pixels that cloud may hide. Hidden pixels of a composite are without data as well.

    Pixels beyond an image are counted like cloud: of `best`, a chip with many of them counts as short of images
    only beyond `max_cloud`.
    """
    rules = spec.chips
    return rules.max_cloud if composite_of(spec).method == "best" else min(rules.max_nodata, rules.max_cloud)


def _spread(layout: UtmLayout, each: WindowSources, count: int) -> tuple[Ints, Ints, Ints]:
    zones = list(expected_cells(layout.grid, each.area.geometry, rule=each.area.rule))
    total = sum(len(zone) for zone in zones)
    step, begun, found = max(1, -(-total // count)), 0, []
    for zone in zones:
        found.append(_every(zone, np.arange(-begun % step, len(zone), step)))
        begun += len(zone)
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    epsg, row, col = (np.concatenate(column).astype(np.int64) for column in zip(*found, strict=True))
    return epsg, row, col


def _every(zone: ZoneCells, places: Ints) -> tuple[Ints, Ints, Ints]:
    """Cells of a zone by their place among its runs."""
    row, first, stop = zone.runs
    ends = np.cumsum(stop - first)
    run = np.searchsorted(ends, places, side="right")
    rows = row[run]
    cols: Ints = np.asarray(stop[run] - (ends[run] - places), dtype=np.int64)
    return epsg_of(np.full(len(places), zone.zone), rows), rows, cols


def estimated(inputs: Inputs) -> list[Seen]:
    """What each window's cells are expected to see."""
    spec = inputs.spec
    return [_estimated(sample, composite_of(spec), may_lack(spec)) for sample in samples(inputs)]


def _estimated(sample: CellSample, composite: Composite, lacking: float) -> Seen:
    clear, counted = _chances(sample)
    order = np.argsort(-clear, axis=1, kind="stable")[:, : composite.most]
    best = np.take_along_axis(counted, order, axis=1)
    chances = np.zeros((len(best), best.shape[1] + 1))
    chances[:, 0] = 1  # of so many clear observations, image after image
    for place in range(best.shape[1]):
        chance = best[:, place, None]
        chances[:, 1:] = chances[:, 1:] * (1 - chance) + chances[:, :-1] * chance
        chances[:, 0] *= 1 - chance[:, 0]
    enough = chances[:, composite.min_valid :].sum(axis=1)
    per_pixel, images = best.sum(axis=1), (best > 0).sum(axis=1)
    observed = summary(sample, per_pixel, images, enough, most=composite.most, lacking=lacking, measured=False)
    return Seen(sample, per_pixel, observed)


def _chances(sample: CellSample) -> tuple[Floats, Floats]:
    """[cells, acquisitions] share of the cell that is clear, and chance that a pixel counts as observed.

    Where an image has no mask, all pixels count. Both are 0 where the acquisition does not reach the cell, or is all
    cloud.
    """
    placed = [item for item in sample.used if item.geometry is not None]
    acquisitions = [item.acquisition for item in placed]
    names = sorted(set(acquisitions))
    number = {name: place for place, name in enumerate(names)}
    clear = np.zeros((len(sample.row), len(names)))
    counted = np.zeros_like(clear)
    if placed and len(sample.row):
        tree = shapely.STRtree([item.geometry for item in placed])
        cells, images = tree.query(shapely.points(sample.lon, sample.lat), predicate="intersects")
        shares = np.array([1 - (item.cloud_cover or 0.0) / 100 for item in placed])
        taken = np.where([item.has_mask for item in placed], shares, shares > 0)
        places = (cells, np.array([number[name] for name in acquisitions])[images])
        np.maximum.at(clear, places, shares[images])
        np.maximum.at(counted, places, taken[images])
    return clear, counted


def caveats(inputs: Inputs, seen: Sequence[Seen]) -> list[str]:
    """What the reader of these numbers should know of the images."""
    if not seen:  # no chip is of several acquisitions
        return []
    said = []
    unmasked = [item.id for item in inputs.used if inputs.spec.imagery[item.block].mask == NO_MASK]
    if inputs.sensor.masks and unmasked:  # `check_masks` reports those that lack one
        said.append(
            f"{len(unmasked):,} images such as {unmasked[0]} have no cloud mask:"
            " their pixels under cloud count as clear"
        )
    unstated = [item.id for item in inputs.used if item.has_mask and item.cloud_cover is None]
    if unstated and any(not each.observed.measured for each in seen):
        said.append(
            f"{len(unstated):,} images such as {unstated[0]} state no cloud cover: the estimate of clear observations"
            " takes them as clear; --calibrate N reads masks instead"
        )
    return said


def summary(
    sample: CellSample,
    per_pixel: Floats,
    images: Ints,
    enough: Floats,
    *,
    most: int,
    lacking: float,
    measured: bool,
) -> Observations:
    """Describe the observations of a window.

    Args:
        sample: its cells.
        per_pixel: clear observations of a pixel, by cell.
        images: acquisitions that are read, by cell.
        enough: share of the pixels with enough observations, by cell.
        most: acquisitions of a chip.
        lacking: share of a chip's pixels that may be without enough, as `may_lack` gives it.
        measured: whether masks were read.
    """
    count = len(per_pixel)
    return Observations(
        window=str(sample.window),
        measured=measured,
        cells=count,
        histogram=np.bincount(np.floor(per_pixel + 1e-9).astype(np.int64), minlength=most + 1).tolist(),
        median=round(float(np.median(per_pixel)), 3) if count else 0.0,
        images=round(float(images.mean()), 3) if count else 0.0,
        enough=round(float(enough.mean()), 4) if count else 0.0,
        short=round(float(((enough <= 0) | (enough < 1 - lacking - 1e-6)).mean()), 4) if count else 0.0,
    )


def images_per_chip(seen: Sequence[Seen], spec: Spec) -> float:
    """Acquisitions that are read for a chip, on average over all windows; of all its steps."""
    cells = sum(each.observed.cells for each in seen)
    return parts_of(spec) * sum(each.observed.images * each.observed.cells for each in seen) / cells if cells else 0.0


def draw_observations(seen: Sequence[Seen]) -> bytes:
    """A map and a histogram of each window, as PNG."""
    shown = [each for each in seen[:_PANELS] if each.observed.cells]
    figure = Figure(figsize=(8.6, 2.6 * max(1, len(shown))), dpi=110, layout="constrained")
    panels = figure.subplots(max(1, len(shown)), 2, squeeze=False)
    top = max((float(each.per_pixel.max()) for each in shown), default=1.0)
    for (chart, bars), each in zip(panels, shown, strict=False):
        lon, lat = each.sample.lon, each.sample.lat
        frame = Frame.around(whole_box(lon, lat))
        drawn = chart.scatter(
            frame.unwrapped(lon), lat, c=each.per_pixel, s=6, vmin=0, vmax=max(top, 1.0), cmap="viridis", marker="s"
        )
        how = "measured by masks" if each.observed.measured else "estimated from the cloud cover of the items"
        title = f"{each.observed.window}\n{how}"
        chart.set(xlim=(frame.west, frame.east), ylim=(frame.south, frame.north), title=title)
        chart.set_aspect(frame.aspect)
        figure.colorbar(drawn, ax=chart, label="clear observations")
        bars.bar(np.arange(len(each.observed.histogram)), each.observed.histogram, color="#2171b5")
        bars.set(xlabel="clear observations per pixel", ylabel="cells", title=how)
        bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)
