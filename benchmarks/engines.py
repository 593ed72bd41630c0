"""The engines, side by side: what Ray costs a unit and in memory, what a death loses, and what a second worker brings.

python benchmarks/engines.py [--units 120]

Every case is a process of its own and a run of its own, of the same units: small ones, where the engine's own time
counts, or larger ones, where the work does. Ray is started on this machine for each, and ended.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml
from scenes import scene
from throughput import processor

from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.execution.attempts import attempt
from clay_publish.producer.execution.context import Work, make_work
from clay_publish.producer.execution.local import in_threads
from clay_publish.producer.execution.run import Run, run_units
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.produce import begin
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.lease import lease
from clay_publish.release.unit_receipts import read_receipts
from clay_publish.spec.load import load_spec
from clay_publish.spec.models import Running, Spec

SMALL, LARGE = 128, 512
"""Pixels per side of each image, which is a unit; chips have 64. There are three small ones for each larger one."""
_LOOK_EVERY = 2.0


class Watch:
    """When units were done, and the memory of this process and all below it."""

    def __init__(self) -> None:
        self.done: list[tuple[int, float, float]] = []
        self.memory = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self.begun = time.perf_counter()

    def __call__(self, step: Progress) -> None:
        """Receive a step."""
        if step.stage == "produce" and (not self.done or step.done > self.done[-1][0]):
            self.done.append((step.done, time.perf_counter() - self.begun, _cpu()))

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            me = psutil.Process()
            self.memory = max(self.memory, sum(_pss(each) for each in (me, *me.children(recursive=True))))

    def result(self) -> dict[str, float]:
        """Seconds per unit, seconds before the first, and megabytes."""
        self._stop.set()
        self._thread.join()
        (first, since, busy), (last, until, most) = next(each for each in self.done if each[0]), self.done[-1]
        each, cpu = (until - since) / (last - first), (most - busy) / (last - first)
        return {"each": each, "cpu": cpu, "before": since - each * first, "memory": self.memory / 1e6}


def _cpu() -> float:
    """Seconds of processor time that this process and those below it have had."""
    found = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            found += times.user + times.system
    return found


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def local(spec: Spec, release: Release) -> dict[str, float]:
    return _run(spec, release, in_threads)


def on_ray(spec: Spec, release: Release, workers: int, cpus: float, *, kill: bool = False) -> dict[str, float]:
    from clay_publish.producer.execution.ray import engine as ray_engine

    means = Running(engine="ray", workers=workers, cpus_per_worker=cpus)
    return _run(spec, release, partial(ray_engine.on_ray, means=means), kill=kill)


def _run(spec: Spec, release: Release, engine: Callable[..., None], *, kill: bool = False) -> dict[str, float]:
    encoder, watch = load_encoder(spec, spec.instrument), Watch()
    with lease(release) as held:
        run = begin(spec, release, encoder, report=watch, held=held)
        if kill:
            threading.Thread(target=_kill_one, args=(run,), daemon=True).start()
        receipts = run_units(run, engine)
    units = len(run.plan.units)
    return {**watch.result(), "units": units, "done": len(receipts), "again": sum(run.died.values())}


def _kill_one(run: Run) -> None:
    """End one worker of Ray, in the middle of its work."""
    while len(run.receipts) < len(run.plan.units) // 4:
        time.sleep(0.01)
    below = psutil.Process().children(recursive=True)
    worker = next(each for each in below if "ray::Worker" in " ".join(each.cmdline()))
    worker.kill()


_WORK: list[Work] = []


def _load(spec: Spec, where: str, fingerprint: Fingerprint) -> None:
    _WORK.append(make_work(Release(where), spec, load_encoder(spec, spec.instrument), fingerprint, cores=1))


def _one(unit: Unit) -> str:
    return attempt(unit, _WORK[0]).unit


def in_pool(spec: Spec, release: Release) -> dict[str, float]:
    """The same units in a ProcessPoolExecutor of two, one of whose processes is ended."""
    with lease(release) as held:
        run = begin(spec, release, load_encoder(spec, spec.instrument), report=lambda _: None, held=held)
    units = run.plan.units
    setup = (spec, release.store.where, run.plan.fingerprint)
    with ProcessPoolExecutor(2, _spawning(), _load, setup) as pool:
        futures: list[Future[str]] = [pool.submit(_one, unit) for unit in units]
        done = lost = 0
        for future in as_completed(futures):
            try:
                future.result()
            except BrokenProcessPool:
                lost += 1
            else:
                done += 1
            if done == len(units) // 4:
                os.kill(next(iter(pool._processes)), signal.SIGKILL)  # noqa: SLF001 - not public elsewhere
    return {"units": len(units), "done": done, "lost": lost, "receipts": len(read_receipts(release))}


def _spawning() -> Any:
    import multiprocessing

    return multiprocessing.get_context("spawn")


CASES: dict[str, tuple[int, Callable[[Spec, Release], dict[str, float]]]] = {
    "local": (SMALL, local),
    "ray": (SMALL, partial(on_ray, workers=1, cpus=os.cpu_count() or 1)),
    "one worker": (LARGE, partial(on_ray, workers=1, cpus=1)),
    "two workers": (LARGE, partial(on_ray, workers=2, cpus=1)),
    "killed on ray": (SMALL, partial(on_ray, workers=2, cpus=1, kill=True)),
    "killed in a pool": (SMALL, in_pool),
}


def _each(found: dict[str, float]) -> str:
    return f"{found['each'] * 1e3:.0f} ms a unit, {found['cpu'] * 1e3:.0f} ms of processor"


def write_specs(folder: Path, units: int) -> None:
    for count, side in ((units, SMALL), (units // 3, LARGE)):
        items = [
            scene(folder / str(side), side, f"scene-{n:03d}", 399_960.0 + n * side * 10).name for n in range(count)
        ]
        imagery = {"stac": items, "sensor": "sentinel-2-l2a"}
        document = {"name": "engines", "imagery": imagery, "chips": {"layout": "scene", "size": 64}}
        (folder / str(side) / "release.yaml").write_text(yaml.safe_dump(document))


def case(name: str, folder: Path) -> dict[str, float]:
    """One case, in a process of its own, which leaves its result in a file: Ray prints what it likes."""
    subprocess.run([sys.executable, __file__, "--case", name, str(folder)], check=True, stdout=sys.stderr)
    found: dict[str, float] = json.loads((folder / f"{name}.json").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=120, help="small ones")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        name, folder = asked.case[0], Path(asked.case[1])
        side, run = CASES[name]
        with tempfile.TemporaryDirectory() as out:
            found = run(load_spec(folder / str(side) / "release.yaml"), Release(out))
        (folder / f"{name}.json").write_text(json.dumps(found))
        return
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    with tempfile.TemporaryDirectory(prefix="clay-publish-") as temporary:
        folder = Path(temporary)
        write_specs(folder, asked.units)
        made = {name: case(name, folder) for name in CASES}
    here, there, one, two = (made[name] for name in ("local", "ray", "one worker", "two workers"))
    on_it, pool = made["killed on ray"], made["killed in a pool"]
    print("| what | measured | ratio |\n|---|---|---|")
    for what, measured, ratio in (
        (f"{here['units']:.0f} small units, local engine", _each(here), "1"),
        (
            "Ray, one worker with all cores",
            f"{_each(there)}: {(there['cpu'] - here['cpu']) * 1e3:+.0f} ms of processor",
            f"{there['each'] / here['each']:.2f} × the time",
        ),
        (
            "from the plan to the first unit, which Ray needs to start and to load the model",
            f"local {here['before']:.1f} s, Ray {there['before']:.1f} s",
            "",
        ),
        (
            "memory of all processes (PSS)",
            f"local {here['memory']:.0f} MB, Ray {there['memory']:.0f} MB",
            f"{there['memory'] - here['memory']:+.0f} MB",
        ),
        (f"{one['units']:.0f} larger units on Ray, one worker of one core", _each(one), "1"),
        ("two workers of one core", _each(two), f"{one['each'] / two['each']:.2f} × as fast"),
        (
            "a process dies: ProcessPoolExecutor",
            f"{pool['done']:.0f} of {pool['units']:.0f} units came back, {pool['lost']:.0f} did not",
            "the run ends",
        ),
        (
            "a process dies: Ray",
            f"{on_it['done']:.0f} of {on_it['units']:.0f} units came back, {on_it['again']:.0f} were begun again",
            "the run goes on",
        ),
    ):
        print(f"| {what} | {measured} | {ratio} |")


if __name__ == "__main__":
    main()
