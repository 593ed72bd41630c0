"""Each embeddings file is validated by the worker that made it: what is kept, shown, trusted and what stops a run."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from program import fork

from clay_publish.errors import PublishError
from clay_publish.publish.package import pack
from clay_publish.release.directory import Release
from clay_publish.release.findings import FileVerdict
from clay_publish.release.run_status import VERDICTS, file_verdicts, keep_file_verdict
from clay_publish.validate import all_rules, validate
from clay_publish.validate.landing import FileCheck

from .processes import start

Run = Callable[..., Any]

MOVED = """
import pyarrow.compute as pc
from clay_publish.producer.execution import unit
real = unit.embedding_rows
def embedding_rows(*arguments, **more):
    table = real(*arguments, **more)
    place = table.schema.get_field_index("lon")
    return table.set_column(place, table.schema.field(place), pc.add(table["lon"], 1.0))
unit.embedding_rows = embedding_rows
"""
"""All longitudes are wrong."""

LATE = """
import pyarrow.compute as pc, pyarrow.parquet as pq
from clay_publish.cli import run
real = run.describe
def describe(release, *arguments, **more):
    path = release.store.path(release.data_files()[0])
    table = pq.read_table(path, partitioning=None)
    place = table.schema.get_field_index("lon")
    moved = table.set_column(place, table.schema.field(place), pc.add(table["lon"], 1.0))
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(moved)
    return real(release, *arguments, **more)
run.describe = describe
"""
"""Longitudes of a finished file are changed before the documents are made."""

DIE_BEFORE_VERDICT = """
import os, signal
from clay_publish.producer.execution import run
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
run.keep_file_verdict = die
"""


def check_whole(out: Path) -> dict[str, FileVerdict]:
    """There is a verdict of each file, of the bytes that are there."""
    release = Release(str(out))
    kept = file_verdicts(release)
    assert sorted(kept) == release.data_files()
    for path, verdict in kept.items():
        assert verdict.sha256 == hashlib.sha256((out / path).read_bytes()).hexdigest()
    return kept


def status(run: Run, out: Path, code: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("status", out, "--json", code=code).stdout)
    return found


def test_each_file_has_a_verdict(begun: tuple[Path, Path], run: Run) -> None:
    kept = check_whole(begun[1])
    assert kept
    assert all(verdict.valid for verdict in kept.values()), kept
    found = status(run, begun[1], 0)
    assert found["verdicts"] == {"valid": len(kept), "invalid": 0, "other": 0}
    assert f"verdicts  {len(kept)} valid files" in run("status", begun[1]).stdout


def test_a_run_stops_at_invalid_files(spec: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "release"
    stopped = start(spec, out, first=MOVED)
    assert stopped.wait() == 2
    assert "has errors, and the run stops (GEO" in stopped.errors.read_text()
    (invalid,) = [path for path, verdict in file_verdicts(Release(str(out))).items() if verdict.errors]
    found = status(run, out, 2)
    assert (found["state"], found["invalid_files"]) == ("stopped", [invalid])
    assert f"invalid {invalid}" in run("status", out, code=2).stdout
    assert start(spec, out, first=MOVED).wait() == 2  # it does not forget
    going_on = start(spec, out, first=MOVED, more=["--set", "run.stop_after_findings=0"])
    going_on.finish()
    assert len(status(run, out, 1)["invalid_files"]) == len(check_whole(out)) > 1


def test_shares_count_the_invalid_files_of_all(spec: Path, tmp_path: Path) -> None:
    out, two = tmp_path / "release", ("--set", "run.stop_after_findings=2")
    shares = [start(spec, out, first=MOVED, more=("--unit", f"{number}/4", *two)) for number in (1, 2, 3, 4)]
    ended = sorted(share.wait() for share in shares)
    text = "".join(share.errors.read_text() for share in shares)
    assert set(ended) <= {0, 2}
    assert "2 finished files have errors, and the run stops (GEO" in text or "3 finished files" in text
    kept = [verdict for verdict in file_verdicts(Release(str(out))).values() if verdict.errors]
    assert len(kept) >= 2


def test_the_last_step_of_a_run_hashes_again(spec: Path, tmp_path: Path, run: Run) -> None:
    """A file that changes after its verdict, and before its manifest, is found."""
    out = tmp_path / "release"
    code = fork(["run", str(spec), "--out", str(out), "--quiet"], out=tmp_path / "o", errors=tmp_path / "e", first=LATE)
    code.join(240)
    assert code.exitcode == 1, (tmp_path / "e").read_text()
    assert "NOT valid" in (tmp_path / "o").read_text()
    assert status(run, out, 1)["findings"]["error"] > 0


@pytest.mark.slow  # a release is made, validated and published
def test_validate_and_publish_use_no_verdict(spec: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "release"
    code = fork(["run", str(spec), "--out", str(out), "--quiet"], out=tmp_path / "o", errors=tmp_path / "e", first=LATE)
    code.join(240)
    expected = run("validate", out, "--json", "--quiet", code=1).stdout
    for path, verdict in file_verdicts(Release(str(out))).items():
        claimed = verdict.model_copy(update={"sha256": hashlib.sha256((out / path).read_bytes()).hexdigest()})
        assert claimed.valid
        keep_file_verdict(Release(str(out)), claimed)
    assert run("validate", out, "--json", "--quiet", code=1).stdout == expected
    refused = run("publish", out, "--to", tmp_path / "site", "--quiet", code=2).stderr
    assert "does not validate (" in refused
    assert not (tmp_path / "site").exists()


def test_publish_wants_a_full_report(release_copy: Path) -> None:
    release = Release(str(release_copy))
    with pytest.raises(PublishError, match="is not fully validated"):
        pack(release, validate(release, quick=True))


def test_a_run_killed_before_a_verdict_validates_the_file(begun: tuple[Path, Path], spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "release"
    start(spec, out, first=DIE_BEFORE_VERDICT).wait()
    assert Release(str(out)).data_files()
    assert not Release(str(out)).store.files(VERDICTS)
    start(spec, out).finish()
    assert check_whole(out) == check_whole(begun[1])


def test_verdicts_hold_for_their_bytes_alone(release_copy: Path) -> None:
    release = Release(str(release_copy))
    path = release.data_files()[0]
    check = FileCheck(release)
    before = check(path)
    assert before.valid, before
    table = pq.read_table(release_copy / path, partitioning=None)
    place = table.schema.get_field_index("lon")
    moved = table.set_column(place, table.schema.field(place), pc.add(table["lon"], 1.0))
    with pq.ParquetWriter(release_copy / path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(moved)
    after = check(path)
    found = {finding.code for finding in after.errors}
    assert found
    rules = sorted(found)
    plain = validate(release, only=rules)
    assert {finding.code for finding in plain.findings} == found
    assert validate(release, only=rules, verdicts={path: before}) == plain
    assert validate(release, only=rules, verdicts={path: after}) == plain
    claimed = before.model_copy(update={"sha256": after.sha256})
    alone = {rule.code for rule in all_rules() if rule.alone}
    assert found & alone
    skipped = validate(release, only=rules, verdicts={path: claimed})
    assert {finding.code for finding in skipped.findings} == found - alone
    other = claimed.model_copy(update={"validator": "0.0.1"})
    assert validate(release, only=rules, verdicts={path: other}) == plain


def test_verdicts_do_not_hold_for_other_sources(release_copy: Path) -> None:
    release = Release(str(release_copy))
    check = FileCheck(release)
    verdicts = {path: check(path) for path in release.data_files()}
    assert all(verdict.valid for verdict in verdicts.values())
    sources = pq.read_table(release_copy / "sources.parquet")
    for name in ("datetime", "start_datetime", "end_datetime"):
        later = pc.add(sources[name], pa.scalar(timedelta(days=1)))
        sources = sources.set_column(sources.schema.get_field_index(name), sources.schema.field(name), later)
    others = pa.array([f"other-{name}" for name in sources["id"].to_pylist()], sources.schema.field("id").type)
    by_time = sources
    by_name = sources.set_column(sources.schema.get_field_index("id"), sources.schema.field("id"), others)
    for changed, codes in ((by_time, {"TIM003", "TIM009"}), (by_name, {"PRV006"})):
        pq.write_table(changed, release_copy / "sources.parquet", write_page_checksum=True)
        plain = validate(release)
        assert codes <= {finding.code for finding in plain.findings}
        assert validate(release, verdicts=verdicts) == plain


def test_rules_on_rows_alone_get_no_context() -> None:
    rows = {rule.code: rule for rule in all_rules() if rule.rows is not None}
    without = {code for code, rule in rows.items() if [*signature(rule.rows).parameters][1] == "_"}
    assert {code for code, rule in rows.items() if rule.alone} == without
