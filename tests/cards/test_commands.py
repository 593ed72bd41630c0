"""`diff`, `card` and what `run` refuses, at the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from .copies import ids_of, lose, version

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def before(sample_release: Path, tmp_path: Path) -> Path:
    """A version with less coverage than the sample."""
    folder = Path(shutil.copytree(sample_release, tmp_path / "before"))
    lose(folder, ids_of(folder)[:6], "cloud")
    return folder


def test_diff_tells_people_and_machines(run: Run, before: Path, release_copy: Path) -> None:
    version(release_copy, "1.1.0")
    text = run("diff", before, release_copy).stdout
    assert "6 chips added (6 before: too much cloud)" in text
    assert "A minor step: it adds chips. At least 1.1.0." in text
    assert text.splitlines()[-2:] == ["version: 1.1.0", f"previous: {before}"]
    found = json.loads(run("diff", before, release_copy, "--json").stdout)
    assert found["at_least"] == "1.1.0"
    assert found["coverage"]["gained"] == {"cloud": 6}


def test_diff_of_a_version_with_itself_and_with_an_older_one(run: Run, before: Path, release_copy: Path) -> None:
    said = run("diff", before, before).stdout
    assert said == "1.0.0 → 1.0.0\n  identical: the same chips, vectors, coverage and columns\n"
    version(release_copy, "1.1.0")
    assert "is version 1.0.0, older than 1.1.0" in run("diff", release_copy, before, code=2).stderr
    version(before, "1.1.1")
    assert "A minor step: it removes chips. At least 1.2.0." in run("diff", release_copy, before).stdout


def test_card_asks_for_a_number_that_says_enough(run: Run, before: Path, release_copy: Path) -> None:
    version(release_copy, "1.0.1")
    refused = run("card", release_copy, "--previous", before, code=2)
    assert "1.0.1 is too small after 1.0.0" in refused.stderr
    assert "1.1.0" in refused.stderr


def test_run_refuses_a_published_number_before_any_pixel_is_read(run: Run, before: Path, tmp_path: Path) -> None:
    run("sample", tmp_path / "first")
    path = tmp_path / "first/release.yaml"
    spec = yaml.safe_load(path.read_text()) | {"previous": str(before)}
    path.write_text(yaml.safe_dump(spec))
    refused = run("run", path, "--out", tmp_path / "out", code=2)
    assert "a published version never changes" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_run_refuses_another_fingerprint_under_a_small_step(run: Run, before: Path, tmp_path: Path) -> None:
    run("sample", tmp_path / "first")
    path = tmp_path / "first/release.yaml"
    spec = yaml.safe_load(path.read_text()) | {"previous": str(before), "version": "1.1.0", "chips": {"size": 128}}
    path.write_text(yaml.safe_dump(spec))
    refused = run("run", path, "--out", tmp_path / "out", code=2)
    assert "size: 64 → 128" in refused.stderr
    assert "at least 2.0.0" in refused.stderr
    assert not (tmp_path / "out/embeddings").exists()
