"""Chips on their way from pixels to rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ImageryError
from clay_publish.fingerprint import BandStatistics

_FLOOR = 1e-10
"""Linear power at and below zero, before decibels (Clay's training)."""


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
    """Metres: ground size of the pixels."""
    pixels: npt.NDArray[np.float32]
    """[n, bands, size, size], normalised; 0 where there is no data."""
    valid_fraction: npt.NDArray[np.float32]
    cloud_fraction: npt.NDArray[np.float32]
    """NaN where there is no mask."""
    times: list[datetime]
    starts: list[datetime]
    ends: list[datetime]
    item_id: list[str]
    item_ids: list[Sequence[str]]
    notes: list[str] = field(default_factory=list)
    """What the reader of the coverage table should know of these chips."""


def normalise(
    values: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    statistics: BandStatistics,
    *,
    offset: float,
    decibels: bool,
) -> npt.NDArray[np.float32]:
    """(value + offset − mean) / std, unclipped; 0, the mean, where there is no data.

    With `decibels`, linear power becomes 10·log10, what is ≤ 0 counting as 1e-10.
    """
    raw = values.astype(np.float32)
    if decibels:
        raw = 10 * np.log10(np.where(valid & (raw > _FLOOR), raw, np.float32(_FLOOR)))
    else:
        raw += np.float32(offset)
    raw -= np.float32(statistics.mean)
    raw /= np.float32(statistics.std)
    raw[~valid] = 0
    if not np.isfinite(raw).all():
        raise ImageryError(f"band {statistics.name}", "has values that overflow", "finite numbers")
    return raw


def cut(strip: npt.NDArray[np.generic], size: int) -> npt.NDArray[np.generic]:
    """[rows = size, n·size] → [n, size, size] without copying."""
    return strip.reshape(size, -1, size).swapaxes(0, 1)
