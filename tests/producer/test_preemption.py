"""A worker whose machine is taken away: its units are free at once, and nothing half done stays behind."""

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from s3_servers import S3View

from clay_publish.release.directory import Release
from clay_publish.release.lease import holders
from clay_publish.release.run_status import StatusReader
from clay_publish.release.unit_receipts import ATTEMPTS, RECEIPTS

from .places import embeddings_in, reached
from .processes import Program, start, until
from .scattered import assert_same, embeddings

Begun = tuple[Path, Path]

HOLD_IMAGE = """
import time
from clay_publish.producer.layouts import scene_layout
real = scene_layout.read_scene
def read_scene(item, *arguments):
    if item.id == "across":
        time.sleep(3600)
    return real(item, *arguments)
scene_layout.read_scene = read_scene
"""
"""A server does not answer to the request for one image."""

HOLD_MODEL = """
import time
from clay_publish.producer.execution import unit
unit.encode = lambda *_: time.sleep(3600)
"""

HOLD_PART = """
import time
from clay_publish.producer.execution import unit
def write_part(release, name, token, tables):
    with release.store.writer(f".run/parts/{token}/{name}.arrow") as file:
        file.write(b"half")
        file.flush()
        time.sleep(3600)
unit.write_part = write_part
"""

HOLD_FILE = """
import time
from clay_publish.producer.execution import run
def publish_file(release, file, *_):
    with release.store.writer(f"embeddings/{file.name}") as writer:
        writer.write(b"half")
        writer.flush()
        time.sleep(3600)
run.publish_file = publish_file
"""

TO_ANOTHER_THREAD = """
import signal, threading, time
from clay_publish.producer.execution import unit
once = threading.Lock()
def encode(*_):
    if once.acquire(blocking=False):
        signal.pthread_kill(threading.get_ident(), signal.{name})
    time.sleep(3600)
unit.encode = encode
"""
"""What the main thread waits for does not end when a signal arrives, as in the instant before a wait begins."""


def half_done(out: Path) -> list[Path]:
    return list(out.rglob(".tmp-*"))


def preempt(running: Program, *, code: int = 143) -> str:
    """Send SIGTERM, twice as service managers do, and give what it said, which is one line."""
    for _ in range(2):
        os.kill(running.process.pid or 0, signal.SIGTERM)
    assert running.wait() == code, running.errors.read_text()
    (line,) = running.errors.read_text().splitlines()
    return line


@pytest.mark.parametrize("more", [(), pytest.param(("--unit", "1/1"), marks=pytest.mark.slow)], ids=["run", "share"])
@pytest.mark.parametrize(
    "held",
    [HOLD_IMAGE, pytest.param(HOLD_MODEL, marks=pytest.mark.slow), HOLD_PART, HOLD_FILE],
    ids=["image", "model", "part", "file"],
)
def test_a_unit_is_free_at_once(more: tuple[str, ...], held: str, spec: Path, begun: Begun, tmp_path: Path) -> None:
    out = tmp_path / "release"
    running = start(spec, out, held, more)
    waits = (lambda: _begun(half_done(out))) if held in {HOLD_PART, HOLD_FILE} else (lambda: _at_work(out, ATTEMPTS))
    until(running, waits)
    line = preempt(running)
    assert line.startswith("interrupted: ")
    assert line.endswith("Run the same command again to continue." if "units are kept" in line else "again.")
    assert not half_done(out)
    assert not _at_work(out, ATTEMPTS)
    assert holders(Release(str(out))) == []
    assert StatusReader(Release(str(out))).read().state == "stopped"
    start(spec, out, more=more).finish()
    assert_same(out, begun[1], 64)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_does_not_wake_the_main_thread_is_heard(spec: Path, tmp_path: Path, name: str, code: int) -> None:
    out = tmp_path / "release"
    running = start(spec, out, TO_ANOTHER_THREAD.format(name=name))
    assert running.wait() == code
    assert running.errors.read_text() == "interrupted: nothing was finished yet. Run the same command again.\n"
    assert not _at_work(out, ATTEMPTS)


def _begun(files: list[Path]) -> bool:
    for path in files:
        with suppress(FileNotFoundError):  # it was finished meanwhile
            if path.read_bytes() == b"half":
                return True
    return False


def _at_work(out: Path, folder: str) -> list[Path]:
    return list((out / folder).glob("*.json"))


@pytest.mark.slow  # as on a disk
def test_a_unit_on_an_object_store_is_free_at_once(spec: Path, begun: Begun, bucket: S3View) -> None:
    """For workers of other machines, too: they need not wait for the lease to expire."""
    where = f"s3://{bucket.bucket}/release"
    share = ("--unit", "1/1")
    running = start(spec, where, HOLD_IMAGE, share)
    until(running, lambda: bucket.names("release/.run/attempts/"))
    preempt(running)
    assert not bucket.names("release/.run/attempts/")
    lease = json.loads(bucket.get("release/.run/leases/1-of-1.json"))
    assert lease["free"]
    assert holders(reached(bucket.address, where)) == []
    start(spec, where, more=share).finish()
    assert embeddings_in(bucket) == embeddings(begun[1])


@pytest.mark.slow  # three runs
def test_a_unit_alone_is_not_blamed(spec: Path, begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM reaches the process of a unit in which runs ended before, and then the run."""
    faults, out = tmp_path / "faults", tmp_path / "release"
    faults.mkdir()
    shutil.copyfile(Path(__file__).with_name("faults_on_ray.py"), faults / "sitecustomize.py")
    monkeypatch.setenv("FAULTS", str(faults))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(faults), *filter(None, [os.environ.get("PYTHONPATH")])]))
    hold = faults / "hold-across"
    hold.touch()
    running = start(spec, out, HOLD_IMAGE)
    until(running, lambda: len(_at_work(out, ATTEMPTS)) == 1 and len(_at_work(out, RECEIPTS)) == 3)
    running.kill()
    (note,) = _at_work(out, ATTEMPTS)
    note.write_text(json.dumps({"runs": 2}))
    running = start(spec, out)
    until(running, lambda: list(faults.glob("held-across-*")))
    (held,) = faults.glob("held-across-*")
    alone = psutil.Process(int(held.name.rpartition("-")[2]))
    assert _ignored(alone.pid) >> signal.SIGTERM - 1 & 1
    alone.terminate()
    preempt(running)
    _, alive = psutil.wait_procs([alone], timeout=60)
    assert not alive
    assert json.loads(note.read_text()) == {"runs": 2}
    assert len(_at_work(out, RECEIPTS)) == 3
    hold.unlink()
    start(spec, out).finish()
    assert_same(out, begun[1], 64)


def _ignored(process: int) -> int:
    """The set of signals that a process ignores."""
    status = Path(f"/proc/{process}/status").read_text().split()
    return int(status[status.index("SigIgn:") + 1], 16)
