"""Real chips, and specs that name an encoder."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from clay_publish.producer.encoders import ChipBatch
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor, sensor

MakeSpec = Callable[..., Spec]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small models gain nothing by more, and on a busy machine their threads wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sentinel_2() -> Sensor:
    return sensor("sentinel-2-l2a")


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """A spec for Sentinel-2, with some of its blocks given."""

    def make(**keys: Any) -> Spec:
        imagery = {"stac": "items.json", "sensor": "sentinel-2-l2a"}
        return Spec.model_validate({"name": "test", "imagery": imagery, **keys})

    return make


@pytest.fixture(scope="session")
def chips(shared_data: Path, sentinel_2: Sensor) -> ChipBatch:
    """Twelve chips of 64 pixels around Aberystwyth, ten bands, normalised."""
    path = shared_data / "s2_sref_aberystwyth_20210527_bng" / "sen2_20210527_aber_512.tif"
    with rasterio.open(path) as image:
        scene = image.read(window=((128, 320), (128, 384))).astype(np.float32) * 10
    mean = np.array([b.mean for b in sentinel_2.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in sentinel_2.bands], np.float32)[:, None, None]
    tiles = ((scene - mean) / std).reshape(10, 3, 64, 4, 64).transpose(1, 3, 0, 2, 4)
    first = datetime(2021, 5, 27, 11, 20, tzinfo=UTC)
    return ChipBatch(
        pixels=np.ascontiguousarray(tiles.reshape(12, 10, 64, 64)),
        lon=np.linspace(-4.1, -4.0, 12),
        lat=np.linspace(52.3, 52.5, 12),
        times=[first + timedelta(days=9 * n, hours=n) for n in range(12)],
        gsd=10.0,
    )


@pytest.fixture(scope="session")
def choose() -> Callable[..., ChipBatch]:
    """Some of the chips, in another order."""

    def some(chips: ChipBatch, places: list[int]) -> ChipBatch:
        return ChipBatch(
            pixels=chips.pixels[places],
            lon=chips.lon[places],
            lat=chips.lat[places],
            times=[chips.times[n] for n in places],
            gsd=chips.gsd,
        )

    return some
