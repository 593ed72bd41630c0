"""What one worker of a cluster does: the model is loaded once, then unit after unit is made. It needs no Ray itself."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from threading import Event, Thread
from typing import Concatenate, ParamSpec, TypeVar

from clay_publish.errors import AccessError, ClayPublishError, EncoderError, ReleaseError, StoreError, shown
from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.execution.attempts import at_work, attempt, give_back
from clay_publish.producer.execution.context import StoppedError, Work, make_work
from clay_publish.producer.execution.local import run_isolated
from clay_publish.producer.execution.run import Ready, publish_ready
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.arrays.shards import ReadyShard, ShardReceipt
from clay_publish.producer.unit_plan import Plan, fingerprint_of
from clay_publish.release.directory import Release
from clay_publish.release.findings import FileVerdict
from clay_publish.release.manifest import UNITS
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.spec.models import Spec
from clay_publish.storage.retry import Limits, set_limits
from clay_publish.storage.unfinished import remove_unfinished

_STOPPING = 15.0
"""Seconds that a leaving worker has to give back its units; its machine may be gone after 30."""
_FAREWELL = 5.0
"""Seconds that a leaving worker waits for the driver to hear of it, before its process ends."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Job:
    """What a worker receives once."""

    where: str
    """Of the release."""
    spec: Spec
    plan: Plan
    """Without its units: they come one by one."""
    sha256: str
    """Of the whole plan."""
    gsd: float
    """Ground size of a pixel as it is published, meters."""
    cores: int
    """That the model may use."""
    libraries: Mapping[str, str]
    """Versions of what decides the bytes of a release."""
    check: str | None = None
    """`module:name` of what validates the files that are made."""


def _answered(
    method: "Callable[Concatenate[Worker, _P], _T]",
) -> "Callable[Concatenate[Worker, _P], _T | ClayPublishError | StoppedError]":
    """What ends the run, or this worker, is an answer like any other: as an exception it would be wrapped by Ray."""

    @wraps(method)
    def tell(worker: "Worker", /, *arguments: _P.args, **more: _P.kwargs) -> _T | ClayPublishError | StoppedError:
        try:
            return method(worker, *arguments, **more)
        except (ClayPublishError, StoppedError) as error:
            return error

    return tell


class Worker:
    """A process of a cluster. Its methods are called by the driver, several at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: Work | None = None
        self._leaves, self._heard = Event(), Event()

    def there(self) -> str:
        """Which machine this is; also says that the process is up again after a death."""
        if self._leaves.is_set():
            Event().wait()  # until this process has ended; Ray asks the next one
        return platform.node()

    @_answered
    def begin(self) -> None:
        """Make sure that this worker sees and does what the driver does, and load the model.

        Raises:
            ReleaseError: the plan is not to be seen here, or libraries have other versions.
            EncoderError: the model cannot be loaded, or is another.
            SpecError: the reduction of its composites is not registered here.
        """
        job, release = self._job, Release(self._job.where)
        set_limits(Limits(job.spec.run.stall_seconds, job.spec.run.item_seconds))
        self._check_plan(release)
        self._check_libraries()
        # What the driver found `auto` to mean holds for all.
        model = job.spec.model.model_copy(update={"precision": job.plan.fingerprint.precision})
        spec = job.spec.model_copy(update={"model": model})
        layout_of(spec, spec.instrument)  # a reduction that only the driver has registered is refused
        encoder = load_encoder(spec, spec.instrument)
        mine = fingerprint_of(spec, spec.instrument, encoder)
        differ = job.plan.fingerprint.differences(mine)
        if differ:
            raise EncoderError(
                f"the model on {platform.node()}",
                f"is not the planned one ({'; '.join(differ)})",
                "the same weights and code on every machine",
            )
        self._made = make_work(release, spec, encoder, job.plan.fingerprint, cores=job.cores, check=job.check)

    @_answered
    def make(self, unit: Unit, runs: int) -> UnitReceipt:
        """Make a unit, for which so many processes have ended if this one does.

        Raises:
            ClayPublishError: as `attempt`.
            StoppedError: this worker stops.
        """
        with at_work(self._work, unit.id, runs):
            return attempt(unit, self._work)

    @_answered
    def make_alone(self, unit: Unit) -> UnitReceipt:
        """Make a unit in which processes have died before, in one of its own.

        Raises:
            ClayPublishError: as `attempt`.
        """
        return run_isolated(unit, self._work)

    @_answered
    def publish(self, ready: Ready) -> FileVerdict | None:
        """Make parts into a published file, and validate it.

        Raises:
            ClayPublishError: a part is damaged, or nothing can be written.
            StoppedError: this worker stops, while it reads images a second time.
        """
        return publish_ready(ready, self._work, self._job.plan, self._job.gsd)

    @_answered
    def assemble(self, shard: ReadyShard) -> ShardReceipt:
        """Assemble a shard of the arrays.

        Raises:
            ClayPublishError: a table is damaged, or nothing can be written.
        """
        return self._work.arrays.assemble(shard)

    def stop(self) -> None:
        """Give back the units at work. From now on this process writes nothing; it has to be ended."""
        if self._made is not None:
            give_back(self._made)
        remove_unfinished()

    def leave(self) -> None:
        """Stop, and end this process: its machine is taken away. It ends too where the store is out of reach."""
        self._leaves.set()
        stopping = Thread(target=self.stop, name="stop", daemon=True)
        stopping.start()
        stopping.join(_STOPPING)
        self._heard.wait(_FAREWELL)
        os._exit(0)

    def left(self) -> int:
        """Wait until this process leaves, and return its number. It ends once the driver has confirmed that."""
        self._leaves.wait()
        return os.getpid()

    def heard(self, process: int) -> None:
        """The driver knows that a process leaves; where that has ended, its successor is asked."""
        if process == os.getpid():
            self._heard.set()

    @property
    def _work(self) -> Work:
        assert self._made is not None, "`begin` comes first"
        return self._made

    def _check_plan(self, release: Release) -> None:
        expected = f"the plan {self._job.sha256[:12]}, which the driver wrote there"
        fix = "Every machine needs the release at the same place: on shared storage, or on s3://."
        where = f"{release.store.where} on {platform.node()}"
        try:
            found = release.json(UNITS).get("sha256") if release.store.exists(UNITS) else None
        except (StoreError, AccessError) as error:
            raise ReleaseError(where, f"cannot be read ({error})", expected, fix) from error
        if found != self._job.sha256:
            said = "no plan" if found is None else f"another plan ({shown(found)})"
            raise ReleaseError(where, f"holds {said}", expected, fix)

    def _check_libraries(self) -> None:
        mine = {name: _version(name) for name in self._job.libraries}
        differ = [f"{name} {mine[name]}, not {version}" for name, version in self._job.libraries.items()]
        differ = [said for said, name in zip(differ, mine, strict=True) if mine[name] != self._job.libraries[name]]
        if differ:
            raise ReleaseError(
                f"the installation on {platform.node()}",
                f"has {'; '.join(differ)}",
                "the driver's versions: others may give other bytes",
                "Install the same wheel and constraints on every machine.",
            )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
