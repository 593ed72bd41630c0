"""`reference.parquet`: which chips are computed a second time, and what happens where their imagery is gone."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clay_publish.producer.execution import context
from clay_publish.release.directory import Release
from clay_publish.release.tables import chips_per_file, expected_chips
from clay_publish.validate import validate

from .processes import start
from .scattered import PLACES

GONE = """
from clay_publish.errors import ImageryError
from clay_publish.producer.execution import second_pass
real = second_pass.ahead
def ahead(blocks, pace):
    for block in real(blocks, pace):
        if any(item.id == "east" for item in block.source if item is not None):
            raise ImageryError("east.tif", "is gone")
        yield block
second_pass.ahead = ahead
"""
"""One image can be read by the first pass alone."""


def test_each_file_gives_four_chips_and_a_release_64() -> None:
    assert chips_per_file([1000] * 16) == chips_per_file([1000] * 20_000) == 4
    assert (chips_per_file([1000]), expected_chips([1000])) == (64, 64)
    assert (chips_per_file([1000, 3, 1000]), expected_chips([1000, 3, 1000])) == (31, 65)
    assert expected_chips([10, 20]) == 30
    assert chips_per_file([3] * 30) == 4


def test_chosen_chips_have_the_lowest_hashes_of_their_file(begun: tuple[Path, Path]) -> None:
    found = set(pq.read_table(begun[1] / "reference.parquet")["id"].to_pylist())
    files = [pq.read_table(path)["id"].to_pylist() for path in (begun[1] / "embeddings").rglob("*.parquet")]
    count = chips_per_file([len(ids) for ids in files])
    lowest = [sorted(ids, key=lambda each: hashlib.sha256(each.encode()).hexdigest())[:count] for ids in files]
    assert found == {name for ids in lowest for name in ids}
    assert len(found) == 64


def test_chips_whose_imagery_is_gone_are_left_out_and_counted(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "release"
    start(spec, out, GONE).finish()
    kept = pq.read_table(out / "reference.parquet")["id"].to_pylist()
    assert len(kept) == 16 * (len(PLACES) - 1)
    assert not any("_east_" in name for name in kept)
    said = "16 of 64 reference vectors are left out, as their imagery cannot be read any more."
    assert said in json.loads((out / ".run" / "run.json").read_text())["notes"]
    findings = validate(Release(str(out)), only=["VEC014", "VEC019"]).findings
    assert [(finding.code, finding.found) for finding in findings] == [("VEC019", "has 48 rows")]

    start(spec, out).finish()
    assert (out / "reference.parquet").read_bytes() == (begun[1] / "reference.parquet").read_bytes()
    assert not json.loads((out / ".run" / "run.json").read_text())["notes"]


def test_a_second_pass_that_is_not_finite_ends_the_run(spec: Path, tmp_path: Path) -> None:
    nan = """
from clay_publish.producer.execution import second_pass
real = second_pass.encode
def encode(*arguments):
    made = real(*arguments)
    made.embeddings[0, 0] = float("nan")
    return made
second_pass.encode = encode
"""
    program = start(spec, tmp_path / "release", nan)
    program.finish(code=2)
    assert "has NaN or infinite values when it is computed again" in program.errors.read_text()


def test_time_without_a_unit_at_work_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass comes between units; what a budget and a plan's pace are about is the first."""
    now = [0.0]
    monkeypatch.setattr(context.time, "perf_counter", lambda: now[0])
    pace = context.Pace()
    now[0] += 5
    with pace.at_work():
        now[0] += 2
        with pace.at_work():  # side by side
            now[0] += 1
            assert pace.lap() == 3
        now[0] += 1
    now[0] += 7
    with pace.at_work():
        now[0] += 1
        assert pace.lap() == 2
