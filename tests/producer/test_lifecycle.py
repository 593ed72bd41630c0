"""A release from its first run on: interrupted, repeated, refused, and with others at work."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clay_publish.errors import LockedError
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.release.lease import lease
from clay_publish.release.unit_receipts import RECEIPTS

from .processes import start

SLOW = """
import time
from clay_publish.producer.execution import local
real = local.attempt
def attempt(unit, work):
    made = real(unit, work)
    time.sleep(3)
    return made
local.attempt = attempt
"""
"""Receipts are written; no process has read them yet."""


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],  # one handler takes both
)
def test_an_interrupted_run_says_what_is_kept_and_goes_on(
    begun: tuple[Path, Path], spec: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    out = tmp_path / "release"
    program = start(spec, out, first=SLOW)
    while not Release(str(out)).store.files(RECEIPTS):
        assert program.process.is_alive(), program.errors.read_text()
        time.sleep(0.01)
    os.kill(program.process.pid or 0, sent)
    assert program.wait() == code
    (line,) = program.errors.read_text().splitlines()
    said = re.fullmatch(
        rf"interrupted: (\d) of 4 units are kept in {out}. Run the same command again to continue.", line
    )
    assert said is not None, line
    assert 0 < int(said[1]) <= len(Release(str(out)).store.files(RECEIPTS))  # one more may have ended meanwhile
    start(spec, out).finish()
    for path in Release(str(begun[1])).data_files():
        assert (out / path).read_bytes() == (begun[1] / path).read_bytes()


def test_a_refused_run_leaves_no_directory(spec: Path, tmp_path: Path, run: Callable[..., object]) -> None:
    document = yaml.safe_load(spec.read_text())
    document["imagery"]["area"] = [10.0, 10.0, 11.0, 11.0]
    spec.write_text(yaml.safe_dump(document))
    (tmp_path / "mine").mkdir()
    for command in ("plan", "produce", "run"):
        run(command, spec, "--out", tmp_path / "new" / "1.0.0", "--quiet", code=2)
        run(command, spec, "--out", tmp_path / "mine", "--quiet", code=2)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "mine").iterdir()) == []


def test_others_are_refused_while_a_run_is_at_work(
    sample_release: Path, tmp_path: Path, run: Callable[..., object]
) -> None:
    release = tmp_path / "release"
    shutil.copytree(sample_release, release)
    with lease(Release(str(release))):
        for command in (("catalog", release), ("card", release), ("publish", release, "--to", tmp_path / "site")):
            refused = run(*command, "--quiet", code=2)
            assert f"is being worked on by process {os.getpid()} on " in refused.stderr
    assert not (tmp_path / "site").exists()
    run("card", release, "--quiet")


def test_a_run_says_what_it_took_from_the_version_before(
    sample_release: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    run("sample", tmp_path / "first")
    options = ("--set", "version=1.0.1", "--set", f"previous={sample_release}", "--quiet")
    made = run("produce", tmp_path / "first" / "release.yaml", "--out", tmp_path / "release", *options)
    assert "121 of 121 expected chips (100.0%); reused 121, in " in made.stdout
    again = run("produce", tmp_path / "first" / "release.yaml", "--out", tmp_path / "release", *options)
    assert "; nothing to do, all of it was done before, in " in again.stdout
    wrong = ("--set", "previous=nowhere", "--out", tmp_path / "other")
    refused = run("produce", tmp_path / "first" / "release.yaml", *wrong, code=2).stderr
    assert f"{tmp_path}/first/nowhere holds no release" in refused
    assert "A relative path begins at the folder of the spec." in refused


def test_a_whole_run_holds_its_lease_until_the_release_is_validated(
    sample_release: Path, release_copy: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def validation(release: Release, *_: object, **__: object) -> ValidationReport:
        with pytest.raises(LockedError) as caught, lease(release):
            pass
        refused.append(caught.value)
        return ValidationReport(where=release.store.where, findings=[], checked={})

    monkeypatch.setattr("clay_publish.cli.run.run_validation", validation)
    made = run("run", sample_release.parent / "first" / "release.yaml", "--out", release_copy, "--quiet")
    assert made.stdout.startswith(f"{release_copy}: 121 of 121 expected chips (100.0%); nothing to do")
    assert len(refused) == 1
