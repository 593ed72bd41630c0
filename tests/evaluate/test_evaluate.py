"""`clay-publish evaluate`: numbers, folds, refusals, and what it publishes."""

import csv
import hashlib
import json
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zarr
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neighbors import KNeighborsRegressor

from clay_publish.evaluate.comparison import compare
from clay_publish.evaluate.folds import split
from clay_publish.evaluate.samples import FeatureSet, Samples, harmonics
from clay_publish.release.benchmarks import Sampling
from clay_publish.release.directory import Release
from clay_publish.search.points import coordinates, read_points
from clay_publish.search.reader import open_release

Run = Callable[..., object]
LOCAL = ("--block", "0.7", "--buffer", "0.3", "--folds", "4")
"""The sample is 8 km wide."""


@pytest.fixture(scope="module")
def labels(sample_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Places inside chips, with labels that follow from vectors and place, some of them missing."""
    table = open_release(sample_release).chips(columns=["lon", "lat", "embedding"]).read_all()
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float64)
    random = np.random.default_rng(5)
    value = (vectors - vectors.mean(0)) @ random.normal(size=vectors.shape[1])
    value = value / value.std() + 0.1 * random.normal(size=len(value))
    file = tmp_path_factory.mktemp("labels") / "points.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["lon", "lat", "value", "kind", "level"])
        for place, (lon, lat) in enumerate(zip(table["lon"].to_pylist(), table["lat"].to_pylist(), strict=True)):
            kind = "high" if value[place] > 0 else "low"
            rows.writerow([lon + 1e-4, lat - 1e-4, "" if place == 3 else value[place], kind, int(value[place] > 0)])
        rows.writerow([10.0, 50.0, 1.0, "high", 1])
    return file


def _json(made: object) -> dict:  # type: ignore[type-arg]
    return json.loads(made.stdout)  # type: ignore[attr-defined]


def test_numbers_equal_plain_scikit_learn(run: Run, sample_release: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    asked = ("evaluate", sample_release, "--labels", labels, "--target", "value", *LOCAL, "--out", out, "--json")
    found = _json(run(*asked))
    places = pq.read_table(out / "predictions.parquet").to_pydict()
    chips = open_release(sample_release).chips(columns=["id", "embedding"]).read_all().to_pydict()
    vector = dict(zip(chips["id"], chips["embedding"], strict=True))
    x, y = np.array([vector[name] for name in places["chip_id"]], dtype=np.float64), np.array(places["label"])
    x /= np.sqrt(x.var(axis=0).mean())
    lon, lat, fold = (np.array(places[name]) for name in ("lon", "lat", "fold"))
    alphas = [10 ** (step / 2 - 2) for step in range(17)]
    made = {"ridge": lambda: RidgeCV(alphas), "knn": lambda: KNeighborsRegressor(10)}
    for model, build in made.items():
        scores = []
        for number in range(4):
            test = fold == number
            train = np.array([not test[n] and _away(lon, lat, n, test) >= 0.3 for n in range(len(y))])
            assert int(train.sum()) == found["folds"]["train"][number]
            fitted = build().fit(x[train], y[train])
            scores.append(r2_score(y[test], fitted.predict(x[test])))
        result = next(r for r in found["results"] if r["model"] == model and r["dimensions"] == x.shape[1])
        assert result["scores"]["r2"]["folds"] == pytest.approx(scores, abs=1e-5)
        assert result["scores"]["r2"]["mean"] == pytest.approx(float(np.mean(scores)), abs=1e-5)
        assert result["scores"]["r2"]["spread"] == pytest.approx(float(np.std(scores)), abs=1e-5)
    assert found["sampling"]["unlabeled"] == 1
    assert found["sampling"]["too_far"] == 1
    assert found["sampling"]["used"] == len(y) == len(vector) - 1
    for name in ("predicted.png", "residuals.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300


def _away(lon: np.ndarray, lat: np.ndarray, place: int, test: np.ndarray) -> float:
    """Kilometers from a place to the nearest tested one, by the haversine formula."""
    best = math.inf
    for other in np.flatnonzero(test):
        u, v = math.radians(lat[place]), math.radians(lat[other])
        h = math.sin((v - u) / 2) ** 2
        h += math.cos(u) * math.cos(v) * math.sin(math.radians(lon[other] - lon[place]) / 2) ** 2
        best = min(best, 2 * 6371.0088 * math.asin(math.sqrt(h)))
    return best


def test_baselines_and_other_releases_share_the_table(
    run: Run, sample_release: Path, release_copy: Path, labels: Path
) -> None:
    spec = release_copy / "release.yaml"
    spec.write_text(spec.read_text().replace("name: ", "name: other-", 1))
    asked = ("evaluate", sample_release, release_copy, "--labels", labels, "--target", "kind", *LOCAL)
    found = _json(run(*asked, "--json"))
    assert found["task"] == "classification"
    by_model = {(r["features"], r["model"]): r["scores"]["accuracy"]["mean"] for r in found["results"]}
    names = [r["features"] for r in found["results"] if r["model"] == "ridge"]
    assert len(names) == len(set(names)) >= 3
    assert by_model[names[0], "ridge"] == by_model[names[1], "ridge"] > by_model["none", "constant"]
    assert "spherical harmonics of the place" in names
    text = run(*asked).stdout  # type: ignore[attr-defined]
    assert all(name in text for name in names)
    assert "4 folds of blocks of 0.7 km, buffer 0.3 km, seed 0" in text


def test_classification_equals_plain_scikit_learn(run: Run, sample_release: Path, labels: Path, tmp_path: Path) -> None:
    asked = ("evaluate", sample_release, "--labels", labels, "--target", "kind", *LOCAL, "--buffer", "0")
    found = _json(run(*asked, "--out", tmp_path, "--json"))
    places = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    chips = open_release(sample_release).chips(columns=["id", "embedding"]).read_all().to_pydict()
    vector = dict(zip(chips["id"], chips["embedding"], strict=True))
    x, y, fold = (
        np.array([vector[n] for n in places["chip_id"]], dtype=np.float64),
        np.array(places["label"]),
        np.array(places["fold"]),
    )
    x, scores = x / np.sqrt(x.var(axis=0).mean()), []
    for number in range(4):
        train, test = fold != number, fold == number
        model = RidgeClassifierCV([10 ** (step / 2 - 2) for step in range(17)])
        scores.append(accuracy_score(y[test], model.fit(x[train], y[train]).predict(x[test])))
    result = next(r for r in found["results"] if r["model"] == "ridge")
    assert result["scores"]["accuracy"]["folds"] == pytest.approx(scores, abs=1e-5)


def test_integers_need_a_stated_task(run: Run, sample_release: Path, labels: Path) -> None:
    asked = ("evaluate", sample_release, "--labels", labels, "--target", "level", *LOCAL)
    failed = run(*asked, code=2)
    assert "--task classification or --task regression" in failed.stderr  # type: ignore[attr-defined]
    assert _json(run(*asked, "--task", "classification", "--json"))["labels"]["classes"] == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "nothing"), "column nothing: not found in the labels"),
        (("--target", "value", "--block", "50"), "Pass a smaller --block KM"),
        (("--target", "value", "--buffer", "50"), "Pass a smaller --buffer KM"),
        (("--target", "value", "--task", "guess"), "regression or classification"),
    ],
)
def test_unusable_questions_are_refused(
    run: Run, sample_release: Path, labels: Path, options: tuple[str, ...], words: str
) -> None:
    failed = run("evaluate", sample_release, "--labels", labels, *options, code=2)
    assert words in failed.stderr  # type: ignore[attr-defined]


def test_card_publishes_the_result(run: Run, release_copy: Path, labels: Path, tmp_path: Path) -> None:
    asked = ("evaluate", release_copy, "--labels", labels, "--target", "value", *LOCAL, "--card", "--json")
    found = _json(run(*asked))
    document = json.loads((release_copy / "benchmarks.json").read_text())
    assert document == {"format": 1, "benchmarks": [found]}
    card = (release_copy / "README.md").read_text()
    score = found["results"][1]["scores"]["r2"]
    assert f"| {score['mean']:.3f} ± {score['spread']:.3f} |" in card.partition("\n## Evaluation\n")[2]
    collection = json.loads((release_copy / "collection.json").read_text())
    assert [link["href"] for link in collection["links"] if link["rel"] == "emb:benchmark"] == ["./benchmarks.json"]
    assert "benchmarks" in collection["assets"]
    assert "benchmarks.json" in (release_copy / "SHA256SUMS").read_text()
    run("validate", release_copy)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in release_copy.rglob("*") if path.is_file()}
    run(*asked)  # the same comparison replaces itself
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in release_copy.rglob("*") if path.is_file()}
    assert after == before
    run(*asked[:5], "kind", *asked[6:])
    assert len(json.loads((release_copy / "benchmarks.json").read_text())["benchmarks"]) == 2

    run("publish", release_copy, "--to", tmp_path / "product")
    for published in (release_copy, tmp_path / "product" / Release(str(release_copy)).spec().version):
        failed = run("evaluate", published, *asked[2:], code=2)
        assert "is published at" in failed.stderr  # type: ignore[attr-defined]
        assert "Cut a patch version" in failed.stderr  # type: ignore[attr-defined]


@pytest.mark.slow
def test_rerun_keeps_benchmarks_and_arrays_name_them(run: Run, labels: Path, tmp_path: Path) -> None:
    run("sample", tmp_path / "first", cwd=tmp_path)
    spec, out = tmp_path / "first" / "release.yaml", tmp_path / "release"
    document = yaml.safe_load(spec.read_text())
    document["imagery"]["windows"] = ["2016-01-01/2016-02-01"]
    document["outputs"] = {**document.get("outputs", {}), "arrays": True}
    spec.write_text(yaml.safe_dump(document))
    run("run", spec, "--out", out, cwd=tmp_path)
    run("evaluate", out, "--labels", labels, "--target", "value", *LOCAL, "--card")
    store = out / "arrays" / "arrays.zarr"
    root = zarr.open_group(store, mode="r")
    for group in (root, root["utm18"], zarr.open_group(store / "utm18", mode="r")):
        assert group.attrs["geoemb:benchmark"] == ["../../benchmarks.json"]
    assert "no findings" in run("validate", out).stdout  # type: ignore[attr-defined]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and ".run" not in path.parts}
    run("run", spec, "--out", out, cwd=tmp_path)
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and ".run" not in path.parts}
    assert after == before


@pytest.fixture
def with_thumbnails(release_copy: Path) -> Path:
    """The sample whose chips have thumbnails of one color and a black left half, by their place in the table."""
    for path in (release_copy / "embeddings").rglob("*.parquet"):
        table = pq.read_table(path)
        pictures = [_picture(place) for place in range(len(table))]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": each, "path": None} for each in pictures], kind)
        pq.write_table(table.append_column("thumbnail", column), path)
    return release_copy


def _picture(place: int) -> bytes:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, 4:] = [place % 200, place // 200, 255 - place % 200]
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_thumbnails_are_a_baseline(run: Run, with_thumbnails: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    asked = ("evaluate", with_thumbnails, "--labels", labels, "--target", "value", *LOCAL, "--out", out, "--json")
    found = _json(run(*asked))
    ridge, knn = (r for r in found["results"] if r["features"] == "band means and deviations of thumbnails")
    assert (ridge["dimensions"], ridge["model"], knn["model"]) == (6, "ridge", "knn")
    chips = open_release(with_thumbnails).chips(columns=["id", "thumbnail"]).read_all().to_pylist()
    pixels = {c["id"]: np.asarray(Image.open(BytesIO(c["thumbnail"]["bytes"])), dtype=float) for c in chips}
    places = pq.read_table(out / "predictions.parquet").to_pydict()
    x = np.array([[*pixels[n].mean((0, 1)), *pixels[n].std((0, 1))] for n in places["chip_id"]])
    x, y = x / np.sqrt(x.var(axis=0).mean()), np.array(places["label"])
    lon, lat, fold = (np.array(places[name]) for name in ("lon", "lat", "fold"))
    scores = []
    for number in range(4):
        test = fold == number
        train = np.array([not test[n] and _away(lon, lat, n, test) >= 0.3 for n in range(len(y))])
        fitted = RidgeCV([10 ** (step / 2 - 2) for step in range(17)]).fit(x[train], y[train])
        scores.append(r2_score(y[test], fitted.predict(x[test])))
    assert ridge["scores"]["r2"]["folds"] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("target", ["meanT", "meanP"])
def test_place_alone_predicts_the_climate_of_real_stations(shared_data: Path, target: str) -> None:
    """Harmonics on the stations of SatCLIP, which no image at hand covers: what embeddings would have to beat."""
    table = read_points(str(shared_data / "labels_latlon" / "satclip_stationDataAll.csv"))
    lon, lat = coordinates(table)
    value = table[target].to_numpy().astype(np.float64)
    features = (FeatureSet("harmonics", harmonics(lon, lat)),)
    sampling = Sampling(used=len(lon), unlabeled=0, too_far=0, limit_m=1, median_m=0, farthest_m=0)
    samples = Samples(lon, lat, value, "regression", np.arange(len(lon)).astype(str), features, sampling, side_m=1)
    folds = split(samples)
    assert (folds.block_km, folds.count) == (500, 5)
    made = {result.model: result.scores["r2"] for result in compare(samples, folds).results}
    assert made["constant"].mean < 0.05
    assert made["ridge"].mean > (0.8 if target == "meanT" else 0)
    x = features[0].values / np.sqrt(features[0].values.var(axis=0).mean())
    scores = []
    for number in range(5):
        test, train = folds.fold == number, folds.train[number]
        assert min(_away(lon, lat, int(n), test) for n in np.flatnonzero(train)[:20]) >= folds.buffer_km
        fitted = RidgeCV([10 ** (step / 2 - 2) for step in range(17)]).fit(x[train], value[train])
        scores.append(r2_score(value[test], fitted.predict(x[test])))
    assert made["ridge"].folds == pytest.approx(scores, abs=1e-5)
