"""Encoders that take time steps: an encoder exported here, parts of a window, and images in the order of time."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from clay_publish.catalog import write_collection, write_items
from clay_publish.catalog.file_items import items_of
from clay_publish.errors import EncoderError, SpecError
from clay_publish.producer.encoders import ChipBatch, Encoder, load_encoder
from clay_publish.producer.encoders.base import Steps
from clay_publish.spec.load import resolve_spec
from clay_publish.windows import Window

from .cloudy import BANDS, YEAR, Cloudy, cloudy
from .test_composite import S2, SIZE, chosen, expected, made_of, read

STEPS = 4
SETTINGS = {
    "name": "Seasons",
    "link": "https://example.org/seasons",
    "dimensions": 16,
    "size": SIZE,
    "bands": [{"name": name} for name in BANDS],
    "batch": 3,
    "steps": STEPS,
}


class _Seasons(nn.Module):
    """Pools what it sees of each step that is there, with the month it is of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.months = nn.Embedding(13, 8)
        self.patches = nn.Conv2d(len(BANDS), 8, 8, 8)
        self.head = nn.Linear(16, 16)

    def forward(self, pixels: torch.Tensor, dates: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.patches(pixels.flatten(0, 1))).mean((2, 3)).unflatten(0, pixels.shape[:2])
        steps = torch.cat([seen, self.months(dates[..., 1])], dim=-1) * there[..., None]
        return self.head(steps.sum(1) / there.sum(1, keepdim=True).clamp(min=1))


class _Blind(nn.Module):
    """Takes pixels alone."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((1, 3, 4))


@pytest.fixture(scope="module")
def model() -> _Seasons:
    return _Seasons().eval()


@pytest.fixture(scope="module")
def weights(model: _Seasons, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`model` of a spec: the exported file, its hash and its steps."""
    path = tmp_path_factory.mktemp("seasons") / "seasons.pt2"
    example = (
        torch.zeros(3, STEPS, len(BANDS), SIZE, SIZE),
        torch.ones(3, STEPS, 3, dtype=torch.int64),
        torch.ones(3, STEPS, dtype=torch.bool),
    )
    torch.export.save(torch.export.export(model, example), path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SETTINGS))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"encoder": "exported", "weights": str(path), "sha256": digest, "steps": STEPS}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Cloudy:
    """Seven dates: in the last quarter there is one, and it is all cloud."""
    scene = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    found = cloudy(tmp_path_factory.mktemp("cloudy"), scene, dates=8, cover=0.3)
    return Cloudy(found.truth, found.dates[:6], found.transform)


@pytest.mark.slow  # a model is exported
def test_an_onnx_file_takes_steps(model: _Seasons, weights: dict[str, Any], tmp_path: Path) -> None:
    """Of a batch with steps that are there and not, and one that is filled up."""
    names, kinds = ("pixels", "dates", "there"), (torch.float32, torch.int64, torch.bool)
    shapes = ((3, STEPS, len(BANDS), SIZE, SIZE), (3, STEPS, 3), (3, STEPS))
    example = tuple(torch.ones(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))
    path, blind = tmp_path / "seasons.onnx", tmp_path / "blind.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        options: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False}
        torch.onnx.export(model, example, path, input_names=names, **options)
        torch.onnx.export(_Blind(), example[:1], blind, input_names=names[:1], **options)
    for each in (path, blind):
        each.with_suffix(".yaml").write_text(yaml.safe_dump(SETTINGS))

    def load(asked: dict[str, Any]) -> Encoder:
        imagery = {"stac": "https://example.org/items.json", "sensor": S2.key, "windows": [YEAR]}
        document = {"name": "test", "imagery": imagery, "chips": {"size": SIZE, "layout": "utm"}, "model": asked}
        return load_encoder(resolve_spec(document, where="spec", folder=tmp_path), S2)

    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(4, *shapes[0][1:])).astype(np.float32)
    dates = rng.integers(1, 13, (4, STEPS, 3))
    there = rng.random((4, STEPS)) < 0.6
    where = np.zeros(4)
    batch = ChipBatch(pixels, where, where, [], 10.0, Steps(there=there, dates=dates))
    asked = {"encoder": "exported", "weights": str(path), "steps": STEPS}
    vectors = load(asked).encode(batch).embeddings
    np.testing.assert_allclose(vectors, load(weights).encode(batch).embeddings, atol=1e-5)
    assert np.ptp(vectors, axis=0).min() > 0
    with pytest.raises(EncoderError, match="the file takes 1 inputs, pixels; it would get 3"):
        load({**asked, "weights": str(blind)})


def test_each_part_of_the_window_is_a_composite(year: Cloudy, weights: dict[str, Any]) -> None:
    asked = {"method": "median", "images": 2, "min_valid": 1}
    parts = Window.parse(YEAR).split(STEPS)
    assert [str(part) for part in parts][:2] == ["2023-01-01/2023-04-01", "2023-04-01/2023-07-01"]
    of_parts = [Cloudy(year.truth, [d for d in year.dates if d.moment in part], year.transform) for part in parts]
    count = 0
    for block in read(year, asked, model=weights, chips={"max_nodata": 0.3}):
        made = [n for n, reason in enumerate(block.reasons) if reason is None]
        assert isinstance(block.steps, Steps)
        assert block.pixels.shape[1:] == (STEPS, len(BANDS), SIZE, SIZE)
        for place, n in enumerate(made):
            window = year.window(int(block.rows[n]), int(block.cols[n]), SIZE)
            for step, scenes in enumerate(of_parts):
                clear = [date.clear[window] for date in chosen(scenes, window, 2, parts[step])]
                there = bool(clear) and np.logical_or.reduce(clear).mean() >= 0.7 - 1e-6
                assert block.steps.there[n, step] == there
                middle = parts[step].middle
                assert block.steps.dates[n, step].tolist() == [middle.year, middle.month, middle.day]
                wanted = (
                    expected(scenes, window, method="median", most=2, least=1, period=parts[step])
                    if there
                    else np.zeros_like(block.pixels[place, step])
                )
                np.testing.assert_array_equal(block.pixels[place, step], wanted)
                count += not there
    assert count > 5, "steps that chips lack"


def test_the_best_images_in_the_order_of_time(year: Cloudy, weights: dict[str, Any]) -> None:
    asked = {"method": "best", "images": STEPS}
    mean = np.array([band.mean for band in S2.bands], np.float32)[:, None, None]
    std = np.array([band.std for band in S2.bands], np.float32)[:, None, None]
    middle, count = Window.parse(YEAR).middle, 0
    for block in read(year, asked, model=weights, chips={"max_nodata": 0, "max_cloud": 0.4}):
        assert block.steps is not None
        assert block.combined is not None
        for place, n in enumerate(n for n, reason in enumerate(block.reasons) if reason is None):
            window = year.window(int(block.rows[n]), int(block.cols[n]), SIZE)
            under = {d.id: float((d.scl[window] == 9).mean()) for d in year.dates}
            fit = [d for d in year.dates if (d.values[(0, *window)] > 0).all() and under[d.id] <= 0.4]
            best = sorted(fit, key=lambda d: (under[d.id], abs((d.moment - middle).total_seconds()), d.id))[:STEPS]
            best = sorted(best, key=lambda d: d.moment)
            there = block.steps.there[n].tolist()
            assert there == [True] * len(best) + [False] * (STEPS - len(best))
            for step, date in enumerate(best):
                wanted = (date.values[(slice(None), *window)].astype(np.float32) - mean) / std
                np.testing.assert_array_equal(block.pixels[place, step], wanted)
                moment = date.moment
                assert block.steps.dates[n, step].tolist() == [moment.year, moment.month, moment.day]
            combined = block.combined[n]
            assert combined is not None
            assert combined.images == len(best)
            count += not all(there)
    assert count > 0, "chips of fewer images"


def test_a_release_of_series(year: Cloudy, weights: dict[str, Any], model: _Seasons, tmp_path: Path) -> None:
    composite = {"method": "mean", "images": 2}
    made = made_of(tmp_path, year.items, model=weights, imagery={"windows": [YEAR], "composite": composite})
    table = made.embeddings
    assert table.num_rows > 20
    vectors = {(row["row"], row["col"]): np.array(row["embedding"], np.float32) for row in table.to_pylist()}
    count = 0
    for block in read(year, composite, model=weights, chips={"max_nodata": 0.1}):
        assert block.steps is not None
        for place, n in enumerate(n for n, reason in enumerate(block.reasons) if reason is None):
            given = (block.pixels[place], block.steps.dates[n], block.steps.there[n])
            with torch.inference_mode():
                (vector,) = model(*(torch.from_numpy(each)[None] for each in given)).numpy()
            np.testing.assert_allclose(vectors[int(block.rows[n]), int(block.cols[n])], vector, atol=1e-5)
            count += 1
    assert count == table.num_rows
    write_items(made.release)
    write_collection(made.release)
    (item,) = items_of(made.release)
    stated = item["properties"]["emb:runtime_parameters"]
    assert stated["steps"] == STEPS
    assert stated["composite"].endswith("in each of 4 parts of the window")
    resolution = made.release.json("collection.json")["emb:temporal_resolution"]
    assert resolution.startswith("one embedding per chip and window, from the mean of at most 2 acquisitions in each")


def test_steps_are_refused_where_the_model_takes_others(year: Cloudy, weights: dict[str, Any], tmp_path: Path) -> None:
    imagery = {"windows": [YEAR]}
    with pytest.raises(EncoderError, match="is 5 \\(expected 4, as the YAML of Seasons says"):
        made_of(tmp_path, year.items, model={**weights, "steps": 5}, imagery=imagery)
    with pytest.raises(EncoderError, match="is missing \\(expected 4"):
        made_of(tmp_path, year.items, model={**weights, "steps": None}, imagery=imagery)
    with pytest.raises(SpecError, match="needs encoder exported; clay takes one image"):
        made_of(tmp_path, year.items, model={"encoder": "clay", "steps": 4}, imagery=imagery)
    best = {"method": "best", "images": 3}
    with pytest.raises(SpecError, match="expected 4, one per step"):
        made_of(tmp_path, year.items, model=weights, imagery={**imagery, "composite": best})
