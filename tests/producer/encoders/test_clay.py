"""Clay against what the upstream implementation returned, and on real pixels."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders import ChipBatch, Encoded, Encoder, load_encoder
from clay_publish.producer.encoders.clay import Clay, mask_order
from clay_publish.producer.encoders.clay_model import reconstruction_loss
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Band, Sensor

MakeSpec = Callable[..., Spec]
Choose = Callable[[ChipBatch, list[int]], ChipBatch]
MakeClay = Callable[..., Clay]


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, np.ndarray]:
    with np.load(shared_data / "clay_golden.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def make_clay(golden_checkpoint: Path, make_spec: MakeSpec, sentinel_2: Sensor) -> MakeClay:
    def make(
        size: int = 64, outputs: dict[str, Any] | None = None, instrument: Sensor = sentinel_2, **model: Any
    ) -> Encoder:
        model = {
            "encoder": "clay",
            "weights": str(golden_checkpoint),
            "precision": "float32",
            **model,
        }
        return load_encoder(make_spec(model=model, chips={"size": size}, outputs=outputs or {}), instrument)

    return make


@pytest.fixture(scope="module")
def golden_pixels(golden: dict[str, np.ndarray], sentinel_2: Sensor) -> torch.Tensor:
    mean = np.array([b.mean for b in sentinel_2.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in sentinel_2.bands], np.float32)[:, None, None]
    return torch.from_numpy((golden["pixels"].astype(np.float32) - mean) / std)


@pytest.fixture(scope="module")
def golden_metadata(golden: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.hstack([golden["time"], golden["latlon"]]))


def test_bands_and_wavelengths_are_those_of_upstream(golden: dict[str, np.ndarray], sentinel_2: Sensor) -> None:
    assert [b.name for b in sentinel_2.bands] == golden["band_order"].tolist()
    assert np.allclose([b.wavelength for b in sentinel_2.bands], golden["wavelengths"])


def test_class_and_patch_tokens_match_upstream(
    make_clay: MakeClay, golden: dict[str, np.ndarray], golden_pixels: torch.Tensor, golden_metadata: torch.Tensor
) -> None:
    with torch.inference_mode():
        tokens, _ = make_clay().encoder(golden_pixels, golden_metadata, float(golden["gsd"]))
    assert np.abs(tokens[:, 0].numpy() - golden["embedding"]).max() < 1e-5
    assert np.abs(tokens[:, 1:].numpy() - golden["patches"]).max() < 1e-5


def test_loss_matches_upstream_for_its_mask(
    make_clay: MakeClay, golden: dict[str, np.ndarray], golden_pixels: torch.Tensor, golden_metadata: torch.Tensor
) -> None:
    clay = make_clay(outputs={"loss": True})
    assert clay.decoder is not None
    order = torch.from_numpy(golden["mask_noise"][0]).argsort()
    with torch.inference_mode():
        loss = reconstruction_loss(
            clay.encoder, clay.decoder, golden_pixels, golden_metadata, gsd=float(golden["gsd"]), order=order
        )
    assert np.abs(loss.numpy() - golden["loss"]).max() < 1e-5


def test_metadata_are_encoded_as_upstream_was_given_them(
    make_clay: MakeClay, golden: dict[str, np.ndarray], golden_pixels: torch.Tensor
) -> None:
    """The stored sines and cosines are turned back into times and places, and must come out again."""
    lat, lon = (np.degrees(np.arctan2(golden["latlon"][:, n], golden["latlon"][:, n + 1])) for n in (0, 2))
    weeks, hours = (
        np.rint(np.arctan2(golden["time"][:, n], golden["time"][:, n + 1]) / (2 * np.pi) * cycle) % cycle
        for n, cycle in ((0, 52), (2, 24))
    )
    times = [
        datetime.fromisocalendar(2021, int(week) or 52, 3).replace(hour=int(hour), tzinfo=UTC)
        for week, hour in zip(weeks, hours, strict=True)
    ]
    given = ChipBatch(golden_pixels.numpy(), lon, lat, times, float(golden["gsd"]))
    assert np.abs(make_clay().encode(given).embeddings - golden["embedding"]).max() < 1e-4
    zeros = make_clay(metadata="zeros")
    assert not zeros.encode_metadata(given).any()
    assert np.abs(zeros.encode(given).embeddings - golden["embedding"]).max() > 1e-3


@pytest.mark.parametrize("places", [[5], [5, 0], [11, 5, 3, 8, 2]])
def test_a_vector_is_the_same_to_the_bit_whatever_batch_and_neighbors(
    make_clay: MakeClay, chips: ChipBatch, choose: Choose, places: list[int]
) -> None:
    clay = make_clay(outputs={"loss": True, "patches": True})
    whole, some = clay.encode(chips), clay.encode(choose(chips, places))
    for one, other in zip(_outputs(some), _outputs(whole), strict=True):
        assert np.array_equal(one, other[places])


def test_a_vector_is_the_same_whatever_the_threads_and_after_a_restart(make_clay: MakeClay, chips: ChipBatch) -> None:
    outputs = {"loss": True, "patches": True}
    whole = _outputs(make_clay(outputs=outputs).encode(chips))
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for one, other in zip(_outputs(make_clay(outputs=outputs).encode(chips)), whole, strict=True):
                assert np.abs(one - other).max() < 1e-5
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_threads_may_ask_at_once(make_clay: MakeClay, chips: ChipBatch, choose: Choose, precision: str) -> None:
    clay = make_clay(outputs={"loss": True, "patches": True}, precision=precision)
    whole = _outputs(clay.encode(chips))
    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        made = list(pool.map(lambda n: _outputs(clay.encode(choose(chips, [n % 12]))), range(36)))
    for n, each in enumerate(made):
        for one, other in zip(each, whole, strict=True):
            assert np.array_equal(one[0], other[n % 12])


def _outputs(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert encoded.loss is not None
    assert encoded.patches is not None
    return encoded.embeddings, encoded.loss, encoded.patches


def test_bfloat16_stays_close_and_is_the_same_whatever_the_batch(
    make_clay: MakeClay, chips: ChipBatch, choose: Choose
) -> None:
    exact = make_clay().encode(chips).embeddings
    coarse = make_clay(precision="bfloat16")
    vectors = coarse.encode(chips).embeddings
    cosine = (exact * vectors).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosine.min() > 0.9995
    assert not np.array_equal(exact, vectors)
    assert np.array_equal(coarse.encode(choose(chips, [7])).embeddings[0], vectors[7])


def test_patches_are_the_output_tokens_and_layers_come_in_order(make_clay: MakeClay, chips: ChipBatch) -> None:
    final = make_clay(outputs={"patches": True})
    both = make_clay(outputs={"patches": {"layers": [2, 1]}})
    assert (final.patch_layers, both.patch_layers) == ((2,), (1, 2))
    one, two = final.encode(chips).patches, both.encode(chips).patches
    assert one is not None
    assert two is not None
    assert (one.shape, two.shape) == ((12, 1, 8, 8, 96), (12, 2, 8, 8, 96))
    assert np.array_equal(one[:, 0], two[:, 1])
    assert not np.allclose(two[:, 0], two[:, 1])


def test_a_layer_the_model_does_not_have_is_refused(make_clay: MakeClay) -> None:
    with pytest.raises(EncoderError, match=r"layer 6 .expected 1 to 2"):
        make_clay(outputs={"patches": {"layers": [1, 6]}})


def test_a_chip_that_is_no_multiple_of_8_is_padded_by_reflection_and_says_so(
    make_clay: MakeClay, chips: ChipBatch
) -> None:
    cut = replace(chips, pixels=np.ascontiguousarray(chips.pixels[:, :, :60, :60]))
    clay = make_clay(size=60)
    assert clay.padding == "reflect, 4 px right and below"
    assert make_clay().padding == "none"
    mirrored = np.pad(cut.pixels, ((0, 0), (0, 0), (0, 4), (0, 4)), mode="reflect")
    assert np.array_equal(clay.encode(cut).embeddings, make_clay().encode(replace(chips, pixels=mirrored)).embeddings)


def test_ground_size_is_passed_to_the_model(make_clay: MakeClay, chips: ChipBatch) -> None:
    clay = make_clay()
    assert not np.allclose(clay.encode(chips).embeddings, clay.encode(replace(chips, gsd=20.0)).embeddings, atol=1e-3)


def test_the_mask_is_one_fixed_permutation() -> None:
    assert mask_order(64)[:6].tolist() == [35, 56, 6, 32, 45, 21]
    assert sorted(mask_order(256).tolist()) == list(range(256))


def test_a_band_without_wavelength_is_refused(make_clay: MakeClay, sentinel_2: Sensor) -> None:
    thermal = Band.model_construct(name="thermal", mean=1.0, std=1.0, wavelength=0.0)
    broken = sentinel_2.model_copy(update={"bands": (*sentinel_2.bands[:9], thermal)})
    with pytest.raises(EncoderError, match=r"sentinel-2-l2a, band thermal: has wavelength 0\.0"):
        make_clay(instrument=broken)
