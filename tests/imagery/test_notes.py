"""What plan and run say about area, pixel size and masks before any pixel is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def scene(shared_data: Path, tmp_path: Path) -> Path:
    """A Sentinel-2 scene of 64 × 64 pixels of 10 m at 37.7° N, 75.6° W, and its spec."""
    return Path(shutil.copytree(shared_data / "wild", tmp_path / "wild")) / "s2-boa-offset-old-flag"


def warnings(run: Run, folder: Path, *changes: str) -> list[str]:
    """What `plan` warns of."""
    stated = [part for change in changes for part in ("--set", change)]
    plan = run("plan", "release.yaml", "--json", "--quiet", *stated, cwd=folder)
    found: list[str] = json.loads(plan.stdout)["warnings"]
    return found


UTM = ("chips.layout=utm", "imagery.mask=none")


def test_pixels_finer_than_half_of_the_images_are_a_warning(scene: Path, run: Run) -> None:
    small = ("chips.size=16",)
    assert warnings(run, scene, *UTM, *small, "chips.gsd=5") == []
    (said,) = warnings(run, scene, *UTM, *small, "chips.gsd=4.9")
    assert "chips.gsd 4.9 m is less than half the pixel size of 1 of 1 images (10 m)" in said


def test_an_area_across_the_antimeridian_says_how_wide_it_is(scene: Path, run: Run) -> None:
    said = " ".join(warnings(run, scene.parent / "s1-antimeridian-beyond-180"))
    assert "crosses the antimeridian: from 179° eastward to -179.2°, 1.8° wide" in said


@pytest.mark.parametrize("command", ["plan", "run"])
def test_swapped_latitude_and_longitude_are_suspected(scene: Path, run: Run, command: str) -> None:
    west, south, east, north = json.loads((scene / "item.json").read_text())["bbox"]
    swapped = ("--set", f"imagery.area=[{south}, {west}, {north}, {east}]")
    said = run(command, "release.yaml", "--quiet", *swapped, cwd=scene, code=2).stderr
    assert "lies outside the area" in said
    assert "Latitude and longitude look swapped" in said
    elsewhere = run(
        command, "release.yaml", "--quiet", "--set", "imagery.area=[5, 40, 6, 41]", cwd=scene, code=2
    ).stderr
    assert "lies outside the area" in elsewhere
    assert "Latitude" not in elsewhere


def test_a_bbox_that_only_swapped_is_one_is_named(scene: Path, run: Run) -> None:
    said = run("plan", "release.yaml", "--set", "imagery.area=[-17.6, 178.2, -16.3, 179.4]", cwd=scene, code=2).stderr
    assert "Latitude and longitude look swapped: write [178.2, -17.6, 179.4, -16.3]" in said


def test_a_mask_of_outlines_is_explained(scene: Path, run: Run) -> None:
    item: dict[str, Any] = json.loads((scene / "item.json").read_text())
    item["assets"]["MSK_CLOUDS_B00"] = {"href": "./c.gml", "type": "application/gml+xml"}
    (scene / "item.json").write_text(json.dumps(item))
    (said,) = warnings(run, scene)
    assert "1 of 1 images have no cloud mask" in said
    assert "'MSK_CLOUDS_B00' holds outlines (GML" in said


def test_a_refused_run_writes_nothing(scene: Path, run: Run) -> None:
    run("run", "release.yaml", "--set", "chips.max_cloud=0.1", "--out", "made", "--quiet", cwd=scene, code=2)
    assert not list((scene / "made").rglob("*.json"))
