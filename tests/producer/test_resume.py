"""Killed anywhere and run again: the same bytes, nothing twice, and nothing that was finished done again."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from .processes import DIE_BEFORE_FILE, start
from .scattered import PLACES, embeddings

CHIPS = 16 * len(PLACES)
LATER = partial(pytest.param, marks=pytest.mark.slow)
"""A moment that lies between two others, each of them two runs of the program."""


def receipts(release: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (release / ".run" / "receipts").glob("*.json")}


def coverage(release: Path) -> list[dict[str, object]]:
    return [row for path in (release / "coverage").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]


def assert_same(release: Path, undisturbed: Path) -> None:
    assert embeddings(release) == embeddings(undisturbed)
    assert len(embeddings(release)) == 3
    for name in ("sources.parquet", "gaps.geojson", "release.yaml", "coverage/zone=18.parquet", "reference.parquet"):
        assert (release / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not list(release.rglob(".tmp-*"))
    assert not list((release / ".run" / "attempts").iterdir())
    assert json.loads((release / ".run" / "run.json").read_text())["coverage"] == {"expected": CHIPS, "embedded": CHIPS}


def assert_nothing_half_done(release: Path) -> None:
    """What a reader sees after a death: whole files, each chip once."""
    ids = []
    for path in (release / "embeddings").rglob("*.parquet"):
        ids += pq.read_table(path, columns=["id"])["id"].to_pylist()
    assert len(ids) == len(set(ids))


def test_two_undisturbed_runs_are_the_same_and_the_second_does_nothing(begun: tuple[Path, Path]) -> None:
    spec, release = begun
    before = receipts(release)
    assert len(before) == len(PLACES)
    start(spec, release).finish()
    assert receipts(release) == before
    assert_same(release, release)


EVENTS: dict[str, Callable[[Path], bool]] = {
    "a unit begins": lambda out: any((out / ".run" / "attempts").glob("*.json")),
    "a part is written": lambda out: any((out / ".run" / "parts").glob("18*/*.arrow")),
    "a receipt is written": lambda out: any((out / ".run" / "receipts").glob("*.json")),
    "a file is published": lambda out: any((out / "embeddings").glob("*/*.parquet")),
}


@pytest.mark.parametrize(
    "event", [LATER("a unit begins"), "a part is written", LATER("a receipt is written"), "a file is published"]
)
def test_killed_when(event: str, spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "release"
    assert start(spec, out).kill_when(lambda: EVENTS[event](out))
    assert_nothing_half_done(out)
    finished = receipts(out)
    start(spec, out).finish()
    assert_same(out, begun[1])
    assert finished.items() <= receipts(out).items()  # not a byte of them was written again


@pytest.mark.parametrize(
    "name",
    [
        "unit.write_receipt",  # parts without a receipt
        "run.publish_file",  # receipts without a published file
        "run.keep_reference",  # a published file without its reference vectors
        LATER("second_pass.encode"),  # in the middle of computing them
        LATER("run.remove_parts"),  # a published file whose parts are still there
        LATER("run.publish_coverage"),  # all files, no coverage
        "run.dump_json",  # all but the record of the run
    ],
)
def test_dies_before(name: str, spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    module, _, function = name.partition(".")
    out = tmp_path / "release"
    die = f"""
import os, signal
from clay_publish.producer.execution import {module}
{module}.{function} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""
    assert start(spec, out, die).wait() == -signal.SIGKILL
    assert_nothing_half_done(out)
    finished = receipts(out)
    start(spec, out).finish()
    assert_same(out, begun[1])
    assert finished.items() <= receipts(out).items()


@pytest.mark.slow
def test_dies_again_and_again_between_a_file_and_its_name(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    """A run writes about forty files; this one dies before one of them is put in its place, at another each time."""
    out, died = tmp_path / "release", 0
    for number in (1, 9, 13, 6, 8):
        ended = start(spec, out, DIE_BEFORE_FILE.format(number=number)).wait()
        assert ended in {0, -signal.SIGKILL}
        died += ended != 0
        assert_nothing_half_done(out)
    assert died > 3
    start(spec, out).finish()
    assert_same(out, begun[1])


@pytest.mark.slow
def test_the_program_itself_is_killed(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "release"
    program = [Path(sys.executable).with_name("clay-publish"), "produce", spec, "--out", out, "--quiet"]
    running = subprocess.Popen(program)
    while running.poll() is None and not EVENTS["a receipt is written"](out):
        time.sleep(0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    subprocess.run(program, check=True, capture_output=True)
    assert_same(out, begun[1])


def test_unfinished_files_of_the_dead_are_collected(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(begun[1], tmp_path / "release"))
    for place in (".run/parts/.tmp-1", "embeddings/zone=18/.tmp-2", ".tmp-3"):
        (out / place).write_bytes(b"half")
    start(spec, out).finish()
    assert_same(out, begun[1])


def test_what_is_missing_or_damaged_is_made_again(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "release"
    unpublished = "from clay_publish.producer.execution import run\nrun.publish_file = lambda *_: False"
    start(spec, out, unpublished).finish(code=2)  # it sees that nothing was published
    parts = sorted((out / ".run" / "parts").glob("18*/*.arrow"))
    assert len(parts) == 5
    parts[0].write_bytes(parts[0].read_bytes()[:-100])
    flipped = bytearray(parts[1].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    parts[1].write_bytes(flipped)
    parts[2].unlink()
    assert not (out / "embeddings").exists()
    start(spec, out).finish()
    assert_same(out, begun[1])


def test_a_published_file_that_was_removed_is_made_again(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(begun[1], tmp_path / "release"))
    first = min((out / "embeddings").rglob("*.parquet"))
    first.unlink()
    start(spec, out).finish()
    assert_same(out, begun[1])
