"""Validating a release on a Ray cluster: each task reads a share of the embeddings files, this process reports."""

import signal
from collections import Counter
from contextlib import redirect_stdout
from typing import Any

import ray

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.progress import Progress, Report
from clay_publish.ray_cluster import RayMessages, cluster
from clay_publish.release.directory import Release
from clay_publish.spec.models import Running
from clay_publish.validate.shares import Choice, SharedValidation

_TRIES = 4
"""How often the process of a task may crash; the next one resumes."""
_LEFT = "left"
"""What a task answers whose process got SIGTERM, as before its machine is taken away."""


def scan_on_ray(release: Release, choice: Choice, workers: int | None, report: Report) -> SharedValidation:
    """Read the embeddings files on a cluster. Every worker has to see the release at the same place.

    Raises:
        ReleaseError: a worker does not see these files, or ends again and again.
        ClayPublishError: as in `SharedValidation.scan`.
    """
    SharedValidation(release, choice, 1)  # before a cluster is started for what cannot be shared
    with redirect_stdout(RayMessages()), cluster(Running(engine="ray", workers=workers, gpus_per_worker=0)) as means:
        shared = SharedValidation(release, choice, means.workers)
        # This process counts the crashes: Ray would count a worker that leaves like one that crashed. The process of a
        # task ends with it, so that what it left undone begins elsewhere.
        remote = ray.remote(num_cpus=means.cpus, max_retries=0, max_calls=1, scheduling_strategy="SPREAD")
        task, where, crashes = remote(_scan), release.store.where, Counter[int]()

        def begin(number: int) -> Any:
            return task.remote(where, choice, shared.of, number)

        waiting = {begin(number): number for number in range(1, shared.of + 1)}
        try:
            while waiting:
                report(Progress("validate", shared.of - len(waiting), shared.of, means.where, unit="steps"))
                ended = ray.wait(list(waiting), num_returns=1)[0][0]
                number = waiting.pop(ended)
                if not _is_done(ended, number, crashes):
                    waiting[begin(number)] = number
        finally:
            for left in waiting:
                ray.cancel(left, force=True)
    if shared.left():
        raise ReleaseError(
            where,
            "is not the same on all machines",
            "the files of the release, with the same sizes and times, and the same version of this program",
            "Put it on shared storage, or on s3://.",
        )
    return shared


def _is_done(ended: Any, number: int, crashes: Counter[int]) -> bool:
    """Whether the task of a share did all of it; else it is to be begun again.

    Raises:
        ReleaseError: its process crashed too often. A process that left, or whose machine is gone, did not crash.
        ClayPublishError: what the task says ends the validation.
    """
    try:
        answer = ray.get(ended)
    except ray.exceptions.RayTaskError:
        raise  # a mistake of this program, with its traceback
    except ray.exceptions.NodeDiedError:
        return False
    except ray.exceptions.RayError as error:
        crashes[number] += 1
        if crashes[number] < _TRIES:
            return False
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ReleaseError("a worker", f"ended {_TRIES} times ({said})", fix="Perhaps it needs memory.") from error
    if isinstance(answer, ClayPublishError):
        raise answer
    return bool(answer != _LEFT)


def _scan(where: str, choice: Choice, of: int, number: int) -> ClayPublishError | str | None:
    """What ends the validation is an answer: as an exception it would come wrapped in one of Ray's."""

    def leave(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        SharedValidation(Release(where), choice, of).scan(number, threads=1)
    except ClayPublishError as error:
        return error
    except KeyboardInterrupt:
        return _LEFT
    finally:
        signal.signal(signal.SIGTERM, before)
    return None
