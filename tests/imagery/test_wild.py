"""Inputs that reproduce public reports, reduced to 64 × 64 pixels, as a user would run them.

`tests/data/wild` holds one folder per case: its item, files and spec. A new case is a folder and a line below.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow.parquet as pq
import pytest

Run = Callable[..., CompletedProcess[str]]

TEN = "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"
COMMON = "blue green red rededge1 rededge2 rededge3 nir nir08 swir16 swir22"
LANDSAT_7 = "SR_B3.TIF SR_B2.TIF SR_B1.TIF SR_B4.TIF SR_B5.TIF SR_B7.TIF"
CDSE = "B02_10m B03_10m B04_10m B05_20m B06_20m B07_20m B08_10m B8A_20m B11_20m B12_20m"


@dataclass(frozen=True)
class Case:
    """A folder of `tests/data/wild`, and what is right."""

    name: str
    chips: dict[str, int] = field(default_factory=dict)
    """Chips by outcome; none: the plan is all that can be made."""
    mapping: str = ""
    values: str = ""
    """Words of the line on values that `plan` prints."""
    said: str = ""
    """Words of a warning; or of the refusal, where there is no mapping."""


CASES = [
    Case("landsat-sr-as-l1", said="Set `imagery.sensor` to landsat-c2l2-sr"),
    Case("landsat7-stac07", {"embedded": 4}, LANDSAT_7, "-0.2 by sensor", "1 of 1 images have no cloud mask"),
    Case("max-nodata-1", {"embedded": 2, "nodata": 2}, COMMON, "+0 by s2:processing_baseline", "no cloud mask"),
    Case("naip-band4-alpha", {"embedded": 4}, "image#1 image#2 image#3 image#4", "+0 by sensor"),
    Case("s1-antimeridian-beyond-180", {}, "gamma0_vv gamma0_vh", "+0 by sensor"),
    Case("s1-grd-as-rtc", said="sar:product_type 'grd' (GRD)"),
    Case("s1-rtc-zero-border", {"embedded": 2, "nodata": 2}, "vv vh", "+0 by sensor"),
    Case("s2-boa-offset-old-flag", {"embedded": 4}, TEN, "+0 by sentinel:boa_offset_applied", "no cloud mask"),
    Case("s2-cdse-scl20m", {"cloud": 4}, CDSE, "-0.1 by item: -1,000 on each DN"),
    Case("s2-offset-minus-7000", said="State `imagery.scale` and `imagery.offset`"),
    Case("stac-geoparquet-proj-geometry", {"embedded": 4}, COMMON, "+0 by earthsearch:", "has no band blue"),
]  # fmt: skip


@pytest.fixture
def wild(shared_data: Path, tmp_path: Path) -> Path:
    """A copy of all cases: some share the pixels of another."""
    return Path(shutil.copytree(shared_data / "wild", tmp_path / "wild"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_planned_and_made_as_is_right(case: Case, wild: Path, run: Run) -> None:
    folder = wild / case.name
    if not case.mapping:
        refused = [run(command, "release.yaml", "--quiet", cwd=folder, code=2).stderr for command in ("plan", "run")]
        assert all(case.said in text for text in refused)
        assert not any(path.name == "embeddings" for path in folder.rglob("*"))
        return
    plan = json.loads(run("plan", "release.yaml", "--json", "--quiet", cwd=folder, code=0).stdout)
    (reading,) = plan["resolutions"]
    assert [band.split(" ← ")[1].split(" ")[0] for band in reading["bands"]] == case.mapping.split()
    assert case.values in "; ".join(reading["values"])
    assert case.said in " ".join(plan["warnings"])
    if not case.chips:
        assert (plan["chips"]["expected"], plan["chips"]["with_imagery"]) == (17_235, 17_109)
        return
    code = 0 if "embedded" in case.chips else 2
    run("produce", "release.yaml", "--out", "made", "--quiet", cwd=folder, code=code)
    rows = [row for path in (folder / "made" / "coverage").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert Counter(row["reason"] or row["status"] for row in rows) == case.chips
    assert plan["chips"]["with_imagery"] == len(rows)


def test_a_release_without_masks_is_valid_and_says_so_everywhere(wild: Path, run: Run) -> None:
    folder = wild / "max-nodata-1"
    run("run", "release.yaml", "--out", "made", "--quiet", cwd=folder)
    made = folder / "made"
    rows = [row for path in (made / "coverage").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert Counter(row["detail"] for row in rows if row["status"] == "embedded") == {"not cloud-checked": 2}
    assert "**Not cloud-checked**: 2 of the embedded chips" in (made / "README.md").read_text()
    collection = json.loads((made / "collection.json").read_text())
    assert collection["embrel:coverage"]["not_cloud_checked"] == 2
    (item,) = pq.read_table(made / "items.parquet").column("embrel:coverage").to_pylist()
    assert item["not_cloud_checked"] == 2
    # The published spec can be run again: it does not claim that a limit on clouds was asked for.
    again = (made / "release.yaml").read_text().replace("item.json", str(folder / "item.json"))
    (folder / "again.yaml").write_text(again)
    run("plan", "again.yaml", "--quiet", cwd=folder)


def test_a_stated_limit_on_clouds_needs_masks(wild: Path, run: Run) -> None:
    folder = wild / "s2-boa-offset-old-flag"
    for command in ("plan", "run"):
        refused = run(command, "release.yaml", "--set", "chips.max_cloud=0.2", "--quiet", cwd=folder, code=2).stderr
        assert "chips.max_cloud: is 0.2, and 1 of 1 images have no cloud mask" in refused
        assert "imagery.mask: none" in refused
    stated = ("--set", "chips.max_cloud=0.2", "--set", "imagery.mask=none")
    plan = run("plan", "release.yaml", *stated, "--json", "--quiet", cwd=folder)
    assert "cloud" not in " ".join(json.loads(plan.stdout)["warnings"])
