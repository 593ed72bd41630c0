"""What stands in the way of a run: other runs, other specs, full disks, units that fail. Afterwards it goes on."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from .processes import Program, start
from .scattered import embeddings, write_spec

Disk = tuple[Path, Callable[[str], None]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk of its own, and how to change its options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", folder]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder, lambda options: _remount(folder, options)
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)  # noqa: S607


def missing(release: Path) -> list[dict[str, str]]:
    rows = [row for path in (release / "coverage").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(rows) == len({row["id"] for row in rows})
    return [row for row in rows if row["status"] == "missing"]


def refusal(program: Program) -> str:
    """What a run says that does not begin."""
    assert program.wait() == 2, program.errors.read_text()
    said = program.errors.read_text()
    assert "Traceback" not in said
    return said


def test_a_second_run_is_refused_and_a_stale_one_blocks_no_run(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "release"
    first = start(spec, out)
    while not any((out / ".run" / "attempts").glob("*.json")):
        assert first.process.is_alive(), first.errors.read_text()
    pid = first.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    said = refusal(start(spec, out))
    assert f"is being worked on by process {pid} on " in said
    first.kill()
    start(spec, out).finish()
    assert embeddings(out) == embeddings(begun[1])


def test_another_spec_is_refused_and_what_differs_is_named(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(begun[1], tmp_path / "release"))
    before = embeddings(out)
    write_spec(spec.parent, chips={"layout": "scene", "size": 32})
    said = refusal(start(spec, out))
    assert "begun with another plan" in said
    assert "size: 64 → 32" in said
    write_spec(spec.parent, outputs={"dtype": "float16"})
    assert "dtype: 'float32' → 'float16'" in refusal(start(spec, out))
    assert embeddings(out) == before
    assert (out / "release.yaml").read_bytes() == (begun[1] / "release.yaml").read_bytes()


def test_other_weights_are_refused(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(begun[1], tmp_path / "release"))
    other = "from clay_publish.producer.encoders import random_features\nrandom_features.SEED = 7"
    said = refusal(start(spec, out, other))
    assert "weights_sha256: '" in said
    assert "parameters: " in said


def test_other_images_are_refused(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(begun[1], tmp_path / "release"))
    items = json.loads((spec.parent / "items.json").read_text())
    items["features"].pop()
    (spec.parent / "items.json").write_text(json.dumps(items))
    assert "begun with another plan (other images)" in refusal(start(spec, out))


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(spec: Path, begun: tuple[Path, Path], disk: Disk) -> None:
    folder, remount = disk
    out = folder / "release"
    said = refusal(start(spec, out))
    assert "No space left on device" in said
    assert str(out) in said
    for data in embeddings(out).values():
        assert data in embeddings(begun[1]).values()
    remount("size=64m")
    start(spec, out).finish()
    assert embeddings(out) == embeddings(begun[1])


def test_finished_units_survive_a_disk_that_fills_up(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    """After the first receipt no file can grow beyond a kilobyte."""
    out = tmp_path / "release"
    fill = """
import resource
from clay_publish.producer.execution import unit
real = unit.write_receipt
def write(*arguments):
    written = real(*arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    return written
unit.write_receipt = write
"""
    said = refusal(start(spec, out, fill))
    assert "File too large" in said
    finished = {p.name: p.read_bytes() for p in (out / ".run" / "receipts").glob("*.json")}
    assert 1 <= len(finished) <= 2
    start(spec, out).finish()
    assert embeddings(out) == embeddings(begun[1])
    for name, data in finished.items():
        assert (out / ".run" / "receipts" / name).read_bytes() == data


def test_an_output_that_is_read_only_is_named(spec: Path, disk: Disk) -> None:
    folder, remount = disk
    remount("ro")
    said = refusal(start(spec, folder / "release"))
    assert f"{folder / 'release'}: cannot be written to (Read-only file system)" in said


def test_a_unit_that_fails_is_set_aside_and_tried_again_by_the_next_run(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "release"
    tries = tmp_path / "tries"
    fail = f"""
from clay_publish.producer.layouts import scene_layout
real = scene_layout.read_scene
def read(item, *arguments):
    if item.id == "across":
        open({str(tries)!r}, "a").write("x")
        raise ValueError("an unforeseen fault in {tmp_path}")
    return real(item, *arguments)
scene_layout.read_scene = read
"""
    start(spec, out, fail).finish(code=1)
    assert tries.read_text() == "xxx"
    lost = missing(out)
    assert {(row["reason"], row["detail"]) for row in lost} == {("failed", "failed 3 times (ValueError)")}
    assert len(lost) == 16
    (trace,) = (out / ".run" / "failures").glob("*.txt")
    assert "an unforeseen fault" in trace.read_text()
    assert len(embeddings(out)) == 3
    assert embeddings(out) != embeddings(begun[1])
    start(spec, out).finish()
    assert embeddings(out) == embeddings(begun[1])  # its rows joined those that were published without it
    assert missing(out) == []


@pytest.mark.slow
def test_a_unit_that_runs_out_of_memory_is_set_aside(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    """The system kills two runs for what they hold; the third puts the unit in a process of its own and goes on."""
    out = tmp_path / "release"
    poison = """
import os, signal, threading, time
from clay_publish.producer.layouts import scene_layout
real = scene_layout.read_scene
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def out_of_memory():  # as the kernel does
    while held() < 2 << 30:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
def read(item, *arguments):
    if item.id != "across":
        return real(item, *arguments)
    threading.Thread(target=out_of_memory, daemon=True).start()
    filled = []
    while len(filled) < 400:
        filled.append(bytearray(b"x") * (16 << 20))
        time.sleep(0.001)
    raise AssertionError("no process refused")
scene_layout.read_scene = read
"""
    (tmp_path / "sitecustomize.py").write_text(poison)  # for the process of its own
    first = f"import os; os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n{poison}"
    assert start(spec, out, first).wait() == -signal.SIGKILL
    assert start(spec, out, first).wait() == -signal.SIGKILL
    start(spec, out, first).finish(code=1)
    (detail,) = {row["detail"] for row in missing(out)}
    assert detail.startswith("ended its process 3 times (at last by SIGKILL)")
    assert len(missing(out)) == 16
    start(spec, out).finish()
    assert embeddings(out) == embeddings(begun[1])
    assert missing(out) == []


def test_a_file_that_was_not_there_is_read_by_the_next_run(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out, file = tmp_path / "release", spec.with_name("across_B02.tif")
    file.rename(tmp_path / "elsewhere.tif")
    start(spec, out).finish(code=1)
    (row,) = missing(out)  # its number of chips is not known yet
    assert row["reason"] == "unreadable"
    assert row["item_ids"] == ["across"]
    (tmp_path / "elsewhere.tif").rename(file)
    start(spec, out).finish()
    assert missing(out) == []
    assert embeddings(out) == embeddings(begun[1])


def test_a_file_that_changes_between_two_runs_is_not_read(spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    out, file = tmp_path / "release", spec.with_name("across_B02.tif")
    die = "import os\nfrom clay_publish.producer.execution import local\nlocal.attempt = lambda *_: os._exit(9)"
    assert start(spec, out, die).wait() == 9  # planned, and nothing read
    shutil.move(file, tmp_path / "planned.tif")
    shutil.copyfile(spec.with_name("west_B02.tif"), file)
    start(spec, out).finish(code=1)
    assert {(row["reason"], tuple(row["item_ids"])) for row in missing(out)} == {("source_changed", ("across",))}
    assert len(missing(out)) == 16
    shutil.move(tmp_path / "planned.tif", file)
    start(spec, out).finish()
    assert embeddings(out) == embeddings(begun[1])
    assert missing(out) == []
