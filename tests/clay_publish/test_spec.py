import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from clay_publish.errors import SpecError
from clay_publish.geo.area import parse_area
from clay_publish.spec.load import dump_spec, load_spec
from clay_publish.spec.models import Spec

WITHIN = "2023-02-01/2023-02-02"
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]}


@pytest.fixture
def smallest(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "item.json").write_text("{}")
    return {"name": "a", "imagery": {"stac": "item.json", "sensor": "sentinel-2-l2a"}}


def load(folder: Path, document: Any) -> Spec:
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    return load_spec(folder / "release.yaml")


def test_five_lines_are_enough(tmp_path: Path, smallest: dict[str, Any]) -> None:
    spec = load(tmp_path, smallest)
    assert (spec.version, spec.license, spec.chips.layout, spec.chips.size) == ("1.0.0", "CC-BY-4.0", "utm", 128)
    assert spec.imagery[0].stac == [str(tmp_path / "item.json")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": "x"}, r"nam: is an unknown key\. Did you mean 'name'\?"),
        ({"chips": {"sice": 128}}, r"chips.sice: is an unknown key\. Did you mean 'size'\?"),
        (
            {"imagery": {"stac": "item.json", "sensor": "s", "zzz": 1}},
            r"imagery.*zzz: is an unknown key\. Known keys: ",
        ),
        ({"chips": {"size": 0}}, r"chips.size: found 0; expected .*greater than or equal to 8"),
        ({"chips": {"size": "large"}}, r"chips.size: found 'large'"),
        ({"chips": {"layout": "scene", "gsd": 10}}, "gsd belongs to the utm layout"),
        ({"version": "1.0"}, "expected a semantic version such as 1.0.0"),
        ({"name": "Has Spaces"}, "name: found 'Has Spaces'; expected 1 to 96 of a-z"),
        ({"imagery": {"stac": "no.json", "sensor": "s"}}, r"no\.json does not exist"),
        ({"imagery": {"sensor": "s"}}, r"imagery.*stac: is missing\. Add it"),
        ({"imagery": {"stac": "item.json", "sensor": "s", "area": "no.geojson"}}, r"no\.geojson does not exist"),
        ({"imagery": {"stac": "item.json", "sensor": "s", "area": [1, 2, 3, -4]}}, "is no bbox"),
        (
            {
                "imagery": {
                    "stac": "item.json",
                    "sensor": "s",
                    "windows": ["2023-01-01/2023-03-01", WITHIN],
                }
            },
            "overlap",
        ),
        ({"imagery": {"stac": "item.json", "sensor": "s", "windows": ["2023-02-01/2023-01-01"]}}, "ends before"),
        ({"imagery": [{"stac": "item.json", "sensor": s} for s in ("a", "b")]}, "a release has one"),
        ({"outputs": {"dtype": "float8"}}, "outputs.dtype: found 'float8'"),
        ({"model": {"sha256": "abc"}}, "model.sha256"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_the_way_out(
    tmp_path: Path, smallest: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        load(tmp_path, {**smallest, **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "is no YAML"),
        (b"- a\n- b\n", "holds list; expected keys and values"),
        (b"name: \xff", "is not UTF-8"),
        (b"", "holds NoneType"),
        (b"a: &x [*x]\n" + b"name: !!python/object/apply:os.system [true]\n", "is no YAML"),
    ],
)
def test_what_is_no_spec_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "release.yaml").write_bytes(content)
    with pytest.raises(SpecError, match=message):
        load_spec(tmp_path / "release.yaml")


def test_a_missing_spec_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="`clay-publish init` writes one"):
        load_spec(tmp_path / "release.yaml")


def test_an_area_file_is_inlined_and_exclusions_are_read(tmp_path: Path, smallest: dict[str, Any]) -> None:
    (tmp_path / "aoi.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": SQUARE}))
    (tmp_path / "bad.txt").write_text("one  # cloudy\n\n# all of it\ntwo\n")
    smallest["imagery"] |= {"area": "aoi.geojson", "exclude": ["three", "bad.txt"]}
    block = load(tmp_path, smallest).imagery[0]
    assert isinstance(block.area, dict)
    assert parse_area(block.area).equals(parse_area(SQUARE))
    assert block.exclude == ["three", "one", "two"]


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ({"type": "Point", "coordinates": [0, 0]}, "holds a Point; expected polygons"),
        ({**SQUARE, "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}, "is not valid"),
        ({**SQUARE, "coordinates": [[[0, 0], [500, 0], [500, 1], [0, 1], [0, 0]]]}, "degrees"),
        ({"type": "FeatureCollection", "features": []}, "is empty"),
        ({"type": "Polygon"}, "is no GeoJSON geometry"),
        ([], "expected a GeoJSON object"),
    ],
)
def test_an_area_that_is_none_is_refused(area: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_area(area)


def test_the_published_spec_holds_no_path_no_credentials_no_signature(tmp_path: Path, smallest: dict[str, Any]) -> None:
    smallest["imagery"]["stac"] = ["item.json", "https://user:hunter2@host/a/item.json?sig=abc#x"]
    smallest["model"] = {"encoder": "clay", "weights": "weights/clay.ckpt"}
    spec = load(tmp_path, smallest)
    text = dump_spec(spec.published())
    assert spec.published()["imagery"][0]["stac"] == ["item.json", "https://host/a/item.json"]
    assert spec.published()["model"]["weights"] == "clay.ckpt"
    assert not [secret for secret in (str(tmp_path), "hunter2", "abc") if secret in text]
    assert Spec.model_validate(yaml.safe_load(text)).published() == spec.published()


def test_a_misspelt_key_is_named_before_the_one_that_is_missing_for_it(tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text("{}")
    (tmp_path / "release.yaml").write_text("nam: x\nimagery: {stac: item.json, sensor: naip}\n")
    with pytest.raises(SpecError, match=r"nam: is an unknown key.* Did you mean 'name'"):
        load_spec(tmp_path / "release.yaml")
