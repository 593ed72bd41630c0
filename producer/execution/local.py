"""The engine of one machine: units side by side in threads, each file published as soon as its last unit is done."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.execution.attempts import TRIES, at_work, attempt, end, give_back
from clay_publish.producer.execution.context import SIDE_BY_SIDE, Work, make_work
from clay_publish.producer.execution.run import Ready, Run, publish_ready
from clay_publish.producer.execution.unit import set_aside
from clay_publish.producer.layouts.base import Unit
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.spec.models import Spec
from clay_publish.storage.unfinished import remove_unfinished

_BEGUN = b"begun"
"""Said once the model is loaded: only what comes after it is the unit's doing."""


@dataclass(frozen=True)
class _Job:
    unit: Unit
    spec: Spec
    where: str
    fingerprint: Fingerprint


def run_isolated(unit: Unit, work: Work) -> UnitReceipt:
    """Make a unit in which runs have died before; where it ends this process too, it is set aside.

    The note that it is at work stays until it succeeds, so that the next run is as careful.

    Raises:
        ClayPublishError: as `attempt`.
    """
    job = pickle.dumps(_Job(unit, work.spec, work.release.store.where, work.fingerprint))
    with work.pace.at_work():
        ended = _run(job)
        if isinstance(ended, ClayPublishError):
            raise ended
        if isinstance(ended, UnitReceipt):
            work.pace.lap()  # its receipt has the time of its own process
            end(work.release, unit.id)
            return ended
        said = f"ended its process {TRIES} times (at last by {ended}); perhaps it needs more memory than there is"
        return set_aside(unit, work, said, said)


def _run(job: bytes) -> UnitReceipt | ClayPublishError | str:
    """What the process said, or how it ended without a word."""
    with subprocess.Popen(
        [sys.executable, "-m", "clay_publish.producer.execution.local"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # it has died already; its exit code says how
            child.stdin.write(len(job).to_bytes(8) + job)
            child.stdin.flush()
        answer = child.stdout.read()
        child.wait()  # and only then let go of its input, whose end would end it
        with suppress(BrokenPipeError):
            child.stdin.close()
    if not answer.startswith(_BEGUN):
        raise ReleaseError(
            "a process for one unit",
            f"ended before it began ({_how(child.returncode)})",
            fix="What it printed says why; run again.",
        )
    if child.returncode == 0:
        said: UnitReceipt | ClayPublishError = pickle.loads(answer[len(_BEGUN) :])  # noqa: S301 - our own words
        return said
    return _how(child.returncode)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """Make the unit that stands on standard input."""
    for number in (signal.SIGINT, signal.SIGTERM):  # which may reach the whole group; this process ends with its parent
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    size = int.from_bytes(sys.stdin.buffer.read(8))
    job: _Job = pickle.loads(sys.stdin.buffer.read(size))  # noqa: S301 - our own words
    threading.Thread(target=_end_with_parent, daemon=True).start()
    encoder = load_encoder(job.spec, job.spec.instrument)
    work = make_work(Release(job.where), job.spec, encoder, job.fingerprint)
    answers.write(_BEGUN)
    answers.flush()
    result: UnitReceipt | ClayPublishError
    try:
        result = attempt(job.unit, work)
    except ClayPublishError as error:
        result = error
    with answers:
        pickle.dump(result, answers)


def _end_with_parent() -> None:
    """Two runs must not work on one unit: this process ends with its parent."""
    os.read(0, 1)
    remove_unfinished()
    os._exit(1)


if __name__ == "__main__":
    main()


def in_threads(run: Run, units: Sequence[Unit], ready: Sequence[Ready]) -> None:
    """Make units, and the shards of arrays that become ready, a few at a time.

    Each unit that is to be careful with is made in a process of its own, at the end.

    Raises:
        ClayPublishError: the run cannot go on; what is finished stays.
    """
    pool = ThreadPoolExecutor(SIDE_BY_SIDE, "unit")
    try:  # the first unit begins, and may be interrupted, while others are submitted
        shards = _publish(run, ready, pool)
        running = {pool.submit(_one, run, unit): unit for unit in units if not run.careful(unit)}
        for future in as_completed(running):
            shards += _publish(run, run.done(running[future], future.result()), pool)
        for unit in units:
            if run.careful(unit):
                shards += _publish(run, run.done(unit, run_isolated(unit, run.work)), pool)
        for each in shards:
            each.result()
    except BaseException as error:
        give_back(run.work)
        interrupted = isinstance(error, KeyboardInterrupt)  # the process ends, whatever a server or the model takes
        pool.shutdown(wait=not interrupted, cancel_futures=True)
        raise
    pool.shutdown()


def _one(run: Run, unit: Unit) -> UnitReceipt:
    _assemble(run)
    left = run.left_out(unit)
    if left is not None:
        return left
    with at_work(run.work, unit.id, run.died.get(unit.id, 0) + 1):
        receipt = attempt(unit, run.work)
    run.ledger.enter(receipt)  # at once, so that no unit begins when the budget is spent
    return receipt


def _assemble(run: Run) -> None:
    """Assemble the shards that are ready, before anything else is begun."""
    while (shard := run.shards.take()) is not None:
        run.held.check()
        run.work.pace.check()
        run.shards.done(shard, run.work.arrays.assemble(shard))


def _publish(run: Run, ready: Sequence[Ready], pool: ThreadPoolExecutor) -> list[Future[None]]:
    """Publish files. Shards that are ready then wait for no unit where a thread has none."""
    for each in ready:
        run.landed(each, publish_ready(each, run.work, run.plan, run.gsd))
    return [pool.submit(_assemble, run) for _ in range(min(SIDE_BY_SIDE, len(run.shards)))]
