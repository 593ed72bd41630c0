"""Small pictures of real optical and radar pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from clay_publish.errors import SpecError
from clay_publish.producer.outputs.thumbnails import Thumbnails
from clay_publish.spec.sensors import SENSORS, Sensor, sensor


def normalized(instrument: Sensor, raw: np.ndarray) -> np.ndarray:
    mean = np.array([b.mean for b in instrument.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in instrument.bands], np.float32)[:, None, None]
    return ((raw - mean) / std).astype(np.float32)


def draw(instrument: Sensor, pixels: np.ndarray, size: int = 64) -> np.ndarray:
    thumbnails = Thumbnails.of(size, instrument, tuple(b.statistics for b in instrument.bands))
    return np.asarray(Image.open(io.BytesIO(thumbnails.draw(pixels[None])[0]))).astype(int)


def test_radar_is_shown_in_false_colors_from_decibels(shared_data: Path) -> None:
    with rasterio.open(shared_data / "s1" / "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif") as file:
        vv = file.read(1)[:192, :192].astype(np.float32)
    radar = sensor("sentinel-1-rtc")
    picture = draw(radar, normalized(radar, np.stack([vv, vv - 6])), size=192)
    assert picture.std() > 20
    assert np.abs(picture[..., 0] - picture[..., 2]).mean() < 8, "VV is both red and blue"
    bright = picture[..., 0][vv > -6].mean() - picture[..., 0][vv < -18].mean()
    assert bright > 150


def test_no_data_is_black_and_bright_ground_is_bright(shared_data: Path) -> None:
    naip = sensor("naip")
    with rasterio.open(shared_data / "naip" / "m_3607824_se_17_1_20160620_subset.tif") as file:
        pixels = normalized(naip, file.read(window=((0, 256), (0, 256))))
    pixels[:, :128] = 0
    picture = draw(naip, pixels)
    assert picture[:28].max() < 12
    assert picture[36:].mean() > 60


def test_the_same_ground_looks_the_same_beside_other_ground(shared_data: Path) -> None:
    naip = sensor("naip")
    with rasterio.open(shared_data / "naip" / "m_3607824_se_17_1_20160620_subset.tif") as file:
        pixels = normalized(naip, file.read(window=((0, 256), (0, 256))))
    brighter = pixels.copy()
    brighter[:, 128:] += 3
    one, other = draw(naip, pixels), draw(naip, brighter)
    assert np.abs(one[:24] - other[:24]).mean() < 8  # WebP loses some of the finest texture
    assert other[40:].mean() > one[40:].mean() + 40


@pytest.mark.parametrize("key", sorted(SENSORS))
def test_every_sensor_has_a_stretch(key: str) -> None:
    instrument = SENSORS[key]
    pixels = np.random.default_rng(0).normal(size=(len(instrument.bands), 32, 32)).astype(np.float32)
    picture = draw(instrument, pixels, size=32)
    assert picture.shape == (32, 32, 3)
    assert 40 < picture.mean() < 215


def test_an_encoder_without_the_colors_is_refused() -> None:
    naip = sensor("naip")
    with pytest.raises(SpecError, match="need the bands red, green, blue, and the encoder does not take blue"):
        Thumbnails.of(64, naip, tuple(b.statistics for b in naip.bands if b.name != "blue"))
