"""On Ray: the same bytes as on one machine, whatever dies."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from array_copy import arrays_below
from program import end_all, fork
from s3_servers import KEY, SECRET, S3View, free_port

from clay_publish.errors import EncoderError, StoreError
from clay_publish.producer.encoders import random_features
from clay_publish.producer.execution.attempts import TRIES, at_work
from clay_publish.producer.execution.context import StoppedError
from clay_publish.producer.execution.ray import worker as worker_module
from clay_publish.producer.execution.ray.worker import Job, Worker
from clay_publish.producer.execution.run import Ready
from clay_publish.producer.planning.image_files import identify_files
from clay_publish.producer.unit_plan import Plan, read_inputs
from clay_publish.progress import silent
from clay_publish.release.directory import Release
from clay_publish.release.lease import holders
from clay_publish.release.manifest import UNITS, libraries
from clay_publish.release.unit_receipts import read_receipts
from clay_publish.spec.load import load_spec
from clay_publish.spec.models import Composite
from clay_publish.storage.store import Store
from clay_publish.windows import Window

from .cloudy import YEAR, cloudy
from .many import CHIPS
from .places import NAMES, embeddings_in
from .processes import Program, start, until
from .scattered import assert_same, embeddings
from .test_composite import CHIPS as CHIPS_64
from .test_composite import made_of
from .test_verdicts import check_whole

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]
ON_RAY = ("--engine", "ray", "--workers", "2")
TOKEN = "5" * 64
ALONE: dict[str, str] = {}
"""What is added to the environment of a process of its own: that of the tests may be connected to a cluster already, of
this machine, which serves all that the process does.
"""


@dataclass
class Cluster:
    """Two nodes on this machine, started as anybody would."""

    address: str
    faults: Path
    nodes: list[subprocess.Popen[bytes]]

    def put(self, fault: str) -> Path:
        path = self.faults / fault
        path.touch()
        return path

    def held(self, name: str) -> list[psutil.Process]:
        """Workers that a fault keeps."""
        numbers = [int(note.name.rpartition("-")[2]) for note in self.faults.glob(f"held-{name}-*")]
        there = [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]
        return [process for process in there if _called(process).startswith("ray::")]

    def workers(self) -> list[psutil.Process]:
        """Processes that hold a model, or do another task."""
        below = (child for node in self.nodes for child in psutil.Process(node.pid).children(recursive=True))
        return [child for child in below if _called(child).startswith(("ray::Worker", "ray::_scan"))]

    def end_workers(self) -> None:
        """Wait until no worker is left, now that no driver is."""
        while workers := self.workers():
            _, left = psutil.wait_procs(workers, timeout=60)
            assert not left, [_called(process) for process in left]

    def clear(self) -> None:
        """Leave nothing to the next test, however this one ended."""
        end_all()
        try:
            self.end_workers()
        finally:
            for fault in self.faults.iterdir():
                fault.unlink()


def _called(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, ministack: str) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    faults, port = folder / "faults", free_port()
    faults.mkdir()
    shutil.copyfile(Path(__file__).with_name("faults_on_ray.py"), folder / "sitecustomize.py")
    settings = {"ENDPOINT_URL": ministack, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-west-2"}
    env = {
        **os.environ,
        **{f"AWS_{name}": value for name, value in settings.items()},
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "FAULTS": str(faults),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    nodes: list[subprocess.Popen[bytes]] = []

    def node(*arguments: str) -> None:
        program = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1", *arguments]
        with (folder / f"node-{len(nodes)}.log").open("wb") as log:
            nodes.append(subprocess.Popen(program, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    short = Path("/tmp") / f"ray-{port}"  # noqa: S108 - the sockets in it allow for no long name
    try:
        node(
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={short}",
            "--object-store-memory=80000000",
        )
        _until(lambda: "Ray runtime started" in (folder / "node-0.log").read_text(), nodes[0])
        node(f"--address=127.0.0.1:{port}", "--object-store-memory=80000000")
        _until(lambda: "Ray runtime started" in (folder / "node-1.log").read_text(), nodes[1])
        yield Cluster(f"127.0.0.1:{port}", faults, nodes)
    finally:
        below = [child for each in nodes for child in psutil.Process(each.pid).children(recursive=True)]
        for each in reversed(nodes):
            each.terminate()
        for each in reversed(nodes):
            each.wait(60)
        _, left = psutil.wait_procs(below, timeout=20)
        shutil.rmtree(short, ignore_errors=True)
    assert not left, [_called(process) for process in left]


def _until(seen: Callable[[], object], node: subprocess.Popen[bytes]) -> None:
    while not seen():
        assert node.poll() is None
        time.sleep(0.1)


@pytest.fixture
def cluster(started: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    yield started
    started.clear()


def receipts(release: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (release / ".run" / "receipts").glob("*.json")}


def holder(cluster: Cluster, running: Program, name: str) -> psutil.Process:
    """Return a process that a fault keeps, as soon as one is."""
    until(running, lambda: cluster.held(name))
    return cluster.held(name)[0]


def preempt(process: psutil.Process) -> None:
    """Take its machine away."""
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=60)
    assert not alive


def test_two_hundred_units_whose_workers_are_killed(
    cluster: Cluster, two_hundred: tuple[Path, Path], tmp_path: Path
) -> None:
    """One in the middle of a unit, which is not finished before; later another, wherever it is."""
    spec, undisturbed = two_hundred
    out, hold = tmp_path / "release", cluster.put("hold-part-007")
    running = start(spec, out, more=ON_RAY)
    until(running, lambda: len(receipts(out)) > 20)
    holder(cluster, running, "part-007").kill()
    hold.unlink()
    until(running, lambda: len(receipts(out)) > 60)
    finished = receipts(out)
    cluster.workers()[0].kill()
    (out / ".run" / "attempts" / ".tmp-of-the-killed").touch()  # where it was writing at that moment
    running.finish()
    assert "retries remaining" not in running.errors.read_text()
    assert_same(out, undisturbed, 200 * CHIPS)
    assert finished.items() <= receipts(out).items()  # not a byte of them was written again


def test_a_run_goes_on_from_one_engine_to_the_other(cluster: Cluster, forty: tuple[Path, Path], tmp_path: Path) -> None:
    """Begun on Ray, where the driver is killed; here, killed; and finished on Ray."""
    spec, undisturbed = forty
    out, done = tmp_path / "release", dict[str, bytes]()
    for engine in (ON_RAY, ()):
        running = start(spec, out, more=engine)
        enough = len(done) + 8
        assert running.kill_when(lambda enough=enough: len(receipts(out)) >= enough)  # type: ignore[misc]
        if engine:
            cluster.end_workers()  # none runs without the driver
        assert done.items() <= receipts(out).items()
        done = receipts(out)
    start(spec, out, more=ON_RAY).finish()
    assert_same(out, undisturbed, 40 * CHIPS)
    assert done.items() <= receipts(out).items()


def test_preempted_workers_give_their_units_back(
    cluster: Cluster, spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    """However often: they are not blamed, and another worker begins at once, while a server keeps the first waiting."""
    out, hold = tmp_path / "release", cluster.put("hold-across")
    running = start(spec, out, more=ON_RAY)
    for _ in range(TRIES + 1):
        preempt(holder(cluster, running, "across"))
    holder(cluster, running, "across")
    notes = out / ".run" / "attempts"
    until(running, lambda: len(receipts(out)) == 3 and len(list(notes.glob("*.json"))) == 1)  # the others have ended
    (attempt,) = notes.iterdir()
    assert json.loads(attempt.read_text()) == {"runs": 1}
    hold.unlink()
    running.finish()
    assert_same(out, begun[1], 64)


def test_a_file_whose_worker_is_preempted(
    cluster: Cluster, spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    """More often in the middle of writing it than it may end a worker."""
    out, name = tmp_path / "release", "18_05_41_2016-01-12_2016-01-13"
    hold, running = cluster.put(f"hold-{name}"), start(spec, out, more=ON_RAY)
    for _ in range(TRIES + 1):
        worker = holder(cluster, running, name)
        half = {Path(file.path) for file in worker.open_files()} & set(out.rglob(".tmp-*"))
        assert half
        preempt(worker)
        assert not half & set(out.rglob(".tmp-*"))
    hold.unlink()
    running.finish()
    assert_same(out, begun[1], 64)
    assert check_whole(out) == check_whole(begun[1])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_stops_its_workers(
    cluster: Cluster, spec: Path, begun: tuple[Path, Path], tmp_path: Path, sent: signal.Signals
) -> None:
    out, hold = tmp_path / "release", cluster.put("hold-across")
    running = start(spec, out, more=ON_RAY)
    holder(cluster, running, "across")
    os.kill(running.process.pid or 0, sent)
    assert running.wait() == 128 + sent
    (line,) = running.errors.read_text().splitlines()
    assert line.startswith("interrupted: ")
    assert not list(out.rglob(".tmp-*"))
    assert not list((out / ".run" / "attempts").iterdir())
    assert holders(Release(str(out))) == []
    cluster.end_workers()
    hold.unlink()
    start(spec, out, more=ON_RAY).finish()
    assert_same(out, begun[1], 64)


def test_composites_whose_workers_are_killed(cluster: Cluster, shared_data: Path, tmp_path: Path) -> None:
    """Two images of each quarter of a year, as rows and as arrays."""
    (tmp_path / "here").mkdir()
    scenes = cloudy(tmp_path, shared_data / "s2_l1c_T18SVG_20160112" / "item.json")
    quarters = [str(part) for part in Window.parse(YEAR).split(4)]
    imagery = {"windows": quarters, "composite": {"method": "median", "images": 2}}
    made = made_of(
        tmp_path / "here",
        scenes.items,
        imagery=imagery,
        chips={**CHIPS_64, "max_nodata": 0.9},
        outputs={"arrays": True},
    )
    spec, out = Path(shutil.copy(tmp_path / "here" / "release.yaml", tmp_path)), tmp_path / "release"
    fault = cluster.put("kill-shard")
    running = start(spec, out, more=ON_RAY)
    until(running, lambda: len(receipts(out)) > 0)
    cluster.workers()[0].kill()
    running.finish()
    assert not fault.exists()  # a worker was about to assemble a shard
    there = Path(made.release.store.where)
    assert embeddings(out) == embeddings(there)
    assert len(embeddings(out)) == len(quarters)
    covered = [path.relative_to(there) for path in (there / "coverage").rglob("*.parquet")]
    for name in ("sources.parquet", "reference.parquet", "gaps.geojson", *covered):
        assert (out / name).read_bytes() == (there / name).read_bytes(), name
    assert arrays_below(out) == arrays_below(there) != {}


def test_a_unit_that_ends_every_worker_is_set_aside(
    cluster: Cluster, spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    """With the same words as on one machine; those that died beside it are done."""
    out = tmp_path / "release"
    poison = cluster.put("kill-across")
    start(spec, out, more=ON_RAY).finish(code=1)
    rows = [row for path in (out / "coverage").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    lost = [row for row in rows if row["status"] == "missing"]
    assert {(row["reason"], *row["item_ids"]) for row in lost} == {("failed", "across")}
    (detail,) = {row["detail"] for row in lost}
    assert detail.startswith("ended its process 3 times (at last by SIGKILL)")
    assert len(lost) == 16
    poison.unlink()
    start(spec, out).finish()
    assert_same(out, begun[1], len(rows))


def test_on_an_object_store(cluster: Cluster, spec: Path, begun: tuple[Path, Path], bucket: S3View) -> None:
    hold = cluster.put("hold-across")
    running = start(spec, f"s3://{bucket.bucket}/release", more=ON_RAY)
    holder(cluster, running, "across").kill()
    hold.unlink()
    running.finish()
    assert "retries remaining" not in running.errors.read_text()
    assert embeddings_in(bucket) == embeddings(begun[1])
    for name in NAMES:
        assert bucket.get(f"release/{name}") == (begun[1] / name).read_bytes(), name
    assert not bucket.names("release/.run/attempts/")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_validation_whose_worker_is_killed(
    cluster: Cluster, forty: tuple[Path, Path], tmp_path: Path, run: Run, sent: signal.Signals
) -> None:
    """The same report as from one process; what was kept of files is used."""
    release = shutil.copytree(forty[1], tmp_path / "release")
    expected = run("validate", release, "--json", "--quiet", code=1).stdout
    fault = cluster.put("kill-scan")
    fault.write_text(f"{sent:d}")
    found = run("validate", release, *ON_RAY, "--json", "--quiet", code=1, env=ALONE).stdout
    assert found == expected
    assert not fault.exists()
    assert not list((release / ".run" / "scans").rglob("*.*"))


def test_a_validation_whose_workers_are_preempted(
    cluster: Cluster, forty: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    """More often than they may crash."""
    release = shutil.copytree(forty[1], tmp_path / "release")
    expected = run("validate", release, "--json", "--quiet", code=1).stdout
    faults = [cluster.put(f"leave-scan-{number}") for number in range(5)]
    one = ("--engine", "ray", "--workers", "1")
    assert run("validate", release, *one, "--json", "--quiet", code=1, env=ALONE).stdout == expected
    assert not any(fault.exists() for fault in faults)


def test_a_validation_whose_driver_is_killed(
    cluster: Cluster, forty: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    """The run stops with it; begun again, it uses what was kept."""
    release = shutil.copytree(forty[1], tmp_path / "release")
    command = ["validate", str(release), *ON_RAY, "--json", "--quiet"]
    expected = run("validate", release, "--json", "--quiet", code=1).stdout
    hold, out, errors = cluster.put("hold-scan"), tmp_path / "out", tmp_path / "errors"
    running = Program(fork(command, out=out, errors=errors), errors)
    until(running, lambda: list((release / ".run" / "scans").rglob("*.npz")))
    running.kill()
    hold.unlink()
    cluster.end_workers()
    assert out.read_text() == ""
    kept = list((release / ".run" / "scans").rglob("*.npz"))
    assert 0 < len(kept) < len(Release(str(release)).data_files())
    assert run(*command, code=1, env=ALONE).stdout == expected
    assert not list((release / ".run" / "scans").rglob("*.*"))


def test_without_a_cluster_one_of_this_machine_is_started_and_ended(
    run: Run, tmp_path: Path, sample_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample. Ray is asked for in the spec, which decides nothing that is published."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    spec = Path(shutil.copytree(sample_release.parent / "first", tmp_path / "first")) / "release.yaml"
    with spec.open("a") as file:
        file.write("\nrun: {engine: ray, workers: 1}\n")
    before = {process.pid for process in psutil.process_iter()}
    out = tmp_path / "release"
    # HOME is another: it is looked into for what was left there.
    run("produce", spec, "--out", out, "--quiet", env={"HOME": str(tmp_path)})
    left = [process for process in psutil.process_iter() if process.pid not in before]
    _, left = psutil.wait_procs([process for process in left if "ray" in _called(process)], timeout=60)
    assert [_called(process) for process in left if str(tmp_path) in _called(process)] == []
    made = {path.relative_to(out) for path in out.rglob("*.parquet") if ".run" not in path.parts}
    assert len(made) > 2
    for path in (*made, "release.yaml", "gaps.geojson"):
        assert (out / path).read_bytes() == (sample_release / path).read_bytes(), path
    assert not (tmp_path / ".ray").exists()


@pytest.fixture
def job(begun: tuple[Path, Path]) -> Job:
    """What a worker receives of a release that is there."""
    spec, release = load_spec(begun[0]), Release(str(begun[1]))
    return Job(
        where=release.store.where,
        spec=spec,
        plan=Plan((), release.fingerprint(), {}),
        sha256=release.json(UNITS)["sha256"],
        gsd=10.0,
        cores=1,
        libraries=libraries(),
    )


def test_a_worker_refuses_a_reduction_that_it_lacks(job: Job) -> None:
    block = job.spec.imagery[0].model_copy(update={"composite": Composite(method="x-mine")})
    chips = job.spec.chips.model_copy(update={"layout": "utm"})
    refused = Worker(dataclasses.replace(job, spec=job.spec.model_copy(update={"imagery": [block], "chips": chips})))
    assert "'x-mine' is not registered" in str(refused.begin())


def test_a_worker_does_what_the_driver_does_or_refuses(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.uname().nodename
    assert Worker(job).begin() is None

    said = str(Worker(dataclasses.replace(job, where="/not/there")).begin())
    assert f"/not/there on {machine}: holds no plan" in said
    assert "on shared storage, or on s3://" in said
    said = str(Worker(dataclasses.replace(job, sha256="5" * 64)).begin())
    assert f"{job.where} on {machine}: holds another plan" in said
    said = str(Worker(dataclasses.replace(job, libraries={**job.libraries, "numpy": "1.0"})).begin())
    assert f"the installation on {machine}: has numpy {job.libraries['numpy']}, not 1.0" in said
    monkeypatch.setattr(random_features, "SEED", 7)
    refused = Worker(job).begin()
    assert isinstance(refused, EncoderError)
    assert f"the model on {machine}: is not the planned one (weights_sha256: '" in str(refused)


def test_a_worker_that_stops_says_so(
    job: Job, begun: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first pass and in the second: another worker does it, and the run goes on."""
    monkeypatch.setattr(worker_module, "remove_unfinished", lambda: None)  # which ends all writing of this process
    out = shutil.copytree(begun[1], tmp_path / "release")
    shutil.rmtree(out / ".run" / "reference")
    inputs, release = read_inputs(job.spec, report=silent), Release(str(out))
    identify_files(release, inputs.selection.considered, inputs.sensor)
    units = inputs.plan().units
    file, done = min(units[0].files), read_receipts(release)
    mine = tuple(unit for unit in units if file in unit.files)
    worker = Worker(dataclasses.replace(job, where=str(out)))
    assert worker.begin() is None
    worker.stop()
    assert isinstance(worker.make(units[0], 1), StoppedError)
    assert isinstance(worker.publish(Ready(file, mine, tuple(done[unit.id] for unit in mine), 4)), StoppedError)


@pytest.mark.parametrize("answers", [True, False])
def test_a_worker_leaves_while_its_store_is_out_of_reach(
    job: Job, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """It ends, whether the server refuses or does not answer at all, and a unit ends with its own error."""
    ended: list[int] = []
    monkeypatch.setattr(worker_module, "remove_unfinished", lambda: None)
    monkeypatch.setattr(worker_module.os, "_exit", ended.append)
    monkeypatch.setattr(worker_module, "_STOPPING", 0.2)
    monkeypatch.setattr(worker_module, "_FAREWELL", 0.0)
    worker, silent_server = Worker(job), threading.Event()
    assert worker.begin() is None
    assert worker._made is not None

    def remove(_: Store, path: str) -> None:
        if not answers:
            silent_server.wait()
        raise StoreError(path, "cannot be reached")

    def fail() -> None:
        worker.leave()
        silent_server.set()
        raise LookupError("first")

    monkeypatch.setattr(Store, "write", lambda *_: None)
    monkeypatch.setattr(Store, "remove", remove)
    with pytest.raises(LookupError, match="first"), at_work(worker._made, "a unit", 1):
        fail()
    assert ended == [0]
