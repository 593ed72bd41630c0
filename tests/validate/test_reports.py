"""Reports for people and for CI, of good releases and of broken ones whose texts are hostile."""

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import unquote

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from breakage import Broken
from browser import axe, look, needed
from mutations_anybody import write_foreign
from write_rules import DOCS

from clay_publish.release.directory import Release
from clay_publish.release.findings import FindingPlace, GroundMap, Measures, Outline, Severity, ValidationReport
from clay_publish.validate import all_rules, reports, validate
from clay_publish.validate.reports.html import maps
from clay_publish.validate.reports.measures import eastward, first_degree

Run = Callable[..., "CompletedProcess[str]"]
SCRIPT = "<script>window.hacked=1</script><img src=http://127.0.0.1:9/x onerror=window.hacked=1>"
SCHEMA = DOCS / "validation-report.schema.json"


def hurt(release: Broken) -> None:
    """Gaps, faults and texts that a browser would run."""
    table = release.table(release.coverage)
    rows = table.to_pylist()
    shapes = dict(zip(*[release.table(release.data)[name].to_pylist() for name in ("id", "geometry")], strict=True))
    features = []
    for number, row in enumerate(rows):
        if number % 3 == 0:
            row.update(status="missing", reason="cloud" if number % 2 else SCRIPT)
            outline = shapely.geometry.mapping(shapely.from_wkb(shapes[row["id"]]))
            said = {"reason": row["reason"], "window": f"{SCRIPT} 2016", "chips": 1}
            features.append({"type": "Feature", "geometry": outline, "properties": said})
    release.put(release.coverage, pa.Table.from_pylist(rows, table.schema))
    (release.folder / "gaps.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    collection = json.loads((release.folder / "collection.json").read_text())
    collection |= {"license": f'"><svg onload=window.hacked=1>{SCRIPT}', "title": SCRIPT}
    (release.folder / "collection.json").write_text(json.dumps(collection))
    release.value("valid_fraction", 0, 7.0)


@pytest.fixture
def bad(broken: Callable[..., Broken]) -> ValidationReport:
    release = broken("small")
    hurt(release)
    return validate(Release(str(release.folder)), skip=("RDR",))


def test_json_is_as_its_published_schema_says(good: Callable[[str], Path], bad: ValidationReport, run: Run) -> None:
    schema = json.loads(SCHEMA.read_text())
    for report in (
        json.loads(run("validate", good("small"), "--json", "--quiet").stdout),
        json.loads(bad.model_dump_json()),
    ):
        jsonschema.validate(report, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"where": "x", "findings": [{}], "checked": {}}, schema)


@pytest.mark.slow
def test_files_are_written_where_they_are_asked_for(good: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    names = {kind: tmp_path / f"report.{kind}" for kind in ("html", "junit", "sarif")}
    run("validate", good("small"), "--quiet", *(part for kind, path in names.items() for part in (f"--{kind}", path)))
    assert "Valid: nothing is wrong" in names["html"].read_text()
    run("validate", good("small"), "--quiet", "--html", tmp_path / "nowhere" / "x.html", code=2)


def test_junit_has_a_case_a_rule_and_fails_from_the_threshold_on(bad: ValidationReport) -> None:
    suite = ET.fromstring(reports.junit(bad, all_rules()))  # noqa: S314 - our own
    cases = {case.get("name", "")[:6]: case for case in suite}
    assert cases.keys() == bad.checked.keys()
    failed = {code for code, case in cases.items() if case.find("failure") is not None}
    assert failed == {f.code for f in bad.at_or_above(Severity.ERROR)}
    assert int(suite.get("failures", "")) == len(failed) > 2
    # As the schema says that Jenkins' xUnit plugin publishes; GitLab and GitHub's actions read the same.
    assert set(suite.attrib) == {"name", "hostname", "tests", "failures", "errors", "skipped"}
    for case in suite:
        assert set(case.attrib) == {"classname", "name", "time"}
        for part in case:
            assert (part.tag, *part.attrib) in {("failure", "type", "message"), ("skipped", "message"), ("system-out",)}
    skipped = {code for code, case in cases.items() if case.find("skipped") is not None}
    assert skipped == {code for code, state in bad.checked.items() if state.startswith("not checked")}


def test_sarif_places_each_finding_at_its_file(bad: ValidationReport) -> None:
    document = json.loads(reports.sarif(bad, all_rules()))
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    assert len(run["results"]) == len(bad.findings)
    for result, finding in zip(run["results"], bad.findings, strict=True):
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == finding.code
        (place,) = result["locations"]
        assert unquote(place["physicalLocation"]["artifactLocation"]["uri"]) == finding.where.split(": ")[0]


def test_sarif_is_as_its_schema_says(good: Callable[[str], Path], bad: ValidationReport) -> None:
    """The schema comes from npm's @microsoft/jest-sarif."""
    file = os.environ.get("SARIF_SCHEMA")
    schema = json.loads(Path(needed(file, "schema of SARIF 2.1.0 (SARIF_SCHEMA names the file)")).read_text())
    for report in (bad, validate(Release(str(good("small"))), only=("VEC",))):
        jsonschema.validate(json.loads(reports.sarif(report, all_rules())), schema)


def test_measures_count_the_gaps(bad: ValidationReport) -> None:
    assert bad.measures is not None
    missing = {m.reason: m.chips for m in bad.measures.missing}
    assert set(missing) == {"cloud", SCRIPT[:120]}
    assert sum(missing.values()) == len(bad.measures.outlines)
    assert sum(bad.measures.distributions["norm"].counts) == bad.measures.chips
    assert "similarity" in bad.measures.distributions


_BAD_TEXT = "document.body.innerText.includes('<script>window.hacked=1')"
_NARROW = "document.documentElement.scrollWidth <= innerWidth"
_AXE = "axe.run().then(r => r.violations.filter(v => ['serious','critical'].includes(v.impact)).map(v => v.id))"
_ORDER = "[...document.querySelectorAll('h1,h2')].map(e => e.textContent)"


@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desktop"])
@pytest.mark.parametrize("kind", ["good", "bad"])
def test_the_page_in_a_browser(
    kind: str, size: tuple[int, int], good: Callable[[str], Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    report = request.getfixturevalue("bad") if kind == "bad" else validate(Release(str(good("small"))), skip=("RDR",))
    page = tmp_path / "report.html"
    page.write_text(reports.html(report, all_rules()), encoding="utf-8")
    scripts = ["typeof window.hacked", _NARROW, _BAD_TEXT, _ORDER, f"{axe()};{_AXE}"]
    requests, results = look(page, scripts, size, tmp_path / "profile")
    hacked, narrow, shown, order, violations = results
    assert requests == [page.as_uri()]
    assert hacked == "undefined"
    assert narrow
    assert violations == []
    assert order[0].startswith("Not valid: " if kind == "bad" else "Valid: nothing is wrong")
    assert order[1:4] == ["Findings", "Ground and gaps", "Distributions"]
    assert shown == (kind == "bad")


def test_a_quick_look_and_an_empty_report_say_so() -> None:
    def first(**parts: Any) -> str:
        made = {"where": "x", "findings": [], "checked": {"VEC001": "passed"}} | parts
        return (
            reports.html(ValidationReport.model_validate(made), all_rules()).partition("<h1")[2].partition("</h1>")[0]
        )

    assert "quick look" in first(quick=True)
    assert "Not validated" in first(checked={"VEC001": "not checked: nothing there"})


def test_what_follows_from_a_changed_file_is_below_it(broken: Callable[..., Broken], run: Run) -> None:
    release = broken("small")
    release.vectors(lambda v: v * float("nan"))  # and the checksums stay
    said = run("validate", release.folder, "--quiet", "--skip", "DOC021", code=1).stdout.splitlines()
    assert next(line.split()[1] for line in said if line.startswith("error")) == "INT003"
    followers = [line for line in said if line.startswith("  follows: error")]
    assert {"INT004", "VEC001"} <= {line.split()[2] for line in followers}
    assert not any(line.startswith("error   VEC001") for line in said)
    page = reports.html(validate(Release(str(release.folder))), all_rules())
    assert "May follow from it" in page
    assert 'class="finding"' in page
    assert 'href="https://clay-foundation.github.io/clay-publish/rules/#int004"' in page


def test_a_kind_of_finding_is_one_line(broken: Callable[..., Broken], run: Run) -> None:
    release = broken("small")
    for row in range(6):
        release.value("detail", row, f"because {row}", release.coverage)
    release.settle()
    said = run("validate", release.folder, "--quiet", code=1).stdout
    (line,) = (line for line in said.splitlines() if "COV018" in line)
    assert "(7 findings: also coverage: embedded, coverage: embedded, and 4 more)" in line


def test_a_map_across_the_antimeridian_is_one_piece() -> None:
    used = np.zeros(360, bool)
    used[[0, 359]] = True
    assert first_degree(used) == 179
    assert np.allclose(eastward(np.array([179.4, 179.9, -179.8, -179.3]), 179), [179.4, 179.9, 180.2, 180.7])
    for spread in ([80, 180, 280], [0, 170], range(360)):
        used[:] = False
        used[list(spread)] = True
        lon = np.flatnonzero(used) - 180.0
        assert (eastward(lon, first_degree(used)) == lon).all()
    ground = GroundMap(bbox=(179.3, -17, 180.8, -16), counts=[[1, 0, 1]])
    place = FindingPlace(code="VEC001", lon=-179.3, lat=-16.5)
    ring = [(-179.9, -16.6), (-179.6, -16.6), (-179.6, -16.4), (-179.9, -16.6)]
    outline = Outline(window="", reason="cloud", ring=ring)
    measures = Measures(
        chips=2, distributions={}, missing=[], outlines=[outline], ground=ground, places=[place], unmeasured={}
    )
    (drawn,) = maps(measures)
    assert drawn.height > drawn.width / 3
    assert drawn.land.startswith("M")  # Taveuni lies on both sides
    ((_, x, _, _),) = drawn.places
    assert 0.9 * drawn.width < x < drawn.width


def test_the_page_of_a_file_of_others_has_nothing_of_releases(tmp_path: Path) -> None:
    write_foreign(tmp_path)
    path = tmp_path / "embeddings" / "part-0.parquet"
    table = pq.read_table(path)
    vectors = [[0.0] * 16 if n == 5 else v for n, v in enumerate(table["vector"].to_pylist())]
    column = pa.array(vectors, table["vector"].type)
    pq.write_table(table.set_column(table.schema.get_field_index("vector"), "vector", column), path)
    report = validate(Release(str(tmp_path)))
    page = reports.html(report, all_rules())
    assert "zeros are not a vector of any place" in page
    assert "invalid_vector" not in page
    assert "gaps" not in page
    assert "missing" not in page
    assert report.measures is not None
    (place,) = report.measures.places
    assert (round(place.lon, 3), round(place.lat, 3)) == (0.055, 0.005)
