"""The list of rules, and choosing among them."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from breakage import Broken
from write_rules import DOCS, PAGES

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import Release
from clay_publish.release.findings import Severity
from clay_publish.validate import GROUPS, SAMPLE, all_rules, validate
from clay_publish.validate.checks import check_release
from clay_publish.validate.data.footprints import Footprints
from clay_publish.validate.rules.outputs import explorer


def test_codes_are_stable_and_every_rule_says_why_and_what_to_do() -> None:
    codes = [rule.code for rule in all_rules()]
    assert len(codes) == len(set(codes))
    for rule in all_rules():
        assert re.fullmatch(r"[A-Z]{3}\d{3}", rule.code)
        assert rule.code[:3] in GROUPS
        assert rule.title, rule.code
        assert rule.reason.endswith("."), rule.code
        assert rule.fix.endswith((".", "?")), rule.code


@pytest.mark.parametrize("name", PAGES)
def test_the_docs_are_those_of_the_rules(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `python tests/validate/write_rules.py`"


def test_only_and_skip_take_codes_and_groups(good: Callable[[str], Path]) -> None:
    report = validate(Release(str(good("small"))), only=("TIM", "VEC001"), skip=("TIM003",))
    assert set(report.checked) == {"VEC001", *(f"TIM{n:03}" for n in (1, 2, 4, 5, 6, 7, 8, 9, 10))}


def test_an_unknown_rule_is_refused_and_the_nearest_named(good: Callable[[str], Path]) -> None:
    with pytest.raises(ReleaseError, match="Did you mean COV001"):
        validate(Release(str(good("small"))), only=("CVO001",))


def test_a_folder_without_embeddings_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    (finding,) = validate(Release(str(tmp_path))).findings
    assert finding.code == "ANY001"
    assert finding.found.startswith("holds no embeddings")


def test_what_was_not_checked_says_why_and_never_passes(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    (release.folder / "sources.parquet").unlink()
    report = validate(Release(str(release.folder)))
    for code in ("GEO008", "GEO011", "TIM003", "COV001", "PRV006"):
        assert report.checked[code].startswith("not checked: sources.parquet does not exist"), code


def test_columns_that_follow_from_the_spec_are_not_checked_without_one(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    release.yaml("release.yaml", lambda spec: spec.update(licens="CC0-1.0"))
    assert check_columns(release)["SCH001"].startswith("not checked: release.yaml is not a release spec")
    (release.folder / "release.yaml").unlink()
    assert check_columns(release)["SCH001"].startswith("not checked: release.yaml does not exist")
    release.change(release.data, lambda table: table.drop_columns(["lon"]))
    assert check_columns(release)["SCH001"] == "failed"


def check_columns(release: Broken) -> dict[str, str]:
    return validate(Release(str(release.folder)), only=("SCH001",)).checked


def test_windows_that_the_summary_does_not_list_are_counted(
    broken: Callable[[str], Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = broken("full")
    first = release.table(release.coverage)["window_start"][0].as_py()
    days = [first + timedelta(days=number) for number in range(6)]
    for name, starts in (("window_start", days[:5]), ("window_end", days[1:])):
        release.column(name, lambda values, some=starts: (some * len(values))[: len(values)], release.coverage)
    monkeypatch.setattr(explorer, "_LISTED", 2)
    number = len(release.table(release.coverage))
    counts = [len(range(place, number, 5)) for place in range(2)]
    stamps = [day.strftime("%Y-%m-%dT%H:%M:%SZ") for day in days]
    windows = [
        {"start": stamps[place], "end": stamps[place + 1], "expected": count, "embedded": count}
        for place, count in enumerate(counts)
    ]
    size = (release.folder / release.coverage).stat().st_size
    release.json("explore/release.json", lambda d: d["coverage_files"][0].update(size=size))
    for more, wrong in ((3, ""), (4, "more_windows"), (0, "more_windows"), (3, "windows: 1")):
        if wrong == "windows: 1":
            windows[1]["embedded"] -= 1
        release.json("explore/release.json", lambda d, n=more: d.update(windows=windows, more_windows=n))
        findings = check_release(release.release, only=("EXP001",), sample=SAMPLE).findings
        assert [finding.where for finding in findings] == ([f"explore/release.json: {wrong}"] if wrong else [])


@pytest.mark.parametrize("course", [(0, 1, 0), (0, 1, 1), (0, 0, 1)])
def test_a_river_along_a_strip_of_chips_is_not_rows_that_moved(
    course: tuple[int, ...], broken: Callable[[str], Broken]
) -> None:
    release = broken("large")
    release.column("row", lambda values: [number // 3 for number in range(len(values))])
    release.column("col", lambda values: [number % 3 for number in range(len(values))])
    draw = np.random.default_rng(3)

    def ground(vectors: np.ndarray) -> np.ndarray:
        water = np.array(course)[np.arange(len(vectors)) % 3]
        kinds = draw.normal(0, 2, (2, vectors.shape[1]))
        return (kinds[water] + draw.normal(0, 0.3, vectors.shape)).astype(vectors.dtype)

    release.vectors(ground)
    assert check_release(release.release, only=("VEC024",), sample=SAMPLE).checked == {"VEC024": "passed"}


def test_a_sample_is_said_and_finds_what_lies_in_it(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    report = validate(Release(str(release.folder)), only=("GEO012",), sample=10)
    assert re.fullmatch(r"passed on \d+ of \d+ chips", report.checked["GEO012"])


def test_every_bad_row_is_counted_and_the_first_named(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    release.column("valid_fraction", lambda values: [2.0 if 3 <= n < 40 else v for n, v in enumerate(values)])
    (finding,) = validate(Release(str(release.folder)), only=("VEC006",)).findings
    assert finding.severity is Severity.ERROR
    assert "row 3 (" in finding.where
    assert "37 of" in finding.found


def test_many_files_with_one_fault_do_not_drown_the_report(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    for number in range(30):
        (release.folder / f"stray-{number}.txt").write_text("x")
    findings = validate(Release(str(release.folder)), only=("INT002",)).findings
    assert len(findings) == 21
    assert findings[-1].found == "10 more like these"


@pytest.mark.parametrize("far", [(-180, -90, 180, 90), (-179, 89, 179, 90), (-179, 70, 179, 71)])
def test_footprints_around_the_earth_hold_a_pole_or_are_not_cut(far: tuple[float, ...], tmp_path: Path) -> None:
    boxes = [shapely.box(n / 10, 0, n / 10 + 0.1, 0.1) for n in range(15)]
    vectors = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    columns = {"id": [str(n) for n in range(16)], "embedding": list(vectors)}
    table = geopandas.GeoDataFrame(columns, geometry=[*boxes, shapely.box(*far)], crs="EPSG:4326")
    table.to_parquet(tmp_path / "a.parquet")
    assert validate(Release(str(tmp_path)), only=("GEO006",)).checked["GEO006"] == "failed"


def test_near_a_pole_the_center_in_degrees_is_one_too() -> None:
    shapes = [shapely.box(10, 89.4, 10.25, 89.65), shapely.box(10, 50, 11, 51), shapely.box(-180, 89, 180, 90)]
    prints = Footprints(pa.array(shapely.to_wkb(shapes).tolist(), pa.binary()))
    np.testing.assert_allclose(prints.center_in_degrees[0], (10.125, 89.525))
    assert np.isnan(prints.center_in_degrees[1:]).all()
