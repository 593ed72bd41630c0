"""Checkpoints that must be refused, and those that must load."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders import ChipBatch, load_encoder
from clay_publish.producer.encoders.clay import build_decoder, build_encoder, read_checkpoint
from clay_publish.producer.encoders.clay_model import ClayDecoder, ClayEncoder, Sizes
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor

MakeSpec = Callable[..., Spec]
Load = Callable[..., Any]


@pytest.fixture
def load(make_spec: MakeSpec, sentinel_2: Sensor) -> Load:
    def load_from(path: Path, **model: Any) -> Any:
        model = {"encoder": "clay", "weights": str(path), "precision": "float32", **model}
        return load_encoder(make_spec(model=model, outputs={"loss": True}, chips={"size": 64}), sentinel_2)

    return load_from


@pytest.fixture(scope="module")
def golden(golden_checkpoint: Path) -> Path:
    return golden_checkpoint


@pytest.fixture
def changed(golden: Path, tmp_path: Path) -> Callable[[dict[str, torch.Tensor | None]], Path]:
    """The golden checkpoint with some tensors replaced, or taken away."""

    def change(tensors: dict[str, torch.Tensor | None]) -> Path:
        state = torch.load(golden, weights_only=True)["state_dict"] | tensors
        path = tmp_path / "changed.ckpt"
        torch.save({"state_dict": {k: v for k, v in state.items() if v is not None}}, path)
        return path

    return change


def test_a_missing_file_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"gone\.ckpt: cannot be read \(No such file"):
        load(tmp_path / "gone.ckpt")


def test_no_weights_is_an_error(make_spec: MakeSpec, sentinel_2: Sensor) -> None:
    with pytest.raises(EncoderError, match=r"model\.weights: is missing"):
        load_encoder(make_spec(model={"encoder": "clay"}), sentinel_2)


@pytest.mark.parametrize("kept", [0, 1, 5000, 0.5, 0.999_999])
def test_a_truncated_file_is_refused(load: Load, golden: Path, tmp_path: Path, kept: float) -> None:
    whole = golden.read_bytes()
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(EncoderError, match=r"cut\.ckpt: is not a PyTorch checkpoint, or is truncated"):
        load(cut)


class _Code:
    """Unpickled by an ordinary loader, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_not_run(load: Load, tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "code.ckpt"
    document = {"state_dict": {}, "callbacks": _Code(trace)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(document))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(EncoderError, match=r"tensors alone|not a PyTorch checkpoint"):
        load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if kind != "pickle" else pickle.loads(path.read_bytes())  # noqa: S301
    assert trace.exists(), "the trap does not work, so the test proves nothing"


def test_damage_anywhere_is_an_error_or_harmless_to_this_process(golden: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = golden.read_bytes()
    damaged = tmp_path / "damaged.ckpt"
    refused = 0
    for n in range(40):
        data = bytearray(whole)
        for place in random.integers(0, 20_000, 3):  # the pickle lies at the start, the directory at the end
            data[place if n % 2 else len(data) - 1 - place] = random.integers(256)
        damaged.write_bytes(data)
        try:
            state = read_checkpoint(damaged)
            _, sizes = build_encoder(state, damaged)
            build_decoder(state, sizes, damaged)
        except EncoderError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"model.encoder.transformer.norm.bias": None}, r"Missing key\(s\).*transformer\.norm\.bias"),
        ({"model.encoder.extra": torch.zeros(1)}, r"Unexpected key\(s\).*extra"),
        ({"model.encoder.cls_token": torch.zeros(1, 1, 104)}, "does not fit Clay"),
        ({"model.encoder.cls_token": torch.zeros(())}, "no transformer like Clay's"),
        ({"model.encoder.cls_token": torch.zeros(1, 1, 96, dtype=torch.int32)}, "dense floating point"),
        ({"model.encoder.cls_token": torch.zeros(1, 1, 96, device="meta")}, "dense floating point"),
        ({"model.encoder.transformer.layers.0.0.to_qkv.weight": torch.zeros(120, 96)}, "attention 40 wide"),
        ({"model.decoder.mask_patch": None}, "which outputs.loss needs"),
    ],
)
def test_another_architecture_is_refused(
    load: Load, changed: Callable[..., Path], tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(EncoderError, match=message):
        load(changed(tensors))


def test_a_checkpoint_of_another_model_is_refused(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "resnet.pt"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, path)
    with pytest.raises(EncoderError, match=r"has no model\.encoder\.cls_token .expected a checkpoint of Clay"):
        load(path)


def test_a_tensor_larger_than_its_file_is_refused_before_it_is_copied(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "expanded.ckpt"
    torch.save({"state_dict": {"model.encoder.cls_token": torch.zeros(1).expand(1, 1, 10**12)}}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(EncoderError, match=r"cls_token of 4,000,000,000,000 bytes in a file of"):
        load(path)


def test_other_weights_than_the_pinned_ones_are_refused_before_they_are_read(load: Load, golden: Path) -> None:
    digest = load(golden).weights_sha256
    assert load(golden, sha256=digest).weights_sha256 == digest
    with pytest.raises(EncoderError, match=f"has the SHA-256 {digest} .expected {'0' * 64}"):
        load(golden, sha256="0" * 64)


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        (Sizes(192, 6, 192, 4, 384), Sizes(96, 3, 96, 2, 192)),
        (Sizes(384, 6, 384, 6, 768), Sizes(192, 4, 256, 4, 384)),
        (Sizes(768, 2, 768, 12, 3072), Sizes(512, 2, 384, 6, 2048)),
        (Sizes(1024, 2, 1024, 16, 4096), Sizes(512, 2, 256, 4, 2048)),
    ],
    ids=["tiny", "small", "base v1.0", "large v1.5"],
)
def test_sizes_are_read_off_the_tensors(
    load: Load, tmp_path: Path, chips: ChipBatch, encoder: Sizes, decoder: Sizes
) -> None:
    """Seeded weights in the published shapes (few layers of the large ones) beside what else Clay's files hold."""
    torch.manual_seed(0)
    parts = {"encoder": ClayEncoder(encoder), "decoder": ClayDecoder(decoder, encoder.dim)}
    state = {f"model.{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    for tensor in state.values():
        torch.nn.init.normal_(tensor, std=0.02)
    state["model.teacher.blocks.0.weight"] = state["model.proj.weight"] = torch.zeros(4)
    path = tmp_path / "sized.ckpt"
    torch.save({"state_dict": state, "optimizer_states": [{"step": 1}], "hyper_parameters": {"lr": 1e-5}}, path)
    clay = load(path)
    assert clay.sizes == encoder
    encoded = clay.encode(ChipBatch(chips.pixels[:2], chips.lon[:2], chips.lat[:2], chips.times[:2], 10.0))
    assert encoded.embeddings.shape == (2, encoder.dim)
    assert np.isfinite(encoded.embeddings).all()
    assert np.isfinite(encoded.loss).all()


def _of_width(path: Path, encoder: Sizes, decoder: Sizes) -> Path:
    """A checkpoint of these sizes with seeded weights."""
    torch.manual_seed(0)
    parts = {"encoder": ClayEncoder(encoder), "decoder": ClayDecoder(decoder, encoder.dim)}
    state = {f"model.{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    for tensor in state.values():
        torch.nn.init.normal_(tensor, std=0.2)
    torch.save({"state_dict": state}, path)
    return path


def test_heads_of_an_unpublished_width_are_stated(load: Load, tmp_path: Path, chips: ChipBatch) -> None:
    path = _of_width(tmp_path / "odd.ckpt", Sizes(120, 2, 120, 5, 240), Sizes(48, 2, 48, 2, 96))
    with pytest.raises(EncoderError, match=r"has attention 120 wide .* State `model\.heads`"):
        load(path)
    with pytest.raises(EncoderError, match=r"model\.heads: is 7 .expected a divisor of 120"):
        load(path, heads=7)
    some = ChipBatch(chips.pixels[:2], chips.lon[:2], chips.lat[:2], chips.times[:2], 10.0)
    made = {heads: load(path, heads=heads) for heads in (5, 3)}
    assert made[5].sizes.heads == 5
    assert made[5].parameters["heads"] == 5  # two numbers of heads never mix in one version
    five, three = (made[heads].encode(some).embeddings for heads in (5, 3))
    assert five.shape == (2, 120)
    assert not np.allclose(five, three)


def test_stated_heads_must_be_those_of_a_published_width(load: Load, golden: Path) -> None:
    assert load(golden, heads=3).sizes.heads == 3
    with pytest.raises(EncoderError, match=r"model\.heads: is 4 .expected 3"):
        load(golden, heads=4)


def test_a_decoder_of_unpublished_width_names_the_way_out(load: Load, tmp_path: Path) -> None:
    path = _of_width(tmp_path / "odd.ckpt", Sizes(96, 2, 96, 3, 192), Sizes(40, 2, 40, 2, 96))
    with pytest.raises(EncoderError, match=r"attention 40 wide .*outputs\.loss: false"):
        load(path)
