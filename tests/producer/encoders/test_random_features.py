"""Random convolutional features on real Sentinel-2 pixels."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders import Chips, Encoder, load_encoder
from clay_publish.producer.encoders.random_features import generate
from clay_publish.producer.sensors import sensor
from clay_publish.spec import Spec

SENTINEL_2 = sensor("sentinel-2-l2a")


def spec(**keys: object) -> Spec:
    imagery = {"stac": "items.json", "sensor": "sentinel-2-l2a"}
    return Spec.model_validate({"name": "test", "imagery": imagery, **keys})


@pytest.fixture(scope="module")
def pixels(shared_data: Path) -> np.ndarray:
    """Twelve chips of 64 pixels, ten bands, normalised."""
    path = shared_data / "s2_sref_aberystwyth_20210527_bng" / "sen2_20210527_aber_512.tif"
    with rasterio.open(path) as image:
        scene = image.read(window=((128, 320), (128, 384))).astype(np.float32) * 10
    mean = np.array([b.mean for b in SENTINEL_2.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in SENTINEL_2.bands], np.float32)[:, None, None]
    scene = (scene - mean) / std
    return np.ascontiguousarray(scene.reshape(10, 3, 64, 4, 64).transpose(1, 3, 0, 2, 4).reshape(12, 10, 64, 64))


def chips(pixels: np.ndarray) -> Chips:
    n = len(pixels)
    return Chips(pixels, np.zeros(n), np.zeros(n), [datetime(2021, 5, 27, tzinfo=UTC)] * n, 10.0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(spec(), SENTINEL_2)


def test_features_are_the_mean_of_rectified_responses(encoder: Encoder, pixels: np.ndarray) -> None:
    filters, biases = generate(10)
    vector = encoder.encode(chips(pixels[:1])).embeddings[0]
    windows = np.lib.stride_tricks.sliding_window_view(pixels[0].astype(np.float64), (3, 3), axis=(1, 2))
    for k in (0, 17, 255):
        response = np.einsum("chwij,cij->hw", windows, filters[k]) - biases[k]
        assert vector[k] == pytest.approx(np.maximum(response, 0).mean(), abs=1e-5)
        assert vector[256 + k] == pytest.approx(np.maximum(-response, 0).mean(), abs=1e-5)


def test_a_vector_is_the_same_to_the_bit_whatever_batch_neighbours_and_threads(
    encoder: Encoder, pixels: np.ndarray
) -> None:
    threads = torch.get_num_threads()
    whole = encoder.encode(chips(pixels)).embeddings
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            fresh = load_encoder(spec(), SENTINEL_2)
            alone = np.concatenate([fresh.encode(chips(pixels[i : i + 1])).embeddings for i in range(len(pixels))])
            backwards = fresh.encode(chips(pixels[::-1].copy())).embeddings[::-1]
            assert np.array_equal(alone, whole)
            assert np.array_equal(backwards, whole)
    finally:
        torch.set_num_threads(threads)


def test_different_ground_gives_different_finite_vectors(encoder: Encoder, pixels: np.ndarray) -> None:
    vectors = encoder.encode(chips(pixels)).embeddings
    assert vectors.shape == (12, encoder.dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert (np.ptp(vectors, axis=0) > 0).mean() > 0.9


def test_the_filters_never_change_unnoticed(encoder: Encoder) -> None:
    assert encoder.weights_sha256 == "b88371b8b05646ec2f69739fff65bfb0017ccdb42a1944db219aeff59e4e03ed"
    assert encoder.precision == "float32"


def test_every_sensor_is_taken_with_all_its_bands() -> None:
    naip = sensor("naip")
    encoder = load_encoder(spec(imagery={"stac": "items.json", "sensor": "naip"}), naip)
    assert [b.name for b in encoder.bands] == ["red", "green", "blue", "nir"]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"model": {"weights": "some.ckpt"}}, "model.weights"),
        ({"model": {"precision": "bfloat16"}}, "bfloat16"),
        ({"outputs": {"loss": True}}, "outputs.loss"),
        ({"outputs": {"patches": True}}, "outputs.patches"),
        ({"model": {"sha256": "0" * 64}}, "model.sha256"),
    ],
)
def test_what_it_does_not_have_is_refused(keys: dict[str, object], named: str) -> None:
    with pytest.raises(EncoderError, match=named):
        load_encoder(spec(**keys), SENTINEL_2)
