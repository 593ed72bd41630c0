"""An encoder that is exported here, and used without a line of code for it."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from clay_publish.errors import EncoderError, MissingExtraError
from clay_publish.producer.encoders import ChipBatch, Encoder, load_encoder
from clay_publish.producer.encoders.weights import find_weights
from clay_publish.spec.models import ModelSpec, Spec
from clay_publish.spec.sensors import Sensor

MakeSpec = Callable[..., Spec]

SETTINGS = {
    "name": "Four-band patches",
    "link": "https://example.org/four-bands",
    "dimensions": 24,
    "size": 64,
    "bands": [{"name": "nir", "mean": 2000, "std": 1500}, {"name": "red"}, {"name": "green"}, {"name": "blue"}],
    "batch": 5,
}


class _Model(nn.Module):
    """A small network that sees four bands."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(4, 16, 8, 8)
        self.head = nn.Linear(32, 24)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.relu(self.patches(pixels))
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        return self.head(pooled), seen


@pytest.fixture(scope="module")
def model() -> _Model:
    return _Model().eval()


@pytest.fixture(scope="module")
def exported(model: _Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model as `.pt2` and `.onnx`, each with its YAML."""
    folder = tmp_path_factory.mktemp("exported")
    example = (torch.zeros(5, 4, 64, 64),)
    torch.export.save(torch.export.export(model, example), folder / "four.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(model, example, folder / "whole.onnx", dynamo=True, external_data=False, verbose=False)
        torch.onnx.export(model, example, folder / "split.onnx", dynamo=True, external_data=True, verbose=False)
    for name in ("four", "whole", "split"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


@pytest.fixture
def load(make_spec: MakeSpec, sentinel_2: Sensor) -> Callable[..., Encoder]:
    def load_from(path: Path, size: int = 64, outputs: dict[str, Any] | None = None, **model: Any) -> Encoder:
        if path.suffix == ".pt2" and path.exists() and "sha256" not in model:
            model["sha256"] = find_weights(ModelSpec(encoder="exported", weights=str(path))).sha256
        model = {"encoder": "exported", "weights": str(path), **model}
        return load_encoder(make_spec(model=model, chips={"size": size}, outputs=outputs or {}), sentinel_2)

    return load_from


@pytest.fixture
def four_bands(chips: ChipBatch, sentinel_2: Sensor) -> ChipBatch:
    """The chips as this encoder wants them: nir normalized its own way, then red, green, blue as the sensor says."""
    names = [b.name for b in sentinel_2.bands]
    pixels = chips.pixels[:, [names.index(n) for n in ("nir", "red", "green", "blue")]].copy()
    nir = sentinel_2.band("nir")
    pixels[:, 0] = (pixels[:, 0] * nir.std + nir.mean - 2000) / 1500
    return ChipBatch(pixels, chips.lon, chips.lat, chips.times, chips.gsd)


@pytest.mark.parametrize("file", ["four.pt2", "whole.onnx"])
def test_it_gives_what_the_model_gives(
    load: Callable[..., Encoder], exported: Path, model: _Model, four_bands: ChipBatch, file: str
) -> None:
    encoder = load(exported / file)
    with torch.inference_mode():
        expected = model(torch.from_numpy(four_bands.pixels))[0].numpy()
    vectors = encoder.encode(four_bands).embeddings
    assert np.abs(vectors - expected).max() < 1e-5
    assert (
        np.abs(encoder.encode(replace(four_bands, pixels=four_bands.pixels[[7, 2]])).embeddings - vectors[[7, 2]]).max()
        < 1e-5
    )
    assert (encoder.model_name, encoder.dimensions) == ("Four-band patches", 24)
    assert [(b.name, b.mean) for b in encoder.bands] == [("nir", 2000), ("red", 1552), ("green", 1355), ("blue", 1105)]
    assert encoder.weights_sha256 == find_weights(ModelSpec(weights=str(exported / file))).sha256


def test_a_program_that_is_not_pinned_is_not_opened(load: Callable[..., Encoder], exported: Path) -> None:
    digest = find_weights(ModelSpec(weights=str(exported / "four.pt2"))).sha256
    with pytest.raises(EncoderError, match=f"does not pin it .expected model.sha256: {digest}"):
        load(exported / "four.pt2", sha256=None)


def test_weights_outside_the_hashed_file_are_refused(
    load: Callable[..., Encoder], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported)  # where the runtime would look for them
    assert (exported / "split.onnx.data").exists()
    with pytest.raises(EncoderError, match="weights lie in this one file"):
        load(exported / "split.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": [{"name": "thermal"}]}, "takes band 'thermal' .expected one of blue, green"),
        ({"size": 128}, r"chips\.size: is 64 .expected 128"),
        ({"dimensions": 32}, r"gives vectors of shape \(5, 24\) .expected \(5, 32\)"),
        ({"bands": [{"name": "red"}]}, r"does not run on chips of shape \(5, 1, 64, 64\)"),
        ({"dimension": 24}, "is wrong \\(dimension: "),
        ({"bands": [{"name": "red", "std": 0}]}, r"is wrong \(bands\.0\.std: "),
    ],
)
def test_what_does_not_fit_is_said_before_a_pixel_is_read(
    load: Callable[..., Encoder], exported: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "whole.onnx"
    path.write_bytes((exported / "whole.onnx").read_bytes())
    path.with_suffix(".yaml").write_text(yaml.safe_dump({**SETTINGS, **change}))
    with pytest.raises(EncoderError, match=message):
        load(path)


def test_a_missing_yaml_is_named(load: Callable[..., Encoder], exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "alone.onnx"
    path.write_bytes((exported / "whole.onnx").read_bytes())
    with pytest.raises(EncoderError, match=r"alone\.yaml: cannot be read"):
        load(path)


@pytest.mark.parametrize("name", ["four.pt2", "whole.onnx"])
def test_a_truncated_file_is_refused(load: Callable[..., Encoder], exported: Path, tmp_path: Path, name: str) -> None:
    whole = (exported / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) // 2])
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.raises(EncoderError, match="cannot be opened"):
        load(path)


@pytest.mark.parametrize("outputs", [{"loss": True}, {"patches": True}])
def test_what_it_does_not_have_is_refused(
    load: Callable[..., Encoder], exported: Path, outputs: dict[str, Any]
) -> None:
    with pytest.raises(EncoderError, match="not something that an exported encoder has"):
        load(exported / "whole.onnx", outputs=outputs)


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "onnxruntime", None)
        yield


@pytest.mark.usefixtures("without_onnxruntime")
def test_without_onnxruntime_the_extra_is_named(load: Callable[..., Encoder], exported: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'clay-publish\[onnx\]'"):
        load(exported / "whole.onnx")
