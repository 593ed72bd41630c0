"""Reuse, chip by chip: the plan prices what the run computes, and the files are those of a version from scratch."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from affine import Affine
from pyproj import Transformer

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.producer.execution import reuse
from clay_publish.producer.execution import run as units
from clay_publish.producer.execution import unit as unit_module
from clay_publish.producer.plan_run import plan
from clay_publish.producer.planning.image_files import identify_files
from clay_publish.producer.planning.previous_version import PreviousVersion
from clay_publish.producer.produce import produce
from clay_publish.producer.unit_plan import read_inputs
from clay_publish.progress import silent
from clay_publish.release.directory import Release
from clay_publish.release.manifest import write_manifest
from clay_publish.release.unit_receipts import read_receipts
from clay_publish.spec.load import load_spec
from clay_publish.spec.models import Outputs

from .conftest import write_item, write_tif

Run = Callable[..., subprocess.CompletedProcess[str]]

SIDE = 384
"""Pixels of an image: 36 chips of 64."""
WEST, NORTH = 498_000, 4_100_000  # the images lie across the border of two 100 km squares


@dataclass
class Version:
    """What a maintainer changes between two versions."""

    folder: Path
    area: tuple[float, float, float, float] = (0, 0, 1, 1)
    """West, south, east, north as shares of the ground of all images."""
    images: dict[str, tuple[float, float, str, int]] = field(default_factory=dict)
    """Offset to the east and south in meters, day, and seed of the pixels."""
    exclude: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=lambda: ["2016-01-01/2016-02-01"])

    def write(self, name: str, layout: str, **more: Any) -> Path:
        for image, (east, south, day, seed) in self.images.items():
            rng = np.random.default_rng(seed)
            pixels = rng.integers(200, 4000, (4, SIDE, SIDE), dtype=np.uint16)
            pixels[:, : SIDE // 3, : SIDE // 3] = 0  # chips without data
            pixels[:, SIDE // 3 : SIDE // 2, : SIDE // 3] = 0 if seed % 2 else 1500
            transform = Affine(10, 0, WEST + east, 0, -10, NORTH - south)
            write_tif(self.folder / f"{image}.tif", pixels, transform, "EPSG:32631", nodata=0)
            path = self.folder / f"{image}.json"
            write_item(
                path,
                {"rgbnir": {"href": f"{image}.tif"}},
                datetime=f"{day}T10:00:00Z",
                **{"eo:cloud_cover": 90 - 10 * seed},
            )
        items = [json.loads((self.folder / f"{image}.json").read_text()) for image in self.images]
        collection = {"type": "FeatureCollection", "features": items}
        (self.folder / f"{name}.json").write_text(json.dumps(collection))
        to_degrees = Transformer.from_crs(32631, 4326, always_xy=True)
        corners = [
            to_degrees.transform(WEST + 8000 * self.area[x], NORTH - 8000 * (1 - self.area[y]))
            for x, y in ((0, 1), (2, 3))
        ]
        imagery = {
            "stac": f"{name}.json",
            "sensor": "sentinel-2-rgbnir",
            "area": [*corners[0], *corners[1]],
            "exclude": self.exclude,
            "windows": self.windows,
        }
        if layout == "composite":
            imagery["composite"] = {"method": "mean", "images": 2}
        chips = {"layout": layout.replace("composite", "utm"), "size": 64}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": "reuse", "imagery": imagery, "chips": chips, **more}))
        return path


def first(folder: Path) -> Version:
    """Two images of one acquisition that overlap, and one of another day over a part of both."""
    images = {
        "left": (0, 0, "2016-01-12", 1),
        "right": (2560, 640, "2016-01-12", 2),
        "over": (1280, 1920, "2016-01-20", 3),
    }
    return Version(folder, (0.1, 0.1, 0.6, 0.9), images)


def grown(version: Version) -> None:
    version.area = (0.1, 0.1, 0.9, 0.9)


def shrunk(version: Version) -> None:
    version.area = (0.1, 0.3, 0.4, 0.9)


def shifted(version: Version) -> None:
    version.area = (0.3, 0.0, 0.8, 0.8)


def corrected(version: Version) -> None:
    version.images["over"] = (*version.images["over"][:3], 5)


def added(version: Version) -> None:
    version.images["late"] = (640, 640, "2016-01-25", 7)


def removed(version: Version) -> None:
    del version.images["right"]


def excluded(version: Version) -> None:
    version.exclude = ["left"]


def dated(version: Version) -> None:
    version.images["later"] = (640, 640, "2016-02-10", 9)
    version.windows = [*version.windows, "2016-02-01/2016-03-01"]


def make(spec: Path, out: Path) -> tuple[Release, int]:
    """A release, and how many chips its run computed."""
    release = Release(str(out))
    produce(load_spec(spec), release)
    write_manifest(release, "test")
    return release, sum(receipt.computed for receipt in read_receipts(release).values())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Release]:
    """The first version in a layout, made when it is first asked for; its images are those of `first(folder)`."""

    @cache
    def get(layout: str) -> Release:
        folder = tmp_path_factory.mktemp(layout)
        return make(first(folder).write("first", layout), folder / "1.0.0")[0]

    return get


def assert_same_data(release: Release, fresh: Release) -> None:
    for table in ("embeddings", "coverage"):
        files = fresh.data_files(table)
        assert release.data_files(table) == files != []
        assert all(release.store.read(path) == fresh.store.read(path) for path in files)
    for path in ("gaps.geojson", "reference.parquet"):
        assert release.store.read(path) == fresh.store.read(path)


def _cases() -> Iterator[Any]:
    """Every change in one layout; in the others one that computes, and one that takes away; the rest is slow."""
    for change in (grown, shrunk, shifted, corrected, added, removed, excluded, dated):
        for layout in ("utm", "scene", "composite"):
            marks = () if layout == "utm" or change in {grown, removed} else pytest.mark.slow
            yield pytest.param(change, layout, id=f"{change.__name__}-{layout}", marks=marks)


@pytest.mark.parametrize(("change", "layout"), list(_cases()))
def test_the_plan_prices_what_is_computed_and_bytes_are_those_from_scratch(
    tmp_path: Path, published: Callable[[str], Release], layout: str, change: Callable[[Version], None]
) -> None:
    before = published(layout)
    version = first(Path(before.store.where).parent)
    change(version)
    cost = {"chips_per_hour": 3600, "usd_per_hour": 1}
    then = version.write("then", layout, version="1.1.0", previous=before.store.where, cost=cost)
    said = plan(load_spec(then), Release(str(tmp_path / "1.1.0")))
    after, computed = make(then, tmp_path / "1.1.0")
    fresh, everything = make(version.write("fresh", layout, version="1.1.0"), tmp_path / "fresh")
    assert said.chips["to_make"] == computed
    assert said.usd == pytest.approx(computed / 3600)
    assert said.chips["reused"] + computed == everything
    assert computed < everything
    assert (computed == 0) == (change is shrunk or (layout == "scene" and change in {removed, excluded}))
    assert_same_data(after, fresh)
    assert before.data_files()


@pytest.mark.parametrize(
    ("reused", "layout"),
    [
        (True, "utm"),
        (False, "scene"),
        pytest.param(True, "scene", marks=pytest.mark.slow),  # other pairs of the same two
        pytest.param(False, "utm", marks=pytest.mark.slow),
    ],
)
def test_the_plan_of_a_release_that_was_begun_prices_what_is_left(
    tmp_path: Path, layout: str, reused: bool, run: Run
) -> None:
    version, more = first(tmp_path), {}
    if reused:
        make(version.write("first", layout), tmp_path / "1.0.0")
        grown(version)
        dated(version)  # so that units are computed in both shares
        more = {"version": "1.1.0", "previous": str(tmp_path / "1.0.0")}
    cost = {"chips_per_hour": 3600, "usd_per_hour": 1}
    spec = version.write("then", layout, cost=cost, **more)
    release = Release(str(tmp_path / "release"))
    common = (spec, "--out", tmp_path / "release")
    whole = plan(load_spec(spec), release)
    run("produce", *common, "--unit", "1/2", "--quiet")
    left = plan(load_spec(spec), release)
    assert left.chips["done"] > 0 < left.chips["to_make"]
    assert left.chips["done"] + left.chips["to_make"] == whole.chips["to_make"]
    assert left.chips["reused"] == whole.chips["reused"]
    assert bool(left.chips["reused"]) == reused
    assert left.usd == pytest.approx(left.chips["to_make"] / 3600)
    # What was spent counts: there is enough for the rest alone.
    enough = left.usd + left.spent_usd
    assert not plan(load_spec(spec, [f"cost.budget_usd={enough + 1e-6:.9f}"]), release).over_budget
    refused = run("plan", *common, "--set", f"cost.budget_usd={enough - left.spent_usd / 2:.9f}", code=1).stdout
    assert f"done        {left.chips['done']} chips by earlier runs for $" in refused
    assert f"; to compute: {left.chips['to_make']}\n" in refused
    assert "OVER BUDGET: $" in refused
    assert json.loads(run("produce", *common, "--json").stdout)["computed"] == left.chips["to_make"]
    finished = plan(load_spec(spec, ["cost.budget_usd=1e-9"]), release)
    assert finished.chips["to_make"] == finished.usd == 0
    assert not finished.over_budget
    other = plan(load_spec(spec, ["chips.max_nodata=0.25"]), release).warnings[-1]
    assert other.startswith(f"`run` refuses this: {tmp_path / 'release'}: was begun with another plan")


def test_an_image_that_does_not_say_where_it_lies_is_priced_as_it_is_computed(tmp_path: Path) -> None:
    version = first(tmp_path)
    spec = version.write("first", "utm")
    collection = json.loads((tmp_path / "first.json").read_text())
    over = next(item for item in collection["features"] if item["id"] == "over")
    over |= {"geometry": None}
    over.pop("bbox", None)
    for holder in (over["properties"], *over["assets"].values()):
        for name in [name for name in holder if name.startswith("proj:")]:
            del holder[name]
    (tmp_path / "first.json").write_text(json.dumps(collection))
    release = Release(str(tmp_path / "release"))
    planned = plan(load_spec(spec), release).chips
    _, computed = make(spec, tmp_path / "release")
    left = plan(load_spec(spec), release).chips
    assert planned["to_make"] == left["done"] >= computed > 0
    assert left["to_make"] == 0


@pytest.mark.parametrize("layout", ["utm", "composite"])
def test_an_image_that_fails_in_the_second_pass_gives_no_reference(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another image takes its place there, whose vector is not that of the release."""
    spec, image = first(tmp_path).write("first", layout), tmp_path / "left.tif"
    whole, times = image.read_bytes(), (image.stat().st_atime_ns, image.stat().st_mtime_ns)
    real = units.keep_reference

    def put(data: bytes) -> None:
        image.write_bytes(data)
        os.utime(image, ns=times)

    def keep_reference(*arguments: Any, **more: Any) -> None:
        put(whole[:600] + bytes(len(whole) - 600))
        real(*arguments, **more)
        put(whole)

    with monkeypatch.context() as patch:
        patch.setattr(units, "keep_reference", keep_reference)
        make(spec, tmp_path / "release")
    release, _ = make(spec, tmp_path / "release")  # which computes those that are missing
    vectors = {
        row["id"]: row["embedding"]
        for path in release.data_files()
        for row in pq.read_table(tmp_path / "release" / path, columns=["id", "embedding"]).to_pylist()
    }
    kept = pq.read_table(tmp_path / "release" / "reference.parquet").to_pylist()
    assert kept
    for row in kept:
        np.testing.assert_allclose(row["embedding"], vectors[row["id"]], atol=1e-4)


@pytest.mark.parametrize(
    "layout",
    ["utm", "scene", pytest.param("composite", marks=pytest.mark.slow)],  # which has the units of `utm`
)
def test_what_a_damaged_image_decides_is_made_again_and_not_reused(tmp_path: Path, layout: str, run: Run) -> None:
    spec, image = first(tmp_path).write("first", layout), tmp_path / "over.tif"
    fresh, _ = make(spec, tmp_path / "fresh")
    whole, times = image.read_bytes(), (image.stat().st_atime_ns, image.stat().st_mtime_ns)

    def put(data: bytes) -> None:
        """Only reading tells that it is another: size and time stay."""
        image.write_bytes(data)
        os.utime(image, ns=times)

    put(whole[:600] + bytes(len(whole) - 600))
    common = (spec, "--out", tmp_path / "release", "--json")
    said = run("produce", *common, code=1)
    assert json.loads(said.stdout)["missing"]["unreadable"] > 0
    assert json.loads(run("status", tmp_path / "release", "--json", code=1).stdout)["units"]["failed"] > 0
    release = Release(str(tmp_path / "release"))
    write_manifest(release, "test")

    put(whole)
    then = load_spec(spec, ["version=1.1.0", f"previous={release.store.where}"])
    reused = Release(str(tmp_path / "1.1.0"))
    planned = plan(then, reused).chips
    produce(then, reused)
    assert planned["to_make"] == sum(each.computed for each in read_receipts(reused).values()) > 0
    assert_same_data(reused, fresh)

    estimate = plan(load_spec(spec, ["cost.usd_per_hour=1"]), release)
    left, receipts = estimate.chips, read_receipts(release).values()
    assert 0 < left["to_make"] == left["with_imagery"] - left["done"]
    # What a unit cost that is made again was spent, and stays with its next receipt.
    before = {receipt.unit: receipt.seconds for receipt in receipts}
    assert estimate.spent_usd == pytest.approx(sum(before.values()) / 3600)
    failed = {receipt.unit for receipt in receipts if receipt.error is not None}
    assert json.loads(run("produce", *common).stdout)["computed"] == left["to_make"]
    after = {receipt.unit: receipt.seconds for receipt in read_receipts(release).values()}
    assert failed
    assert all(after[unit] > before[unit] for unit in failed)
    assert_same_data(release, fresh)
    assert not list((tmp_path / "release" / ".run" / "parts").glob("*/*_*.arrow"))


@pytest.mark.parametrize("lost", ["sources.parquet", "coverage", "release.yaml", ""])
def test_a_version_before_that_cannot_be_read_is_an_error_of_the_plan(tmp_path: Path, lost: str) -> None:
    version = first(tmp_path)
    before, _ = make(version.write("first", "utm"), tmp_path / "1.0.0")
    for path in before.files():
        if path.startswith(lost):
            before.store.remove(path)
    then = load_spec(version.write("then", "utm", version="1.1.0", previous=str(tmp_path / "1.0.0")))
    with pytest.raises((ReleaseError, SpecError)):
        plan(then, Release(str(tmp_path / "1.1.0")))


def test_rules_that_decide_chips_differ_and_nothing_is_reused(tmp_path: Path) -> None:
    version = first(tmp_path)
    make(version.write("first", "utm"), tmp_path / "1.0.0")
    rules = {"layout": "utm", "size": 64, "max_nodata": 0.5}
    then = version.write("then", "utm", version="1.1.0", previous=str(tmp_path / "1.0.0"))
    document = yaml.safe_load(then.read_text()) | {"chips": rules}
    then.write_text(yaml.safe_dump(document))
    said = plan(load_spec(then), Release(str(tmp_path / "1.1.0")))
    _, computed = make(then, tmp_path / "1.1.0")
    assert said.chips["reused"] == 0
    assert said.chips["to_make"] == computed > 0


def test_receipts_hold_few_ids_of_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (unit_module, reuse):
        monkeypatch.setattr(module, "SHOWN", 1)
    version = first(tmp_path)
    make(version.write("first", "utm"), tmp_path / "1.0.0")
    make(version.write("then", "utm", version="1.1.0", previous=str(tmp_path / "1.0.0")), tmp_path / "1.1.0")
    for folder, computed in (("1.0.0", True), ("1.1.0", False)):
        receipts = read_receipts(Release(str(tmp_path / folder))).values()
        assert any(receipt.computed for receipt in receipts) == computed
        assert all(len(receipt.items) == min(receipt.images, 1) for receipt in receipts)
        assert max(receipt.images for receipt in receipts) == 3


def test_patches_are_always_computed(tmp_path: Path) -> None:
    version = first(tmp_path)
    make(version.write("first", "utm"), tmp_path / "1.0.0")
    spec = load_spec(version.write("then", "utm", version="1.1.0", previous=str(tmp_path / "1.0.0")))
    release = Release(str(tmp_path / "1.1.0"))
    inputs = read_inputs(spec, report=silent)
    identify_files(release, inputs.selection.considered, inputs.sensor)
    assert PreviousVersion(inputs).split(inputs.plan()).reused > 0
    with_patches = replace(inputs, spec=spec.model_copy(update={"outputs": Outputs(patches=True)}))
    assert PreviousVersion(with_patches).split(inputs.plan()).reused == 0
