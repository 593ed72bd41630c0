import copy
import functools
import json
import math
import operator
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clay_publish.errors import SpecError
from clay_publish.geo.area import parse_area
from clay_publish.spec.load import dump_spec, load_spec, resolve_spec
from clay_publish.spec.models import Spec

Run = Callable[..., subprocess.CompletedProcess[str]]

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
        ({"chips": {"size": 0}}, r"chips.size: found 0 .expected a number of at least 8"),
        ({"chips": {"size": "large"}}, r"chips.size: found 'large'"),
        ({"chips": {"size": "9" * 5000}}, r"chips.size: found '9+.* .expected a whole number of ordinary size"),
        ({"run": {"stop_after_findings": math.nan}}, r"stop_after_findings: found nan .expected a finite number"),
        ({"previous": "x" * 5000}, r"previous: 'x+.*cannot be a path .File name too long"),
        ({"title": "\ud800"}, r"title: found .* .expected text in Unicode"),
        ({"chips": {"layout": "scene", "gsd": 10}}, "gsd belongs to the utm layout"),
        ({"version": "1.0"}, "expected a semantic version such as 1.0.0"),
        ({"name": "Has Spaces"}, "name: found 'Has Spaces' .expected 1 to 96 of a-z"),
        ({"imagery": {"stac": "no.json", "sensor": "s"}}, r"no\.json not found"),
        ({"imagery": {"sensor": "s"}}, "expected `stac`, or `major_tom`; found neither"),
        ({"imagery": {"stac": "item.json", "sensor": "s", "area": "no.geojson"}}, r"no\.geojson not found"),
        (
            {"imagery": {"stac": "item.json", "sensor": "s", "area": [1, 2, 3, -4]}},
            "west, south, east, north in degrees",
        ),
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


ODD = (None, [], {}, [[]], True, -1, 10**400, math.nan, math.inf, "", "9" * 5000, "\ud800", b"\xff", "2026-13-45")


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
def test_an_odd_value_of_any_key_is_accepted_or_one_error(
    tmp_path: Path, smallest: dict[str, Any], value: object
) -> None:
    whole = load(tmp_path, smallest).model_dump(mode="json")
    refused = 0
    for place in places(whole):
        changed = copy.deepcopy(whole)
        functools.reduce(operator.getitem, place[:-1], changed)[place[-1]] = value
        try:
            resolve_spec(changed, where="release.yaml", folder=tmp_path)
        except SpecError:
            refused += 1
    assert refused


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Where the values of a document are: keys and numbers that lead there."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (key,)
        yield from ((key, *rest) for rest in places(each))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "is not YAML"),
        (b"name: [a\ntitle: x\n", r"release.yaml:2: is not YAML \(expected ',' or '\]', but got ':'\)"),
        (b"name: a\nchips: {64, !!int x}\n", "is not YAML"),
        (b"- a\n- b\n", "holds list .expected keys and values"),
        (b"name: \xff", "is not UTF-8"),
        (b"", "holds NoneType"),
        (b"a: &x [*x]\n" + b"name: !!python/object/apply:os.system [true]\n", "is not YAML"),
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
        ({"type": "Point", "coordinates": [0, 0]}, "holds a Point .expected polygons"),
        ({**SQUARE, "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}, "is not valid"),
        ({**SQUARE, "coordinates": [[[0, 0], [500, 0], [500, 1], [0, 1], [0, 0]]]}, "degrees"),
        ({"type": "FeatureCollection", "features": []}, "is empty"),
        ({"type": "Polygon"}, "is not a GeoJSON geometry"),
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


def test_all_errors_are_listed_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text("{}")
    (tmp_path / "release.yaml").write_text(
        "nam: x\nlicense: CC-BY4.0\nimagery:\n  stac: item.json\n  sensor: naip\n  windows:\n"
        "    - 2023-13-01/2023-12-01\nchips:\n  sise: 3\n"
    )
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path / "release.yaml")
    lines = str(raised.value).splitlines()
    assert "has 4 errors" in lines[0]
    assert "release.yaml:1: nam: is an unknown key. Did you mean 'name'?" in lines[1]
    assert "release.yaml:2: license: found 'CC-BY4.0'" in lines[2]
    assert "Did you mean CC-BY-4.0?" in lines[2]
    assert "release.yaml:7: imagery.windows[0]: '2023-13-01' is not a day or time that exists. Write START" in lines[3]
    assert "release.yaml:9: chips.sise: is an unknown key. Did you mean 'size'?" in lines[4]


_WRONG = """\
name: x
license: CC-BY4
version: 1.0
creators:
  - {name: Ada, orcid: 0000-0002-1825-0098}
imagery:
  stac: item.json
  sensor: sentinel-2-l2a
  area: [200, 0, 1, 2]
  windows: [2016-01, 2017-02-01/2017-01-01]
publish: {source_coop: mine}
"""


def test_the_command_line_lists_all_errors(tmp_path: Path, run: Run) -> None:
    def said(text: str, *options: str) -> list[str]:
        (tmp_path / "release.yaml").write_text(text)
        return run("plan", *options, cwd=tmp_path, code=2).stderr.splitlines()

    expected = (
        "error: release.yaml: has 7 errors.",
        "  release.yaml:2: license: found 'CC-BY4' (expected an identifier of the SPDX license list, ",
        "  release.yaml:3: version: found 1.0 (expected text). Write it in quotes.",
        "  release.yaml:5: creators[0].orcid: found '0000-0002-1825-0098', whose check digit is wrong (expected 7 at",
        "  release.yaml:9: imagery.area: found [200.0, 0.0, 1.0, 2.0] (expected west, south, east, north in degrees, ",
        "  release.yaml:10: imagery.windows[0]: '2016-01' is not an interval. Write START/END as YYYY-MM-DD/",
        "  release.yaml:10: imagery.windows[1]: the window 2017-02-01T00:00:00+00:00/2017-01-01T00:00:00+00:00 ends ",
        "  release.yaml:11: publish.source_coop: found 'mine' (expected ACCOUNT/PRODUCT).",
    )
    for line, beginning in zip(said(_WRONG), expected, strict=True):
        assert line.startswith(beginning)
    assert said(_WRONG)[1].endswith("or LicenseRef-NAME for own terms). Did you mean CC-BY-4.0?")
    missing = said("name: x\nimagery:\n  - stac: [a.json, b.json]\n    sensor: naipp\n    area: c.geojson\n")
    assert "has 3 errors" in missing[0]
    assert "release.yaml:4: imagery[0].sensor: 'naipp' is unknown. Did you mean 'naip'?" in missing[1]
    assert f"release.yaml:3: imagery[0].stac: {tmp_path}/a.json, {tmp_path}/b.json not found" in missing[2]
    assert f"release.yaml:5: imagery[0].area: {tmp_path}/c.geojson not found" in missing[3]
    assert "release.yaml:3: name: is a duplicate key (first on line 1)" in said("name: a\nchips: {}\nname: b\n")[0]


def test_every_duplicate_key_is_refused_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "release.yaml").write_text("name: a\nchips:\n  size: 64\n  size: 128\n")
    with pytest.raises(SpecError, match=r"release.yaml:4: chips.size: is a duplicate key \(first on line 3\)"):
        load_spec(tmp_path / "release.yaml")
    (tmp_path / "release.yaml").write_text("name: a\nchips:\n  size: 64\n  size: 128\nname: b\nname: c\n")
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path / "release.yaml")
    text = str(raised.value)
    assert "has 3 errors" in text
    assert "release.yaml:4: chips.size" in text
    assert "release.yaml:5: name: is a duplicate key (first on line 1)" in text
    assert "release.yaml:6: name: is a duplicate key (first on line 1)" in text


def test_a_day_that_does_not_exist_is_one_error_among_others(tmp_path: Path, smallest: dict[str, Any]) -> None:
    text = yaml.safe_dump(smallest, sort_keys=False) + "released: 2026-13-01\nlicense: CCBY4\n"
    (tmp_path / "release.yaml").write_text(text)
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path / "release.yaml")
    line = text.splitlines().index("released: 2026-13-01") + 1
    assert f"release.yaml:{line}: released: found '2026-13-01' (expected a day that exists" in str(raised.value)
    assert f"release.yaml:{line + 1}: license: found 'CCBY4'" in str(raised.value)
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(smallest))
    with pytest.raises(SpecError, match="released: found '2026-02-30'"):
        load_spec(tmp_path / "release.yaml", ["released=2026-02-30"])
    assert str(load_spec(tmp_path / "release.yaml", ["released=2026-02-28"]).released) == "2026-02-28"
    with pytest.raises(SpecError, match=r"released: found '2026-1-5' \(expected .* as YYYY-MM-DD"):
        load_spec(tmp_path / "release.yaml", ["released=2026-1-5"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("CC-BY-4.0", None),
        ("LicenseRef-our-terms", None),
        ("cc-by-4.0", "Did you mean CC-BY-4.0?"),
        ("CCBY", "SPDX license list"),
        ("LicenseRef-", "SPDX license list"),
    ],
)
def test_license_is_an_spdx_identifier(tmp_path: Path, smallest: dict[str, Any], text: str, fault: str | None) -> None:
    if fault is None:
        assert load(tmp_path, {**smallest, "license": text}).license == text
        return
    with pytest.raises(SpecError) as raised:
        load(tmp_path, {**smallest, "license": text})
    assert fault in str(raised.value)


def test_the_check_digit_of_an_orcid_is_verified(tmp_path: Path, smallest: dict[str, Any]) -> None:
    good = {"name": "Ada", "orcid": "https://orcid.org/0000-0002-1694-233X"}
    assert load(tmp_path, {**smallest, "creators": [good]}).creators[0].orcid == good["orcid"]
    with pytest.raises(SpecError, match="check digit"):
        load(tmp_path, {**smallest, "creators": [{"name": "Ada", "orcid": "0000-0002-1825-0098"}]})


def test_keys_are_overridden_from_the_command_line(tmp_path: Path, smallest: dict[str, Any]) -> None:
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(smallest))
    path = tmp_path / "release.yaml"
    spec = load_spec(path, ["chips.size=256", "imagery.sensor=naip", "outputs.aggregate=[2, 4]"])
    assert (spec.chips.size, spec.sensor, spec.outputs.aggregate) == (256, "naip", [2, 4])
    for wrong, message in (
        ("chips.size", "is not an assignment"),
        ("name.x=1", "is not a key of the spec"),
        ("chips.sice=1", "Did you mean 'size'"),
        ("imagery.stac.0.x=1", "is not a key of the spec"),
    ):
        with pytest.raises(SpecError, match=message):
            load_spec(path, [wrong])
