"""A real scene on several dates, under synthetic clouds and haze of known truth."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter

from clay_publish.spec.sensors import sensor

from .conftest import ten_bands, write_item, write_tif

BANDS = [band.name for band in sensor("sentinel-2-l2a").bands]
YEAR = "2023-01-01/2024-01-01"
CLOUD, CLEAR, NOTHING = 9, 4, 0
"""Scene classes."""


@dataclass
class Date:
    """One acquisition."""

    id: str
    moment: datetime
    values: np.ndarray
    """[10, rows, columns], digital numbers without offset; 0 where there is no data."""
    scl: np.ndarray
    """[rows, columns] of the scene class."""
    items: list[Path]

    @property
    def clear(self) -> np.ndarray:
        return (self.scl == CLEAR) & (self.values > 0).all(axis=0)


@dataclass
class Cloudy:
    """Items of all dates, and what they show."""

    truth: np.ndarray
    """[10, rows, columns] without cloud."""
    dates: list[Date]
    transform: Affine

    @property
    def items(self) -> list[Path]:
        return [item for date in self.dates for item in date.items]

    def window(self, row: int, col: int, size: int) -> tuple[slice, slice]:
        """Rows and columns of a cell of the `utm` grid, in the projection of the images."""
        side = size * 10
        left, top = ~self.transform @ (col * side, (row + 1) * side)
        return slice(round(top), round(top) + size), slice(round(left), round(left) + size)


def cloudy(
    folder: Path,
    scene: Path,
    *,
    dates: int = 8,
    cover: float = 0.6,
    noise: int = 60,
    tiles: bool = True,
    offset: bool = True,
) -> Cloudy:
    """Write the scene on several dates of 2023.

    Args:
        folder: where items and images go.
        scene: the STAC item of the scene.
        dates: how many.
        cover: share of cloud of each.
        noise: of the ground from date to date, digital numbers.
        tiles: whether the second date is two tiles of one datatake that overlap.
        offset: whether the third date is of a baseline whose numbers are 1,000 higher.
    """
    truth = np.maximum(ten_bands(scene), 1)
    with rasterio.open(scene.parent / json.loads(scene.read_text())["assets"]["red"]["href"]) as file:
        transform = file.transform
    rng = np.random.default_rng(20)
    found = []
    for number in range(dates):
        moment = datetime(2023, 1, 10, 15, 30, tzinfo=UTC) + timedelta(days=number * 340 // dates)
        field = gaussian_filter(rng.normal(size=(truth.shape[1] // 2, truth.shape[2] // 2)), 12)
        clouds = np.kron(field > np.quantile(field, 1 - cover), np.ones((2, 2), bool))
        values = np.clip(truth + rng.integers(-noise, noise + 1, truth.shape), 1, 20_000)
        haze = gaussian_filter(clouds.astype(float), 3) * 300
        values = np.where(clouds, rng.integers(6000, 9000, truth.shape), values + haze.astype(int))
        scl = np.where(clouds, CLOUD, CLEAR)
        if number == 3:
            values[:, :, :100], scl[:, :100] = 0, NOTHING
        values, scl = values.astype(np.uint16), scl.astype(np.uint8)
        name = f"S2A_18SVG_{moment:%Y%m%d}"
        more = 1000 if offset and number == 2 else 0
        parts = [(0, 300), (200, 512)] if tiles and number == 1 else [(0, truth.shape[2])]
        items = [
            _write(folder, f"{name}_{place}", moment, transform, (values, scl), part, more)
            for place, part in enumerate(parts)
        ]
        found.append(Date(f"{name}_0", moment, values, scl, items))
    return Cloudy(truth, found, transform)


def _write(
    folder: Path,
    name: str,
    moment: datetime,
    transform: Affine,
    layers: tuple[np.ndarray, np.ndarray],
    columns: tuple[int, int],
    offset: int,
) -> Path:
    values, scl = (layer[..., columns[0] : columns[1]] for layer in layers)
    grid = transform @ Affine.translation(columns[0], 0)
    stored = np.where(values > 0, values + offset, 0).astype(np.uint16)
    write_tif(folder / f"{name}.tif", stored, grid, "EPSG:32618", nodata=0, block=128)
    write_tif(
        folder / f"{name}_scl.tif", scl[None, ::2, ::2], grid @ Affine.scale(2), "EPSG:32618", nodata=0, block=128
    )
    properties: dict[str, Any] = {
        "datetime": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "platform": "sentinel-2a",
        "s2:datatake_id": f"GS2A_{moment:%Y%m%dT%H%M%S}",
        "eo:cloud_cover": round(100 * float((scl == CLOUD).mean()), 2),
        "s2:processing_baseline": "05.00" if offset else "02.00",
        "license": "CC-BY-4.0",
    }
    assets = {
        "data": {"href": f"{name}.tif", "eo:bands": [{"name": band} for band in BANDS]},
        "scl": {"href": f"{name}_scl.tif"},
    }
    return write_item(folder / f"{name}.json", assets, **properties)
