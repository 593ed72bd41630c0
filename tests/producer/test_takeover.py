"""The version after: what has not changed is taken over, what was bad is fixed, and the files do not show it."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import rasterio
import shapely
import yaml
from image_server import ImageServer

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.producer.encoders import ChipBatch, Encoded, Encoder, load_encoder
from clay_publish.producer.plan_run import plan
from clay_publish.producer.produce import produce
from clay_publish.release.directory import Release
from clay_publish.release.manifest import write_manifest
from clay_publish.release.versions import check_previous
from clay_publish.spec.load import dump_spec, load_spec
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import sensor


class Counting:
    """An encoder that counts what it embeds."""

    def __init__(self, spec: Spec) -> None:
        self.inner: Encoder = load_encoder(spec, sensor(spec.sensor))
        self.chips = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, chips: ChipBatch) -> Encoded:
        self.chips += len(chips.pixels)
        return self.inner.encode(chips)


@pytest.fixture
def three_days(tmp_path: Path, shared_data: Path) -> Path:
    """A part of the real scene, as images of three days."""
    source = shared_data / "s2_l1c_T18SVG_20160112"
    item = json.loads((source / "item.json").read_text())
    for asset in item["assets"].values():
        asset["href"] = str((source / asset["href"]).resolve())
    items = []
    for day in range(3):
        one = copy.deepcopy(item)
        one["id"] = f"day-{day}"
        one["properties"] |= {
            "start_datetime": f"2016-01-1{day}T00:00:00Z",
            "end_datetime": f"2016-01-1{day}T23:59:59Z",
        }
        items.append(one)
    (tmp_path / "items.json").write_text(json.dumps(items))
    west, south, east, north = shapely.geometry.shape(item["geometry"]).bounds
    middle = shapely.box(west, south, east, north).centroid
    part = middle.buffer((north - south) / 6, cap_style="square")
    (tmp_path / "area.geojson").write_text(shapely.to_geojson(part))
    return tmp_path


def a_spec(folder: Path, version: str, *, layout: str = "scene", **more: Any) -> Spec:
    block = {"stac": "items.json", "sensor": "sentinel-2-l1c", "exclude": more.pop("exclude", [])}
    block["area"] = "area.geojson"
    document = {"name": "days", "version": version, "imagery": block, "chips": {"layout": layout, "size": 128}, **more}
    path = folder / f"release-{version}.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_spec(path)


def make(spec: Spec, folder: Path) -> tuple[Release, int]:
    """A release, and how many chips were embedded for it."""
    release, encoder = Release(str(folder)), Counting(spec)
    produce(spec, release, encoder=encoder)  # type: ignore[arg-type]
    write_manifest(release, "test")
    return release, encoder.chips


def same(left: Release, right: Release, *tables: str) -> None:
    for table in tables:
        files = left.data_files(table)
        assert files == right.data_files(table) != []
        for path in files:
            assert left.store.read(path) == right.store.read(path), path
    assert left.store.read("gaps.geojson") == right.store.read("gaps.geojson")


@pytest.mark.parametrize(("layout", "dtype"), [("utm", "float32"), ("scene", "int8")])
def test_what_has_not_changed_is_taken_over(three_days: Path, layout: str, dtype: str) -> None:
    outputs = {"dtype": dtype}
    if layout == "utm":  # two days are enough for what is slow
        (three_days / "items.json").write_text(json.dumps(json.loads((three_days / "items.json").read_text())[:2]))
    first = a_spec(three_days, "1.0.0", layout=layout, outputs=outputs, exclude=["day-1"])
    before, embedded = make(first, three_days / "1.0.0")
    then = a_spec(three_days, "1.1.0", layout=layout, outputs=outputs, previous="1.0.0")
    after, again = make(then, three_days / "1.1.0")
    fresh, everything = make(a_spec(three_days, "1.1.1", layout=layout, outputs=outputs), three_days / "fresh")
    assert embedded > 0
    assert again == everything - embedded > 0
    same(after, fresh, "embeddings", "coverage")
    assert len(after.data_files()) == len(before.data_files()) + 1


def test_a_version_before_on_a_web_server_is_taken_over(three_days: Path) -> None:
    _, embedded = make(a_spec(three_days, "1.0.0", exclude=["day-1"]), three_days / "1.0.0")
    with ImageServer(three_days) as server:
        then = a_spec(three_days, "1.1.0", previous=f"{server.url}/1.0.0")
        said = plan(then, Release(str(three_days / "1.1.0")))
        after, again = make(then, three_days / "1.1.0")
    assert said.comparison is not None
    assert (said.comparison.stays, said.comparison.fixed) == (2, 1)
    assert said.chips["to_make"] == said.chips["with_imagery"] // 3
    assert again == embedded // 2
    assert len(after.data_files()) == 3


def test_the_plan_says_what_is_new_what_is_mended_and_what_stays(three_days: Path) -> None:
    make(a_spec(three_days, "1.0.0", exclude=["day-1"]), three_days / "1.0.0")
    items = json.loads((three_days / "items.json").read_text())
    items[2]["id"] = "another"
    (three_days / "items.json").write_text(json.dumps(items))
    then = a_spec(three_days, "1.1.0", previous="1.0.0")
    said = plan(then, Release(str(three_days / "1.1.0"))).comparison
    assert said is not None
    assert (said.stays, said.fixed, said.new, said.gone, said.changed) == (1, 1, 1, 1, 0)
    assert said.same_model


def test_a_changed_image_is_made_again(three_days: Path) -> None:
    own = three_days / "imagery"
    items = json.loads((three_days / "items.json").read_text())
    for asset in items[0]["assets"].values():
        source = Path(asset["href"])
        own.mkdir(exist_ok=True)
        if source.is_file():
            shutil.copy2(source, own / source.name)
            asset["href"] = str(own / source.name)
    (three_days / "items.json").write_text(json.dumps(items))
    _, all_chips = make(a_spec(three_days, "1.0.0"), three_days / "1.0.0")
    for file in own.iterdir():
        file.touch()  # the same content
    _, again = make(a_spec(three_days, "1.0.1", previous="1.0.0"), three_days / "1.0.1")
    assert again == 0
    with rasterio.open(own / "B04.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as band:
        band.write(band.read(1) + 1, 1)
    _, again = make(a_spec(three_days, "1.1.0", previous="1.0.0"), three_days / "1.1.0")
    assert again == all_chips // 3


def test_a_damaged_version_before_is_not_taken_over(three_days: Path) -> None:
    before, _ = make(a_spec(three_days, "1.0.0"), three_days / "1.0.0")
    path = three_days / "1.0.0" / before.data_files()[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    then = a_spec(three_days, "1.1.0", previous="1.0.0")
    with pytest.raises(ReleaseError, match="is not what the manifest says"):
        make(then, three_days / "1.1.0")


def test_another_model_takes_nothing_over(three_days: Path) -> None:
    make(a_spec(three_days, "1.0.0"), three_days / "1.0.0")
    other = {"outputs": {"dtype": "float16"}, "previous": "1.0.0"}
    with pytest.raises(SpecError, match="cannot be compared"):
        make(a_spec(three_days, "1.1.0", **other), three_days / "1.1.0")
    fresh, everything = make(a_spec(three_days, "2.0.0", **other), three_days / "2.0.0")
    assert everything > 0
    assert fresh.spec().version == "2.0.0"


@pytest.mark.parametrize("layout", ["utm", "scene"])
def test_a_number_too_small_for_more_chips_is_refused_before_any_is_made(three_days: Path, layout: str) -> None:
    west, south, east, north = shapely.from_geojson((three_days / "area.geojson").read_text()).bounds
    items = json.loads((three_days / "items.json").read_text())
    (three_days / "items.json").write_text(json.dumps(items[:1]))
    quarter = shapely.box(west, south, (west + east) / 2, (south + north) / 2)
    (three_days / "area.geojson").write_text(shapely.to_geojson(quarter))
    make(a_spec(three_days, "1.0.0", layout=layout), three_days / "1.0.0")
    same = a_spec(three_days, "1.0.1", layout=layout, previous="1.0.0")
    plan(same, Release(str(three_days / "same")))  # nothing more, nothing to refuse
    _, again = make(same, three_days / "same")
    assert again == 0

    if layout == "utm":  # more ground of the same image
        (three_days / "area.geojson").write_text(shapely.to_geojson(shapely.box(west, south, east, north)))
    else:  # more images of the same ground
        (three_days / "items.json").write_text(json.dumps(items[:2]))
    then = a_spec(three_days, "1.0.2", layout=layout, previous="1.0.0")
    encoder = Counting(then)
    said = r"1\.0\.2 is too small after 1\.0\.0: there are images now for chips"
    with pytest.raises(SpecError, match=said):
        plan(then, Release(str(three_days / "then")))
    with pytest.raises(SpecError, match=said):
        produce(then, Release(str(three_days / "then")), encoder=encoder)  # type: ignore[arg-type]
    assert encoder.chips == 0
    enough = a_spec(three_days, "1.1.0", layout=layout, previous="1.0.0")
    plan(enough, Release(str(three_days / "enough")))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"aggregate": [2]}, "at least 1.1.0 (minor)"),
        ({"aggregate": [2]}, {}, "at least 2.0.0 (major)"),
        ({}, {"thumbnails": 16}, "at least 2.0.0 (major)"),
        ({"aggregate": [2]}, {"aggregate": [2, 4]}, "at least 1.1.0 (minor)"),
    ],
)
def test_other_tables_ask_for_a_greater_step_before_anything_is_read(
    three_days: Path, before: dict[str, Any], after: dict[str, Any], said: str
) -> None:
    first = a_spec(three_days, "1.0.0", outputs=before)
    Release(str(three_days / "1.0.0")).store.write("release.yaml", dump_spec(first.published()))
    then = a_spec(three_days, "1.0.1", outputs=after, previous="1.0.0")
    with pytest.raises(SpecError) as refused:
        check_previous(then)
    assert said in str(refused.value)
