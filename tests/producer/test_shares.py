"""Shares of a run: four processes make one release, in whatever order, and one of them finishes it."""

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from s3_servers import S3View

from clay_publish.producer.planning.image_files import identify_files
from clay_publish.producer.unit_plan import read_inputs, units_of
from clay_publish.progress import silent
from clay_publish.release.directory import Release
from clay_publish.release.lease.base import Share
from clay_publish.spec.load import load_spec

from .many import CHIPS
from .places import HASTY, NAMES, embeddings_in
from .processes import Program, start
from .scattered import assert_same, embeddings
from .test_verdicts import check_whole

Begun = tuple[Path, Path]


def begin(spec: Path, out: Path | str, numbers: Iterable[int], of: int = 4, first: str = "") -> list[Program]:
    return [start(spec, out, first, ("--unit", f"{number}/{of}")) for number in numbers]


def said(program: Program) -> str:
    program.finish()
    return program.errors.read_text()


@pytest.mark.slow
def test_four_at_once_make_the_same_release_as_one(forty: Begun, tmp_path: Path) -> None:
    """They plan at the same moment, and files are of several of them. One finishes, never two."""
    spec, undisturbed = forty
    out = tmp_path / "release"
    ended = [said(program) for program in begin(spec, out, (1, 2, 3, 4))]
    assert_same(out, undisturbed, 40 * CHIPS)
    assert sum(f"{40 * CHIPS} of {40 * CHIPS} expected chips" in text for text in ended) == 1
    assert sum("is done (10 units)" in text for text in ended) == 3
    assert len(list((out / ".run").glob("files-*.parquet"))) == 1


def test_one_after_the_other_and_the_last_finishes(spec: Path, begun: Begun, tmp_path: Path) -> None:
    out = tmp_path / "release"
    for number, left in ((3, 3), (1, 2), (4, 1)):
        (program,) = begin(spec, out, [number])
        assert f"share {number}/4 is done (1 units); {left} units of other shares are not" in said(program)
        assert not (out / "coverage").exists()
    (program,) = begin(spec, out, [2])
    assert "64 of 64 expected chips" in said(program)
    assert_same(out, begun[1], 64)
    assert check_whole(out) == check_whole(begun[1])
    record = (out / ".run" / "run.json").stat().st_mtime_ns
    (program,) = begin(spec, out, [2])
    assert "another worker finishes the release, or has" in said(program)
    assert (out / ".run" / "run.json").stat().st_mtime_ns == record


@pytest.mark.parametrize("damaged", ["embeddings", "gaps.geojson", pytest.param("coverage", marks=pytest.mark.slow)])
def test_missing_and_damaged_files_are_made_again(damaged: str, spec: Path, begun: Begun, tmp_path: Path) -> None:
    """As by a whole run, also by those whose units are all there, and whichever process made the release before."""
    out = Path(shutil.copytree(begun[1], tmp_path / "release"))
    if damaged == "gaps.geojson":
        (out / damaged).write_bytes(b"{")
    else:
        for file in (out / damaged).rglob("*.parquet"):
            file.unlink()
    for program in begin(spec, out, (1, 2), of=2):
        program.finish()
    assert_same(out, begun[1], 64)
    record = (out / ".run" / "run.json").stat().st_mtime_ns
    (program,) = begin(spec, out, [2], of=2)
    assert "another worker finishes the release, or has" in said(program)
    assert (out / ".run" / "run.json").stat().st_mtime_ns == record


def test_a_share_finishes_for_one_that_was_killed_at_the_end(spec: Path, begun: Begun, tmp_path: Path) -> None:
    """The release was claimed, and lacks the record of the run."""
    out = tmp_path / "release"
    die = """
import os
from clay_publish.producer.execution import run
run.dump_measurements = lambda *_: os._exit(9)
"""
    (killed,) = begin(spec, out, [1], of=1, first=die)
    assert killed.wait() == 9
    assert (out / ".run" / "finished.json").exists()
    (program,) = begin(spec, out, [1], of=1)
    assert "64 of 64 expected chips" in said(program)
    assert_same(out, begun[1], 64)


def test_those_that_end_at_the_same_moment_leave_it_to_one(spec: Path, begun: Begun, tmp_path: Path) -> None:
    """Each waits, with its units done, until all are."""
    out = tmp_path / "release"
    together = f"""
import pathlib, time
from clay_publish.producer import produce as shares
real = shares._left
def left(run):
    pathlib.Path({str(tmp_path)!r}, f"done-{{run.share.number}}").touch()
    while len(list(pathlib.Path({str(tmp_path)!r}).glob("done-*"))) < 4:
        time.sleep(0.005)
    return real(run)
shares._left = left
"""
    ended = [said(program) for program in begin(spec, out, (1, 2, 3, 4), first=together)]
    assert sum("64 of 64 expected chips" in text for text in ended) == 1
    assert sum("another worker finishes the release, or has" in text for text in ended) == 3
    assert_same(out, begun[1], 64)


def test_one_is_killed_and_the_others_leave_its_units(spec: Path, begun: Begun, tmp_path: Path) -> None:
    """What it left half done is neither swept away by them nor taken for finished."""
    out = tmp_path / "release"
    die = """
import os
from clay_publish.producer.execution import unit
unit.write_receipt = lambda *_: os._exit(9)
"""
    (killed,) = begin(spec, out, [2], first=die)
    assert killed.wait() == 9
    parts = {path.name for path in (out / ".run" / "parts").rglob("*.arrow")}
    for program in begin(spec, out, (1, 3, 4)):
        assert "units of other shares are not" in said(program)
    assert parts <= {path.name for path in (out / ".run" / "parts").rglob("*.arrow")}
    assert len(list((out / ".run" / "attempts").iterdir())) == 1
    (program,) = begin(spec, out, [2])
    assert "64 of 64 expected chips" in said(program)
    assert_same(out, begun[1], 64)


def test_a_whole_run_takes_over_what_shares_have_done(spec: Path, begun: Begun, tmp_path: Path) -> None:
    out = tmp_path / "release"
    for program in begin(spec, out, (1, 2), of=3):
        program.finish()
    done = {path.name: path.stat().st_mtime_ns for path in (out / ".run" / "receipts").iterdir()}
    assert done
    start(spec, out).finish()
    assert_same(out, begun[1], 64)
    after = {path.name: path.stat().st_mtime_ns for path in (out / ".run" / "receipts").iterdir()}
    assert done.items() <= after.items()


@pytest.mark.slow
def test_units_that_fail_do_not_keep_the_last_from_finishing(spec: Path, begun: Begun, tmp_path: Path) -> None:
    out, file = tmp_path / "release", spec.with_name("across_B02.tif")
    file.rename(tmp_path / "elsewhere.tif")
    codes = sorted(program.wait() for program in begin(spec, out, (1, 2), of=2))
    assert codes == [0, 1]  # who finishes says that something is missing
    assert json.loads((out / ".run" / "run.json").read_text())["coverage"] == {
        "expected": 49,
        "embedded": 48,
        "unreadable": 1,
    }
    shutil.move(tmp_path / "elsewhere.tif", file)
    for program in begin(spec, out, (1, 2), of=2):
        program.finish()
    assert embeddings(out) == embeddings(begun[1])


@pytest.mark.slow
def test_on_an_object_store(spec: Path, begun: Begun, bucket: S3View) -> None:
    out = f"s3://{bucket.bucket}/release"
    ended = [said(program) for program in begin(spec, out, (1, 2, 3, 4))]
    assert sum("64 of 64 expected chips" in text for text in ended) == 1, ended
    assert embeddings_in(bucket) == embeddings(begun[1])
    for name in NAMES:
        assert bucket.get(f"release/{name}") == (begun[1] / name).read_bytes(), name
    assert not bucket.names("release/.run/attempts/")


@pytest.mark.slow  # waits until a lease is lost
def test_of_two_that_finish_one_does(spec: Path, begun: Begun, bucket: S3View, tmp_path: Path) -> None:
    """One gives no sign of life while it finishes: another takes its place, and the first learns of it at the end."""
    out, held, go = f"s3://{bucket.bucket}/release", tmp_path / "held", tmp_path / "go"
    (program,) = begin(spec, out, [1], of=2, first=HASTY)
    assert "2 units of other shares are not" in said(program)
    silent = f"""{HASTY}
import pathlib, time
from clay_publish.producer.execution import run
real = run.dump_measurements
def dump_measurements(*given):
    pathlib.Path({str(held)!r}).touch()
    while not pathlib.Path({str(go)!r}).exists():
        time.sleep(0.01)
    return real(*given)
run.dump_measurements = dump_measurements
lease_objects._Mine._beat = lambda _: None
"""
    (first,) = begin(spec, out, [2], of=2, first=silent)
    while not held.exists():
        assert first.process.is_alive(), first.errors.read_text()
        time.sleep(0.01)
    (second,) = begin(spec, out, [1], of=2, first=HASTY)
    assert "64 of 64 expected chips" in said(second)
    finished = bucket.get("release/.run/finished.json")
    bucket.put("release/run.json", b"as the second wrote it, of other receipts")
    go.touch()
    assert "another worker finishes the release, or has" in said(first)
    assert bucket.get("release/.run/finished.json") == finished
    assert bucket.get("release/run.json").startswith(b"as the second wrote it")
    assert embeddings_in(bucket) == embeddings(begun[1])
    assert json.loads(bucket.get("release/.run/leases/whole.json"))["free"]


@pytest.mark.parametrize("arguments", [("--unit", "5/4"), ("--unit", "0/4"), ("--unit", "half"), ("--workers", "2")])
def test_what_makes_no_sense_is_refused(arguments: tuple[str, str], spec: Path, tmp_path: Path) -> None:
    refused = start(spec, tmp_path / "release", more=arguments)
    assert refused.wait() == 2
    text = refused.errors.read_text()
    assert arguments[1] in text
    assert "expected" in text
    assert "Traceback" not in text
    assert not (tmp_path / "release" / "embeddings").exists()


def test_each_unit_is_of_one_share_and_shares_are_alike(forty: Begun, tmp_path: Path) -> None:
    spec = load_spec(forty[0])
    inputs = read_inputs(spec, report=silent)
    identify_files(Release(str(tmp_path)), inputs.selection.considered, inputs.sensor)
    plan = inputs.plan()
    for of in (1, 2, 3, 7, 40, 45):
        shares = [units_of(Share(number, of), plan.units) for number in range(1, of + 1)]
        assert sorted(unit.id for share in shares for unit in share) == sorted(unit.id for unit in plan.units)
        chips = [sum(unit.chips for unit in share) for share in shares]
        assert max(chips) - min(chips) <= 2 * CHIPS  # a unit at either end
    files = [{unit.files for unit in units_of(Share(number, 5), plan.units)} for number in range(1, 6)]
    assert sum(len(each) for each in files) <= len(set.union(*files)) + 4  # most are of one share alone
