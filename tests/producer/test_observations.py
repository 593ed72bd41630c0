"""What `plan` says of composites before they are made: an estimate, and what masks say."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from clay_publish.cli.app import app

from .cloudy import YEAR, Cloudy, cloudy

COMPOSITE = {"method": "median", "images": 5, "min_valid": 3}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Cloudy:
    scene = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    return cloudy(tmp_path_factory.mktemp("cloudy"), scene, dates=6, cover=0.4)


def planned(
    folder: Path, year: Cloudy, *options: str, chips: dict[str, Any] | None = None, **imagery: Any
) -> tuple[dict[str, Any], str]:
    """`plan.json`, and what is printed."""
    block = {"stac": [str(item) for item in year.items], "sensor": "sentinel-2-l2a", "windows": [YEAR], **imagery}
    document = {"name": "p", "imagery": block, "chips": {"layout": "utm", "size": 64, **(chips or {})}}
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    out = folder / "out"
    result = CliRunner().invoke(app, ["plan", str(folder / "release.yaml"), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return json.loads((out / ".run" / "plan.json").read_text()), result.stdout


def test_the_estimate_follows_from_the_cloud_cover(year: Cloudy, tmp_path: Path) -> None:
    made, printed = planned(tmp_path, year, composite=COMPOSITE)
    (counted,) = made["observations"]
    chances = []
    for date in year.dates:
        covers = [json.loads(item.read_text())["properties"]["eo:cloud_cover"] for item in date.items]
        chances.append(1 - min(covers) / 100)  # of a cell in both tiles, the better one
    best = sorted(chances, reverse=True)[: COMPOSITE["images"]]
    enough = 0.0
    for clear in itertools.product((0, 1), repeat=len(best)):
        if sum(clear) >= COMPOSITE["min_valid"]:
            enough += np.prod([chance if seen else 1 - chance for chance, seen in zip(best, clear, strict=True)])
    assert not counted["measured"]
    assert counted["cells"] == made["chips"]["expected"] == 49
    assert counted["images"] == made["images_per_chip"] == 5
    assert counted["median"] == pytest.approx(sum(best), abs=0.05)
    assert counted["enough"] == pytest.approx(enough, abs=0.02)
    assert sum(counted["histogram"]) == 49
    assert np.argmax(counted["histogram"]) == int(sum(best))
    assert "clear observations per pixel (an estimate from the cloud cover of the items)" in printed
    assert (tmp_path / "out" / ".run" / "observations.png").read_bytes()[:4] == b"\x89PNG"


def test_the_estimate_of_images_without_a_mask_or_a_cloud_cover(year: Cloudy, tmp_path: Path) -> None:
    """Without a mask, cloud counts as ground; a cloud cover that an item does not state is a guess, which is said."""
    (tmp_path / "unmasked").mkdir()
    made, _ = planned(tmp_path / "unmasked", year, composite=COMPOSITE, mask="none")
    assert made["observations"][0]["median"] == COMPOSITE["images"]
    assert made["observations"][0]["short"] == 0
    assert [said for said in made["warnings"] if "their pixels under cloud count as clear" in said]
    for item in year.items:
        for file in item.parent.glob(f"{item.stem}*"):
            shutil.copy(file, tmp_path)
        stated = json.loads(item.read_text())
        del stated["properties"]["eo:cloud_cover"]
        (tmp_path / item.name).write_text(json.dumps(stated))
    silent = [str(tmp_path / item.name) for item in year.items]
    made, printed = planned(tmp_path, year, composite=COMPOSITE, stac=silent)
    assert "7 images such as" in printed
    assert "state no cloud cover: the estimate of clear observations takes them as clear" in printed


@pytest.mark.parametrize(
    ("least", "chips", "short"),
    [
        (1, {"max_nodata": 0.5, "max_cloud": 0.5}, 0.0),
        (5, {"max_nodata": 0.5, "max_cloud": 0.5}, 1.0),
        (4, {"max_nodata": 0.9, "max_cloud": 0.9}, 0.0),
        (4, {"max_nodata": 0.9, "max_cloud": 0.1}, 1.0),
        (4, {"max_nodata": 0.1, "max_cloud": 0.9}, 1.0),
    ],
)
def test_chips_that_would_be_missing(
    year: Cloudy, tmp_path: Path, least: int, chips: dict[str, Any], short: float
) -> None:
    """Pixels that cloud hides count for both limits."""
    made, _ = planned(tmp_path, year, composite={**COMPOSITE, "min_valid": least}, chips=chips)
    assert made["observations"][0]["short"] == short


def test_a_window_without_images_is_a_warning(year: Cloudy, tmp_path: Path) -> None:
    windows = ["2019-01-01/2020-01-01", YEAR]
    _, printed = planned(tmp_path, year, composite=COMPOSITE, windows=windows)
    assert "no image lies in the windows 2019-01-01/2020-01-01: without imagery.area, no chips" in printed


@pytest.mark.parametrize("layout", ["utm", "scene"])
def test_images_of_another_block_fill_a_window_of_cells(year: Cloudy, tmp_path: Path, layout: str) -> None:
    """Cells of a window take images of all blocks: that a block has none in it says nothing. Chips of images do not."""
    spring, autumn = (str(year.items[n]) for n in (1, -1))
    block = {"sensor": "sentinel-2-l2a", "windows": ["2023-01-01/2023-07-01", "2023-07-01/2024-01-01"]}
    document: dict[str, Any] = {"name": "p", "imagery": [{**block, "stac": spring}, {**block, "stac": autumn}]}
    document["chips"] = {"size": 64, "layout": layout}
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "release.yaml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert ("no image lies in" in result.output) == (layout == "scene")


def test_a_plan_counts_the_bytes_of_all_images(year: Cloudy, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    single, printed = planned(tmp_path / "one", year)
    several, _ = planned(tmp_path, year, composite=COMPOSITE)
    assert several["bytes_to_read"] == pytest.approx(5 * single["bytes_to_read"], rel=0.01)
    assert single["observations"] == []
    assert "observations" not in printed


@pytest.mark.slow  # two runs
def test_a_calibration_reads_the_masks(year: Cloudy, tmp_path: Path) -> None:
    made, printed = planned(tmp_path, year, "--calibrate", "9", composite=COMPOSITE)
    (counted,) = made["observations"]
    assert counted["measured"]
    assert "(measured by masks)" in printed
    clear = np.stack([date.clear for date in year.dates])
    counts = []
    for row, col in itertools.product(range(7), range(7)):
        # The cells begin where the first whole one does; every sixth of them is looked at.
        counts.append(clear[:, _cell(year, row), _cell(year, col, across=True)])
    some = [counts[place] for place in range(0, 49, 6)]
    means = [np.sort(each.mean(axis=(1, 2)))[::-1][: COMPOSITE["images"]].sum() for each in some]
    assert counted["cells"] == len(some) == 9
    assert counted["median"] == pytest.approx(np.median(means), abs=0.01)


def _cell(year: Cloudy, number: int, *, across: bool = False) -> slice:
    """Pixels of the row of cells with this number from the south, or of the column from the west."""
    east, north = year.transform @ (0, 512 if not across else 0)
    side = 640.0
    if across:
        first = round((np.ceil(east / side) * side - east) / 10)
        return slice(first + 64 * number, first + 64 * (number + 1))
    bottom = 512 - round((np.ceil(north / side) * side - north) / 10)
    return slice(bottom - 64 * (number + 1), bottom - 64 * number)
