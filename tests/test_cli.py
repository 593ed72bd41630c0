import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clay_publish import __version__
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.spec.models import Spec

Run = Callable[..., subprocess.CompletedProcess[str]]

BASE_INSTALL = """
import importlib.machinery as machinery
found = machinery.PathFinder.find_spec
absent = {"torch", "rasterio", "boto3", "botocore", "s3fs", "datasets", "duckdb"}
machinery.PathFinder.find_spec = classmethod(
    lambda _, name, *rest: None if name.partition(".")[0] in absent else found(name, *rest)
)
"""


@pytest.fixture
def base_install(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of the extras can be imported."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BASE_INSTALL)
    paths = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@pytest.fixture
def sample_release(sample_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this test alone: a command that publishes holds the lease of a release, and keeps journals in it."""
    return Path(shutil.copytree(sample_release, tmp_path_factory.mktemp("own") / "release"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The commands of the README, word for word."""
    folder = tmp_path_factory.mktemp("first")
    run("sample", "my-first-release", cwd=folder)
    made = run("run", "my-first-release/release.yaml", cwd=folder)
    (folder / "stdout").write_text(made.stdout)
    (folder / "stderr").write_text(made.stderr)
    return folder


def test_two_commands_make_a_valid_release_and_one_line_says_so(first: Path) -> None:
    line = (first / "stdout").read_text()
    assert line.count("\n") == 1
    assert line.startswith(str(first / "my-first-release" / "1.0.0"))
    assert "121 of 121 expected chips (100.0%)" in line
    assert "; computed 121, in " in line
    assert line.rstrip().endswith("s, valid")
    said = (first / "stderr").read_text()
    assert "produce: 121 of 121 chips" in said
    release = first / "my-first-release" / "1.0.0"
    assert said.endswith(f"Look at {release}/README.md. Next: clay-publish publish {release} --to PLACE\n")


def test_run_again_does_no_unit_twice_and_changes_no_vector(first: Path, run: Run) -> None:
    release = Release(str(first / "my-first-release" / "1.0.0"))
    before = {path: release.store.read(path) for path in release.data_files()}
    made = run("run", "my-first-release/release.yaml", "--json", cwd=first)
    assert {path: release.store.read(path) for path in release.data_files()} == before
    summary = json.loads(made.stdout)
    assert (summary["chips"], summary["expected"], summary["coverage"]) == (121, 121, 1.0)
    assert (summary["computed"], summary["reused"]) == (0, 0)
    steps = [json.loads(line) for line in made.stderr.splitlines()]
    assert {"validate", "catalog", "card"} <= {step["stage"] for step in steps}


def test_quiet_says_only_the_result(sample_release: Path, run: Run) -> None:
    made = run("card", sample_release, "--quiet")
    assert (made.stdout, made.stderr) == (f"{sample_release}\n", "")


def test_the_version_and_the_module(run: Run, tmp_path: Path) -> None:
    assert run("--version").stdout == f"clay-publish {__version__}\n"
    command = [sys.executable, "-m", "clay_publish", "--version"]
    for folder in (tmp_path, Path(__file__).parents[1]):  # also where a folder of that name lies
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert made.stdout == f"clay-publish {__version__}\n"


def test_init_writes_a_spec_that_is_one_and_overwrites_nothing(tmp_path: Path, run: Run) -> None:
    run("init", cwd=tmp_path)
    text = (tmp_path / "release.yaml").read_text()
    run("init", cwd=tmp_path)
    assert {f"{key}:" for key in Spec.model_fields} <= set(text.split())
    (tmp_path / "release.yaml").write_text(text.replace("size: 128", "size: 12O"))
    made = run("produce", "--out", "out", cwd=tmp_path, code=2)
    line = text.splitlines().index(next(row for row in text.splitlines() if row.startswith("  size: 128"))) + 1
    assert f"release.yaml:{line}: chips.size: found '12O' (expected a whole number)." in made.stderr
    assert "exists with other content" in run("init", cwd=tmp_path, code=2).stderr


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("chips", {"sice": 64}, "chips.sice: is an unknown key. Did you mean 'size'?"),
        ("chips", {"size": 4}, "chips.size: found 4"),
        ("imagery", {"stac": "nothing.json", "sensor": "sentinel-2-l2a"}, "nothing.json not found"),
        ("imagery", {"stac": "imagery/item.json", "sensor": "sentinel-2-l2b"}, "sentinel-2-l2a"),
        ("model", {"encoder": "clai"}, "clay"),
    ],
)
def test_what_is_wrong_in_the_spec_is_said_before_any_pixel_is_read(
    tmp_path: Path, run: Run, key: str, value: object, message: str
) -> None:
    run("sample", tmp_path / "s")
    spec = tmp_path / "s" / "release.yaml"
    spec.write_text(yaml.safe_dump({**yaml.safe_load(spec.read_text()), key: value}))
    for band in (tmp_path / "s" / "imagery").glob("*.tif"):
        band.unlink()
    made = run("run", spec, "--out", tmp_path / "out", code=2)
    assert made.stdout == ""
    assert message in made.stderr
    assert "Traceback" not in made.stderr
    error = json.loads(run("run", spec, "--out", tmp_path / "out", "--json", code=2).stderr.splitlines()[-1])["error"]
    assert message in error["message"]
    assert {"kind", "where", "found", "expected", "fix"} <= set(error)


def test_a_sample_that_was_edited_is_not_overwritten(tmp_path: Path, run: Run) -> None:
    run("sample", "s", cwd=tmp_path)
    run("sample", "s", cwd=tmp_path)
    (tmp_path / "s" / "release.yaml").write_text("name: mine\n")
    assert "exists with other content" in run("sample", "s", cwd=tmp_path, code=2).stderr
    assert (tmp_path / "s" / "release.yaml").read_text() == "name: mine\n"


@pytest.mark.slow
def test_without_the_extra_run_names_it_and_validate_works(
    tmp_path: Path, run: Run, sample_release: Path, base_install: dict[str, str]
) -> None:
    run("sample", "s", cwd=tmp_path, env=base_install)
    made = run("run", "s/release.yaml", cwd=tmp_path, code=2, env=base_install)
    assert made.stderr == (
        "error: Making embeddings: needs rasterio and torch, which are not installed."
        " pip install 'clay-publish[produce]'\n"
    )
    run("validate", sample_release, "--quiet", env=base_install)
    run("publish", sample_release, "--to", tmp_path / "site", env=base_install)
    made = run("publish", sample_release, "--to", "s3://bucket/prefix", code=2, env=base_install)
    assert "pip install 'clay-publish[s3]'" in made.stderr


def test_validate_exits_with_0_1_and_2(sample_release: Path, release_copy: Path, tmp_path: Path, run: Run) -> None:
    assert "findings" in run("validate", sample_release).stdout
    (release_copy / "model.json").write_text("{}")
    report = ValidationReport.model_validate_json(run("validate", release_copy, "--json", code=1).stdout)
    assert any("model.json" in finding.where for finding in report.findings)
    made = run("validate", tmp_path / "nothing", code=2)
    assert made.stderr.startswith("error: ")


def test_publish_refuses_what_does_not_validate(release_copy: Path, tmp_path: Path, run: Run) -> None:
    (release_copy / "model.json").write_text("{}")
    made = run("publish", release_copy, "--to", tmp_path / "site", code=2)
    assert "does not validate" in made.stderr
    assert not (tmp_path / "site").exists()


def test_a_place_that_is_none_is_refused_before_anything_is_validated(sample_release: Path, run: Run) -> None:
    made = run("publish", sample_release, "--to", "./site", "--to", "sorce.coop", code=2)
    assert "Did you mean source.coop?" in made.stderr
    assert "rules" not in made.stderr


def test_publish_and_its_dry_run(sample_release: Path, tmp_path: Path, run: Run) -> None:
    site = tmp_path / "site"
    planned = json.loads(run("publish", sample_release, "--to", site, "--dry-run", "--json").stdout)
    assert not site.exists()
    sent = json.loads(run("publish", sample_release, "--to", site.as_uri(), "--json").stdout)
    assert set(planned["receipts"][0]["sent"]) == set(sent["receipts"][0]["sent"])
    assert "there already, verified" in run("publish", sample_release, "--to", site).stdout
    run("validate", site / "1.0.0", "--quiet")


def test_a_command_that_is_none_is_named(run: Run) -> None:
    assert "No such command" in run("pubish", code=2).stderr


@pytest.mark.slow
def test_a_terminal_gets_bars_and_the_result_stays_alone_on_stdout(sample_release: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [Path(sys.executable).with_name("clay-publish"), "publish", sample_release, "--to", tmp_path / "site"]
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    shown = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=settings) as publisher:
        os.close(theirs)
        while piece := _read(ours):
            shown += piece
        assert publisher.stdout
        result = publisher.stdout.read().decode()
    os.close(ours)
    assert b"\x1b[" in shown
    assert b"publish " in shown
    assert re.search(rb" [kM]B/", shown)
    assert result.startswith(str(tmp_path / "site" / "1.0.0"))
    assert result.count("\n") == 1


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that the other side is closed
        return b""
