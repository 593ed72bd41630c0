"""`clay-publish status`: what another process says of a run, in a directory and on an object store."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_servers import S3View

from clay_publish.release.directory import Release
from clay_publish.release.findings import FileVerdict, Finding, Severity
from clay_publish.release.lease.base import lease_path
from clay_publish.release.manifest import UNITS
from clay_publish.release.run_status import StatusReader, keep_file_verdict
from clay_publish.release.unit_receipts import RECEIPTS

from .places import HASTY, reached
from .processes import Program, start
from .test_lifecycle import SLOW

Run = Callable[..., Any]


def until_one_is_done(program: Program, release: Release) -> None:
    while not release.store.files(RECEIPTS):
        assert program.process.is_alive(), program.errors.read_text()
        time.sleep(0.01)


def asked(run: Run, where: object, code: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("status", where, "--json", code=code).stdout)
    return found


def test_running_killed_and_finished(spec: Path, tmp_path: Path, run: Run) -> None:
    spec.write_text(spec.read_text() + "cost: {usd_per_hour: 3600, budget_usd: 100000}\n")
    out = tmp_path / "release"
    program = start(spec, out, first=SLOW)
    until_one_is_done(program, Release(str(out)))
    found = asked(run, out, 0)
    assert found["state"] == "running"
    assert found["units"] == {**found["units"], "total": 4, "failed": 0}
    assert found["units"]["done"] >= 1 <= found["units"]["working"]
    assert found["chips"]["to_compute"] >= found["chips"]["computed"] > 0
    assert found["chips_per_second"] > 0
    assert found["usd"] > 0
    assert found["usd_in_all"] >= found["usd"]
    assert found["seconds_left"] >= 0
    (holder,) = found["holders"]
    assert holder["alive"]
    assert holder["name"].startswith(f"process {program.process.pid} on ")
    program.kill()
    stopped = asked(run, out, 2)
    assert (stopped["state"], stopped["units"]["working"]) == ("stopped", 0)
    assert [each["alive"] for each in stopped["holders"]] == [False]
    lines = run("status", out, code=2).stdout
    assert "stopped: no heartbeat" in lines
    assert "ended without giving it back" in lines
    start(spec, out).finish()
    done = asked(run, out, 0)
    assert (done["state"], done["units"]["done"], done["holders"]) == ("finished", 4, [])
    assert "of 4 done" in run("status", out, "--watch").stdout
    (out / lease_path(None)).write_text("process 1 on here, since 2026-01-01T00:00:00+00:00")  # killed after its units
    assert asked(run, out, 2)["state"] == "stopped"


def test_units_that_failed_and_why(spec: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "release"
    image = min(spec.parent.rglob("*.tif"))
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    start(spec, out).finish(code=1)
    found = asked(run, out, 1)
    assert found["state"] == "finished"
    assert found["units"]["failed"] == 1
    assert image.name in found["failures"][0]["reason"]
    assert image.name in run("status", out, code=1).stdout


def test_what_cannot_be_read_or_was_never_run(release_copy: Path, spec: Path, tmp_path: Path, run: Run) -> None:
    assert "has no run" in run("status", tmp_path / "nothing", code=2).stderr
    run("publish", release_copy, "--to", tmp_path / "site", "--quiet")
    assert "without a record of its run" in run("status", tmp_path / "site" / "1.0.0", code=2).stderr
    run("plan", spec, "--out", tmp_path / "planned", "--quiet")
    assert asked(run, tmp_path / "planned", 2)["state"] == "planned"


def test_the_verdict_of_the_run(tmp_path: Path, run: Run) -> None:
    run("sample", tmp_path / "first")
    out = tmp_path / "release"
    run("run", tmp_path / "first" / "release.yaml", "--out", out, "--quiet")
    found = asked(run, out, 0)
    assert (found["findings"] or {}).get("error", 0) == 0 == len(found["invalid_files"])
    verdict = out / ".run" / "validation.json"
    document = json.loads(verdict.read_text())
    (data,) = Release(str(out)).data_files()
    wrong = {"code": "VEC001", "severity": "error", "where": f"{out}/{data}", "found": "x", "expected": "y", "fix": "z"}
    verdict.write_text(json.dumps({**document, "findings": [wrong]}))
    validated = asked(run, out, 1)
    assert (validated["findings"], validated["invalid_files"]) == ({"error": 1}, [data])


def test_a_reader_sees_a_file_that_was_made_again(tmp_path: Path) -> None:
    release = Release(str(tmp_path))
    file = "embeddings/zone=18/18_04_41_2023-01-01_2023-02-01.parquet"
    release.store.write(file, b"")
    release.store.write(UNITS, json.dumps({"units": []}))
    reader = StatusReader(release)
    verdict = FileVerdict(file=file, sha256="0" * 64, validator="1", findings=[], unchecked={})
    keep_file_verdict(release, verdict)
    assert reader.read().verdicts == {"valid": 1, "invalid": 0, "other": 0}
    wrong = Finding(code="VEC001", severity=Severity.ERROR, where=file, found="x", expected="y", fix="z")
    keep_file_verdict(release, verdict.model_copy(update={"findings": [wrong]}))
    status = reader.read()
    assert (status.verdicts, status.invalid_files) == ({"valid": 0, "invalid": 1, "other": 0}, [file])


@pytest.mark.slow  # waits for a heartbeat
def test_on_an_object_store_the_holder_and_its_heartbeat(spec: Path, bucket: S3View, run: Run) -> None:
    where = f"s3://{bucket.bucket}/release"
    release = reached(bucket.address, where)
    program = start(spec, where, f"{HASTY}\n{SLOW}")
    until_one_is_done(program, release)
    found = asked(run, where, 0)
    assert found["state"] == "running"
    (holder,) = found["holders"]
    assert holder["alive"]
    assert holder["heartbeat"] < 60
    os.kill(program.process.pid or 0, signal.SIGKILL)
    program.wait()
    assert asked(run, where, 2)["state"] == "stopped"
    start(spec, where, HASTY).finish()
    assert asked(run, where, 0)["state"] == "finished"
