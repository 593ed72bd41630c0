"""What is made twice is the same, but for what was measured."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clay_publish.release.directory import Release
from clay_publish.release.manifest import read_manifest

EPOCH = {"SOURCE_DATE_EPOCH": "1767312000"}  # 2026-01-02
Run = Callable[..., object]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every published file."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".run" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    folder = tmp_path_factory.mktemp("spec")
    run("sample", folder)
    document = yaml.safe_load((folder / "release.yaml").read_text()) | {"released": "2026-01-02"}
    document["outputs"] = {"thumbnails": 16, "aggregate": [2]}
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    return folder / "release.yaml"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, run: Run, spec: Path) -> Path:
    out = tmp_path_factory.mktemp("first") / "release"
    run("run", spec, "--out", out, "--quiet")
    return out


@pytest.mark.slow
def test_two_runs_differ_in_run_json_alone(first: Path, tmp_path: Path, run: Run, spec: Path) -> None:
    run("run", spec, "--out", tmp_path / "again", "--quiet")
    one, other = digests(first), digests(tmp_path / "again")
    assert one.keys() == other.keys()
    assert {path for path in one if one[path] != other[path]} <= {"run.json", "manifest.json", "SHA256SUMS"}
    entries = [
        {entry.path: entry for entry in read_manifest(Release(str(folder))).files if entry.path != "run.json"}
        for folder in (first, tmp_path / "again")
    ]
    assert entries[0] == entries[1]


def test_a_rerun_changes_no_file(first: Path, run: Run, spec: Path) -> None:
    before = digests(first)
    run("run", spec, "--out", first, "--quiet")
    run("catalog", first, "--quiet")
    run("card", first, "--quiet")
    assert digests(first) == before


@pytest.mark.slow
def test_the_day_of_the_first_run_stays(tmp_path: Path, run: Run) -> None:
    """Without `released`: SOURCE_DATE_EPOCH, or the clock, when the run begins; a later run takes the same."""
    run("sample", tmp_path / "first")
    spec, out = tmp_path / "first" / "release.yaml", tmp_path / "release"
    run("run", spec, "--out", out, "--quiet", env=EPOCH)
    assert yaml.safe_load((out / "CITATION.cff").read_text())["date-released"] == "2026-01-02"
    assert Release(str(out)).spec().released.isoformat() == "2026-01-02"
    before = digests(out)
    run("run", spec, "--out", out, "--quiet", env={"SOURCE_DATE_EPOCH": "1898553600"})
    assert digests(out) == before


def test_an_epoch_that_is_no_number_is_refused(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("sample", tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    made = run("produce", tmp_path / "release.yaml", cwd=tmp_path, code=2)
    assert "SOURCE_DATE_EPOCH: found 'yesterday'" in made.stderr
