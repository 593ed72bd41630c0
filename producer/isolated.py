"""A unit in a process of its own: whatever it does to that process, the run goes on."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.fingerprint import Fingerprint
from clay_publish.producer.attempts import TRIES, attempt, end
from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.plan import Unit
from clay_publish.producer.sensors import sensor
from clay_publish.producer.unit import set_aside
from clay_publish.producer.work import Work, make_work
from clay_publish.receipts import Receipt
from clay_publish.release import Release
from clay_publish.spec import Spec

_BEGUN = b"begun"
"""Said once the model is loaded: only what comes after it is the unit's doing."""


@dataclass(frozen=True)
class _Job:
    unit: Unit
    spec: Spec
    where: str
    fingerprint: Fingerprint
    units: int


def run_isolated(unit: Unit, work: Work) -> Receipt:
    """Make a unit in which runs have died before; where it ends this process too, it is set aside.

    The note that it is at work stays until it succeeds, so that the next run is as careful.

    Raises:
        ClayPublishError: as `attempt`.
    """
    job = pickle.dumps(_Job(unit, work.spec, work.release.store.where, work.fingerprint, work.units))
    ended = _run(job)
    if isinstance(ended, ClayPublishError):
        raise ended
    if isinstance(ended, Receipt):
        end(work.release, unit.id)
        return ended
    said = f"ended its process {TRIES} times (at last by {ended}); perhaps it needs more memory than there is"
    return set_aside(unit, work, said, said)


def _run(job: bytes) -> Receipt | ClayPublishError | str:
    """What the process said, or how it ended without a word."""
    with subprocess.Popen(
        [sys.executable, "-m", "clay_publish.producer.isolated"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
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
        said: Receipt | ClayPublishError = pickle.loads(answer[len(_BEGUN) :])  # noqa: S301 - our own words
        return said
    return _how(child.returncode)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """Make the unit that stands on standard input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    size = int.from_bytes(sys.stdin.buffer.read(8))
    job: _Job = pickle.loads(sys.stdin.buffer.read(size))  # noqa: S301 - our own words
    threading.Thread(target=_end_with_parent, daemon=True).start()
    encoder = load_encoder(job.spec, sensor(job.spec.sensor))
    work = make_work(Release(job.where), job.spec, encoder, job.fingerprint, job.units)
    answers.write(_BEGUN)
    answers.flush()
    result: Receipt | ClayPublishError
    try:
        result = attempt(job.unit, work)
    except ClayPublishError as error:
        result = error
    with answers:
        pickle.dump(result, answers)


def _end_with_parent() -> None:
    """Two runs must not work on one unit: this one ends when whoever started it does."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
