"""The layers of the overviews: what they show of a chip, in which colors, and how a tile of them is stored."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from clay_publish.cards.figures import maps as colors
from clay_publish.release.tables import REASONS
from clay_publish.windows import Window

Bytes = npt.NDArray[np.uint8]

VALUES = np.dtype([("rgb", "u1", 3), ("loss", "u1"), ("cloud", "u1"), ("date", "u1"), ("status", "u1")])
"""What is kept of a chip: 7 bytes. Zero is nothing known, in each field."""

STEPS = 254
"""Shades of loss, cloud and date: 1 to 254."""

QUALITY = 80
"""Of lossy WebP."""


@dataclass(frozen=True)
class Layer:
    """One layer."""

    id: str
    title: str
    field: str
    """Of `VALUES`."""
    kind: Literal["color", "palette"]
    """`color`: lossy. `palette`: lossless, every pixel is one of the legend's colors."""
    palette: Bytes | None
    """[256, 4] RGBA by value, where the field is a number."""


def _ramp(name: str) -> Bytes:
    table = np.zeros((256, 4), dtype=np.uint8)
    shades = colormaps[name](np.linspace(0, 1, STEPS))
    table[1 : STEPS + 1] = np.round(shades * 255)
    return table


def _statuses() -> Bytes:
    table = np.zeros((256, 4), dtype=np.uint8)
    table[:] = [*_rgb(colors.UNKNOWN.color), 255]
    table[0] = 0
    for code, color in enumerate(status_colors().values(), start=1):
        table[code] = [*_rgb(color), 255]
    return table


def _rgb(color: str) -> list[int]:
    return [round(255 * share) for share in to_rgb(color)]


def status_colors() -> dict[str, str]:
    """Color of a chip that is embedded, and of one that is missing, by reason; in the order of their codes from 1."""
    missing = {reason: colors.REASONS.get(reason, colors.UNKNOWN).color for reason in REASONS}
    return {"embedded": colors.EMBEDDED, **missing}


LAYERS = (
    Layer("components", "Principal components", "rgb", "color", None),
    Layer("coverage", "Coverage by reason", "status", "palette", _statuses()),
    Layer("loss", "Reconstruction loss", "loss", "color", _ramp("cividis")),
    Layer("cloud", "Cloud share", "cloud", "color", _ramp("PuBu_r")),
    Layer("date", "Date", "date", "palette", _ramp("viridis")),
)


def drawn(layer: Layer, values: npt.NDArray[np.void], owner: npt.NDArray[np.int64]) -> Bytes:
    """A tile of a layer: RGBA [n, n, 4] of a `color` layer, codes [n, n] of a `palette` one.

    Args:
        layer: which.
        values: of the chips.
        owner: [n, n] the chip that each pixel shows; -1 where there is none.
    """
    there = owner >= 0
    picked = values[layer.field][np.where(there, owner, 0)]
    if layer.palette is None:
        alpha = (there & (values["status"][np.where(there, owner, 0)] == 1)).astype(np.uint8) * 255
        return np.dstack([picked * (alpha[..., None] > 0), alpha])
    codes = np.where(there, picked, 0).astype(np.uint8)
    return codes if layer.kind == "palette" else layer.palette[codes]


def halved(layer: Layer, quarters: Bytes) -> Bytes:
    """A tile of half the resolution: the mean color of the drawn pixels, or the commonest code, of ties the lowest.

    A pixel is drawn where any of its four is, so that single chips stay visible from afar.
    """
    four = np.stack([quarters[row::2, col::2] for row in (0, 1) for col in (0, 1)])
    if layer.kind == "palette":
        same = (four[:, None] == four[None]).sum(axis=1)
        rank = np.where(four > 0, same * 256 + (255 - four.astype(np.int64)), -1)
        made: Bytes = np.take_along_axis(four, rank.argmax(axis=0)[None], axis=0)[0]
        return made
    there = four[..., 3:] > 0
    count = there.sum(axis=0)
    mean = np.where(there, four[..., :3].astype(np.uint16), 0).sum(axis=0) / np.maximum(count, 1)
    color = np.floor(mean + 0.5).astype(np.uint8)
    return np.dstack([color, (count > 0).astype(np.uint8) * 255])


def encoded(layer: Layer, tile: Bytes) -> bytes:
    """A tile as WebP: lossless for a `palette`, else at `QUALITY`."""
    if layer.kind == "palette":
        assert layer.palette is not None
        return _webp(layer.palette[tile], lossless=True)
    there = tile[..., 3] > 0
    # What lies under transparent pixels costs bytes and blurs the edge: it gets the mean color.
    filled = tile.copy()
    filled[~there, :3] = tile[there, :3].mean(axis=0).astype(np.uint8)
    return _webp(filled, lossless=False)


def _webp(pixels: Bytes, *, lossless: bool) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(made, "WEBP", lossless=lossless, quality=QUALITY, method=4, alpha_quality=100)
    return made.getvalue()


MOST = 24
"""Overviews of one layer: more windows than this are drawn year by year, more years in one picture."""


@dataclass(frozen=True)
class Period:
    """Windows that are drawn together; where they overlap, the latest is on top."""

    id: str
    start: datetime
    """Of its first window."""
    end: datetime
    """Exclusive end of its last window."""


@dataclass(frozen=True)
class Periods:
    """The periods of a release, the earliest first. A window belongs to the one that holds its start."""

    each: tuple[Period, ...]

    def of(self, starts: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
        """[n] the number of the period of each window, by its start."""
        edges = np.array([_naive(period.start) for period in self.each], dtype="datetime64[us]")
        return np.searchsorted(edges, starts.astype("datetime64[us]"), side="right") - 1

    def of_window(self, window: Window) -> int:
        """The number of one window's period."""
        return int(self.of(np.array([_naive(window.start)], dtype="datetime64[us]"))[0])


def periods(windows: Iterable[Window], *, layout: str) -> Periods:
    """Group windows: each its own period in the `utm` layout, years in `scene` and where there are more than `MOST`."""
    every = sorted(set(windows))
    apart = len({window.start for window in every}) == len(every) and len(every) <= MOST
    if layout == "utm" and apart:
        return Periods(tuple(Period(window.token, window.start, window.end) for window in every))
    years = sorted({window.start.year for window in every})
    if len(years) > MOST or not years:
        return Periods((_joined("all", every),))
    return Periods(tuple(_joined(f"{year:04d}", [w for w in every if w.start.year == year]) for year in years))


def _joined(name: str, windows: list[Window]) -> Period:
    return Period(name, min(w.start for w in windows), max(w.end for w in windows))


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
