"""Random convolutional features on real Sentinel-2 pixels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders import ChipBatch, Encoder, load_encoder
from clay_publish.producer.encoders.random_features import generate
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor, sensor

MakeSpec = Callable[..., Spec]
Choose = Callable[[ChipBatch, list[int]], ChipBatch]


@pytest.fixture(scope="module")
def encoder(make_spec: MakeSpec, sentinel_2: Sensor) -> Encoder:
    return load_encoder(make_spec(), sentinel_2)


def test_features_are_the_mean_of_rectified_responses(encoder: Encoder, chips: ChipBatch) -> None:
    filters, biases = generate(10)
    vector = encoder.encode(chips).embeddings[0]
    windows = np.lib.stride_tricks.sliding_window_view(chips.pixels[0].astype(np.float64), (3, 3), axis=(1, 2))
    for k in (0, 17, 255):
        response = np.einsum("chwij,cij->hw", windows[:, ::2, ::2], filters[k]) - biases[k]
        assert vector[k] == pytest.approx(np.maximum(response, 0).mean(), abs=1e-5)
        assert vector[256 + k] == pytest.approx(np.maximum(-response, 0).mean(), abs=1e-5)


def test_a_vector_is_the_same_to_the_bit_whatever_batch_neighbors_and_threads(
    encoder: Encoder, chips: ChipBatch, choose: Choose, make_spec: MakeSpec, sentinel_2: Sensor
) -> None:
    threads = torch.get_num_threads()
    whole = encoder.encode(chips).embeddings
    backwards = list(reversed(range(12)))
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            fresh = load_encoder(make_spec(), sentinel_2)
            alone = np.concatenate([fresh.encode(choose(chips, [n])).embeddings for n in range(12)])
            assert np.array_equal(alone, whole)
            assert np.array_equal(fresh.encode(choose(chips, backwards)).embeddings[backwards], whole)
    finally:
        torch.set_num_threads(threads)


def test_different_ground_gives_different_finite_vectors(encoder: Encoder, chips: ChipBatch) -> None:
    vectors = encoder.encode(chips).embeddings
    assert vectors.shape == (12, encoder.dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert (np.ptp(vectors, axis=0) > 0).mean() > 0.9


def test_the_filters_never_change_unnoticed(encoder: Encoder) -> None:
    assert encoder.weights_sha256 == "b88371b8b05646ec2f69739fff65bfb0017ccdb42a1944db219aeff59e4e03ed"
    assert encoder.precision == "float32"


def test_every_sensor_is_taken_with_all_its_bands(make_spec: MakeSpec) -> None:
    encoder = load_encoder(make_spec(imagery={"stac": "items.json", "sensor": "naip"}), sensor("naip"))
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
def test_what_it_does_not_have_is_refused(
    make_spec: MakeSpec, sentinel_2: Sensor, keys: dict[str, object], named: str
) -> None:
    with pytest.raises(EncoderError, match=named):
        load_encoder(make_spec(**keys), sentinel_2)
