"""Validating a release on a Ray cluster: each task reads a share of the embeddings files, this process reports."""

from contextlib import redirect_stdout

import ray

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.progress import Progress, Report
from clay_publish.ray_cluster import RayMessages, cluster
from clay_publish.release.directory import Release
from clay_publish.spec.models import Running
from clay_publish.validate.shares import Choice, SharedValidation

_TRIES = 3
"""How often a task is begun again whose process ended; it resumes."""


def scan_on_ray(release: Release, choice: Choice, workers: int | None, report: Report) -> SharedValidation:
    """Read the embeddings files on a cluster. Every worker has to see the release at the same place.

    Raises:
        ReleaseError: a worker does not see these files, or ends again and again.
        ClayPublishError: as in `SharedValidation.scan`.
    """
    SharedValidation(release, choice, 1)  # before a cluster is started for what cannot be shared
    with redirect_stdout(RayMessages()), cluster(Running(engine="ray", workers=workers, gpus_per_worker=0)) as means:
        shared = SharedValidation(release, choice, means.workers)
        task = ray.remote(_scan).options(num_cpus=means.cpus, max_retries=_TRIES, scheduling_strategy="SPREAD")
        where = release.store.where
        waiting = [task.remote(where, choice, shared.of, number) for number in range(1, shared.of + 1)]
        try:
            while waiting:
                report(Progress("validate", shared.of - len(waiting), shared.of, means.where, unit="steps"))
                ended, waiting = ray.wait(waiting, num_returns=1)
                error = ray.get(ended[0])
                if error is not None:
                    raise error
        except ray.exceptions.RayTaskError:
            raise  # a mistake of this program, with its traceback
        except ray.exceptions.RayError as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise ReleaseError(
                "a worker", f"ended {_TRIES + 1} times ({said})", fix="Perhaps it needs memory."
            ) from error
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


def _scan(where: str, choice: Choice, of: int, number: int) -> ClayPublishError | None:
    """What ends the validation is an answer: as an exception it would come wrapped in one of Ray's."""
    try:
        SharedValidation(Release(where), choice, of).scan(number, threads=1)
    except ClayPublishError as error:
        return error
    return None
