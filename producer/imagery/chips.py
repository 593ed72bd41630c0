"""Chips on their way from pixels to rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ImageryError
from clay_publish.geo.utm_zones import Square
from clay_publish.producer.encoders.base import Steps
from clay_publish.producer.sources.item import SourceItem
from clay_publish.spec.models import ChipSpec, Composite
from clay_publish.spec.sensors import BandStatistics, CloudMask, Sensor

_ROUNDING = 1e-6
_FLOOR = 1e-10
"""Linear power at and below zero, before decibels (Clay's training)."""


class ImplausibleError(ImageryError):
    """The pixel values of an image cannot be what its item says."""


@dataclass(frozen=True)
class Reading:
    """What every image is read for."""

    sensor: Sensor
    bands: tuple[BandStatistics, ...]
    """The bands the encoder takes, in its order."""
    rules: ChipSpec
    threads: int
    """Files read at the same time."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why images are left out whose pixel values cannot be what their items say, by id."""
    composite: Composite | None = None
    """How a chip is made of several acquisitions; None: of the best one."""
    steps: int | None = None
    """Of time that the encoder takes; None: one image."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Why images could not be read so far, by id: chips that they might have decided are of others, or missing."""


@dataclass(frozen=True)
class Combined:
    """What a chip of several acquisitions tells of them."""

    images: int
    """Acquisitions that gave pixels."""
    observations: tuple[int, float]
    """Least and median number of clear observations of its pixels that have a value."""
    first: datetime
    last: datetime
    """Their acquisition, the first and the last."""
    start: datetime
    end: datetime
    """Of all of them; for images that are composites themselves, of their periods."""
    encoder_time: datetime
    """The date that the encoder receives: the same for all chips of a window."""

    @property
    def middle(self) -> datetime:
        """The date of the chip: halfway between the first and the last acquisition."""
        return self.first + (self.last - self.first) / 2


@dataclass
class ChipBlock:
    """Some chips that were read together; arrays have one entry a chip."""

    ids: list[str]
    epsg: int | None
    rows: npt.NDArray[np.int32]
    cols: npt.NDArray[np.int32]
    geometry: npt.NDArray[np.object_]
    """Footprints, OGC:CRS84."""
    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    gsd: float
    """Meters: ground size of the pixels."""
    squares: list[Square]
    """Which published file each belongs to."""
    reasons: list[str | None]
    """Why a chip cannot be embedded; None where it can."""
    details: list[str | None]
    """What the reader of the coverage table should know of it."""
    pixels: npt.NDArray[np.float32]
    """[k, bands, size, size] of the k chips without a reason, normalized; 0 where there is no data. With steps of time
    [k, steps, bands, size, size]."""
    valid_fraction: npt.NDArray[np.float32]
    cloud_fraction: npt.NDArray[np.float32]
    """NaN where there is no mask."""
    source: list[SourceItem | None]
    """The image a chip's date is taken from."""
    item_ids: list[tuple[str, ...]]
    """Images that gave pixels; of a missing chip, those that were tried."""
    combined: Sequence[Combined | None] | None = None
    """Of chips that are made of several acquisitions."""
    steps: Steps | None = None
    """Of time, where the encoder takes them."""


def normalize(
    values: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    statistics: BandStatistics,
    linear: tuple[float, float],
    *,
    decibels: bool,
) -> npt.NDArray[np.float32]:
    """(value · factor + summand − mean) / std, unclipped; 0, the mean, where there is no data.

    With `decibels`, linear power becomes 10·log10, what is ≤ 0 counting as 1e-10.
    """
    raw = to_input(np.where(valid, values, 0) if decibels else values, linear, decibels=decibels)
    raw -= np.float32(statistics.mean)
    raw /= np.float32(statistics.std)
    raw[~valid] = 0
    if not np.isfinite(raw).all():
        raise ImageryError(f"band {statistics.name}", "has values that overflow", "finite numbers")
    return raw


def to_input(
    values: npt.NDArray[np.generic], linear: tuple[float, float], *, decibels: bool
) -> npt.NDArray[np.float32]:
    """Digital numbers of a file as those of the sensor's statistics: value · factor + summand, or decibels."""
    raw = values.astype(np.float32)
    factor, summand = linear
    if factor != 1:
        raw *= np.float32(factor)
    if decibels:
        return np.asarray(10 * np.log10(np.where(raw > _FLOOR, raw, np.float32(_FLOOR))), dtype=np.float32)
    raw += np.float32(summand)
    return raw


def short_of_pixels(valid: float, rules: ChipSpec) -> bool:
    """Whether a share of valid pixels is too small for a chip."""
    return valid == 0 or valid < 1 - rules.max_nodata - _ROUNDING


def missing_reason(valid: float, cloud: float, rules: ChipSpec) -> tuple[str, str] | tuple[None, None]:
    """Why a chip is not embedded, and the number that says so.

    Args:
        valid: share of its pixels that are valid.
        cloud: share under cloud; NaN, no mask, is not too much.
        rules: `max_nodata` and `max_cloud` of the spec.
    """
    if short_of_pixels(valid, rules):
        return "nodata", f"{valid:.3f} of the pixels are valid"
    if cloud > rules.max_cloud + _ROUNDING:
        return "cloud", f"{cloud:.3f} of the pixels are under cloud"
    return None, None


def cut(strip: npt.NDArray[np.generic], size: int) -> npt.NDArray[np.generic]:
    """[rows = size, n·size] → [n, size, size] without copying."""
    return strip.reshape(size, -1, size).swapaxes(0, 1)


def under_cloud(
    layers: Sequence[tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]], mask: CloudMask
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Where a mask says anything, and where it says cloud or cloud shadow.

    Args:
        layers: values of each band of the mask, and where they are data.
        mask: what they mean.

    Raises:
        ImageryError: real numbers: a probability may be a share or a percentage.
    """
    observed, under = [], []
    for values, valid in layers:
        if values.dtype.kind == "f":
            raise ImageryError(
                f"mask {mask.assets[0]}",
                f"has {values.dtype} pixels",
                "integers, probabilities in percent",
                "Name another mask in `imagery.mask`, or `none`.",
            )
        data = valid & ~np.isin(values, list(mask.nodata))
        if mask.highest is not None and data.any() and (most := int(values[data].max())) > mask.highest:
            raise ImageryError(
                f"mask {mask.assets[0]}",
                f"has the value {most}",
                f"at most {mask.highest}",
                "Name another mask in `imagery.mask`, or `none`.",
            )
        observed.append(data)
        under.append(data & _is_cloud(values, mask))
    return np.logical_or.reduce(observed), np.logical_or.reduce(under)


def _is_cloud(values: npt.NDArray[np.generic], mask: CloudMask) -> npt.NDArray[np.bool_]:
    if mask.format == "bits":
        bits = sum(1 << bit for bit in mask.cloudy)
        return np.asarray(np.bitwise_and(values.astype(np.int64), bits) != 0, dtype=bool)
    if mask.format == "probability":
        return np.asarray(values.astype(np.int64) >= min(mask.cloudy), dtype=bool)
    return np.isin(values, list(mask.cloudy))
