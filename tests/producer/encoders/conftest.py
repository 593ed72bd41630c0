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
def chips(shared_data: Path, sentinel_2: Sensor, bands_of: Callable[[Path], np.ndarray]) -> ChipBatch:
    """Twelve chips of 64 pixels, ten bands, normalized: of a winter shore, a desert under clouds, and ice."""
    shore = bands_of(shared_data / "s2_l1c_T18SVG_20160112" / "item.json")[:, 128:192, 128:384]
    desert = bands_of(shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json")[:, 64:128, :256]
    with rasterio.open(shared_data / "s2_l2a_satclip_chips_256" / "patch_25630.tif") as image:
        ice = image.read([2, 3, 4, 5, 6, 7, 8, 9, 11, 12])
    ice = np.concatenate([ice[:, :64], ice[:, 64:]], axis=2)
    scene = np.concatenate([shore, desert, ice], axis=1).astype(np.float32)
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
