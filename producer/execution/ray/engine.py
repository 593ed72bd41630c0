"""The engine of many machines: Ray actors make the units, this process hands them out and keeps the ledger.

Of Ray only actors are used: their processes hold the model, write parts and receipts themselves, and answer with small
receipts. A few units are on their way to each, the rest wait here.

Ray restarts an actor whose process died (`max_restarts=-1`), but repeats none of its calls (`max_task_retries=0`): when
a unit crashes its process, the units beside it are lost as well, and only counting the crashes of each unit can find
out which it was. So this process does: all that were at work are tried again, after the last but one try alone.

A worker that gets SIGTERM, because its machine is taken away, says that it leaves: what it was asked to do goes to
another one at once, and is not counted.
"""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

import ray

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.producer.execution.attempts import TRIES
from clay_publish.producer.execution.context import SIDE_BY_SIDE, StoppedError
from clay_publish.producer.execution.ray.worker import Job, Worker
from clay_publish.producer.execution.run import Ready, Run
from clay_publish.producer.execution.unit import set_aside
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.arrays.shards import ReadyShard, array_libraries
from clay_publish.ray_cluster import Means, RayMessages, cluster
from clay_publish.release.manifest import libraries
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.spec.models import Running

_LOOK = 10.0
"""Seconds after which the run reports that no worker has started yet."""
_GRACE = 5.0
"""Seconds that workers have to stop when a run ends early."""


def on_ray(run: Run, units: Sequence[Unit], ready: Sequence[Ready], *, means: Running) -> None:
    """Make units on a cluster.

    Raises:
        ReleaseError: a worker cannot do what it is asked: it does not see the release, or ends before it begins.
        ClayPublishError: as in every engine.
    """
    if not units and not ready:
        return
    # What Ray has to say of a death it prints where results belong.
    with redirect_stdout(RayMessages()), cluster(means) as found:
        report = f"{found.workers} worker{'s' * (found.workers != 1)} on {found.where}"
        run.say(report)
        driver = _Driver(run, found)
        try:
            driver.drive(units, ready)
        finally:
            driver.end()


class WorkerProcess(Worker):
    """A worker whose process is its own."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        signal.signal(signal.SIGTERM, lambda *_: Thread(target=self.leave, daemon=True).start())


@dataclass(eq=False)
class _Hand:
    """A worker, as the driver sees it."""

    actor: Any
    up: bool = False
    """Whether its model is loaded."""
    process: int = 0
    """How many processes it has had; what is heard of an earlier one may come late."""
    leaving: set[int] = field(default_factory=set)
    """Of these, those that said that they end."""
    deaths: int = 0
    """Since it last began, before it began."""
    tasks: "list[_Task]" = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Task:
    """Something a worker was asked to do."""

    hand: _Hand
    what: "Unit | Ready | ReadyShard | str"
    """`there` and `begin` are the steps until it is up; `left` waits for its end."""
    process: int
    alone: bool = False


class _Driver:
    def __init__(self, run: Run, means: Means) -> None:
        self.run, self.means = run, means
        self.units: deque[Unit] = deque()
        self.suspects: deque[Unit] = deque()
        self.files: deque[Ready] = deque()
        self.flying: dict[Any, _Task] = {}
        self.hands: list[_Hand] = []
        self._tries: dict[str, int] = {}

    def drive(self, units: Sequence[Unit], ready: Sequence[Ready]) -> None:
        """Until all units are done and all files are published."""
        for unit in units:
            self._wait_for(unit)
        self.files.extend(ready)
        job = self._job()
        actor = ray.remote(WorkerProcess).options(
            num_cpus=self.means.cpus,
            num_gpus=self.means.gpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=SIDE_BY_SIDE + 2,  # `stop` is heard beside the units, and `left` waits
            scheduling_strategy="SPREAD",
        )
        self.hands = [_Hand(actor.remote(job)) for _ in range(min(self.means.workers, len(units) + len(ready)))]
        for hand in self.hands:
            self._call(hand, "there")
        while self._hand_out() or any(not isinstance(task.what, str) for task in self.flying.values()):
            done, _ = ray.wait(list(self.flying), num_returns=1, timeout=_LOOK)
            for reference in done:
                self._take(reference)
            if not done and not any(hand.up for hand in self.hands):
                self._say(f"no worker is there yet: each takes {self.means.cpus:g} CPU and {self.means.gpus:g} GPU")

    def end(self) -> None:
        """Stop the workers, so that none of their units is taken for one in which a process died."""
        stopping = [hand.actor.stop.remote() for hand in self.hands if hand.up]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=_GRACE)
        for hand in self.hands:
            ray.kill(hand.actor)

    def _job(self) -> Job:
        run = self.run
        return Job(
            where=run.work.release.store.where,
            spec=run.work.spec,
            plan=replace(run.plan, units=()),
            sha256=run.plan.sha256,
            gsd=run.gsd,
            cores=max(1, int(self.means.cpus)),
            libraries=libraries() | (array_libraries() if run.work.spec.outputs.array_dtype else {}),
            check=run.work.check_name,
        )

    def _hand_out(self) -> bool:
        """Dispatch queued units to idle workers. Return True while work remains."""
        while True:
            free = [hand for hand in self.hands if hand.up and len(hand.tasks) < SIDE_BY_SIDE]
            free = [hand for hand in free if not any(task.alone for task in hand.tasks)]
            hand = min(free, key=lambda each: len(each.tasks), default=None)
            if hand is None or not self._give(hand):
                return bool(self.units or self.suspects or self.files or len(self.run.shards))

    def _give(self, hand: _Hand) -> bool:
        """Give a worker something to do; False where there is nothing for it."""
        if self.files:
            self._call(hand, self.files.popleft())
            return True
        if (shard := self.run.shards.take()) is not None:
            self.run.held.check()
            self._call(hand, shard)
            return True
        if self.units:
            unit = self.units.popleft()
            left = self.run.left_out(unit)
            if left is None:
                self._call(hand, unit)
            else:
                self._done(unit, left)
            return True
        if self.suspects and not hand.tasks:
            self.run.held.check()
            self._call(hand, self.suspects.popleft(), alone=True)
            return True
        return False

    def _call(self, hand: _Hand, what: Unit | Ready | ReadyShard | str, *, alone: bool = False) -> None:
        task, actor = _Task(hand, what, hand.process, alone), hand.actor
        if isinstance(what, Ready):
            reference = actor.publish.remote(what)
        elif isinstance(what, ReadyShard):
            reference = actor.assemble.remote(what)
        elif isinstance(what, Unit) and alone:
            reference = actor.make_alone.remote(what)
        elif isinstance(what, Unit):
            reference = actor.make.remote(what, self.run.died.get(what.id, 0) + 1)
        elif what == "begin":
            reference = actor.begin.remote()
        elif what == "left":
            reference = actor.left.remote()
        else:
            reference = actor.there.options(max_task_retries=-1).remote()  # harmless, so that it may wait for a restart
        self.flying[reference] = task
        if what != "left":
            hand.tasks.append(task)

    def _take(self, reference: Any) -> None:
        """What came of a call."""
        task = self.flying.pop(reference)
        if task.what != "left":
            task.hand.tasks.remove(task)
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError:
            raise  # a mistake of this program, with its traceback
        except ray.exceptions.RayError as error:
            self._died(task, error)
            return
        if isinstance(answer, ClayPublishError):
            raise answer
        if isinstance(answer, StoppedError):
            self._left(task)
            self._give_back(task)
        elif isinstance(task.what, Unit):
            self._done(task.what, answer)
        elif isinstance(task.what, Ready):
            self.run.landed(task.what, answer)
        elif isinstance(task.what, ReadyShard):
            self.run.shards.done(task.what, answer)
        else:
            self._go_on(task, answer)

    def _go_on(self, task: _Task, answer: Any) -> None:
        """The next step of a worker."""
        hand = task.hand
        if task.what == "there":
            hand.process += 1
            self._call(hand, "left")
            self._call(hand, "begin")
        elif task.what == "left":
            self._left(task)
            hand.actor.heard.remote(answer)
        elif task.process in hand.leaving:
            self._call(hand, "there")
        else:
            hand.up, hand.deaths = True, 0

    def _done(self, unit: Unit, receipt: UnitReceipt) -> None:
        self.files.extend(self.run.done(unit, receipt))

    def _died(self, task: _Task, error: Exception) -> None:
        """A process ended while it did this: it is restarted, and what it did is tried again."""
        hand, what = task.hand, task.what
        if what == "there":  # Ray has given up on it
            raise ReleaseError("a worker", f"cannot be started ({_short(error)})", fix="`ray status` may say why.")
        self._hear(hand)
        if task.process == hand.process and (hand.up or what == "begin"):
            hand.up = False
            self._call(hand, "there")
        if task.process in hand.leaving:
            self._give_back(task)
        elif what == "begin":
            hand.deaths += 1
            self._check_tries(hand.deaths, "a worker", "ended before it began", error)
        elif isinstance(what, Ready | ReadyShard):
            name = what.file.name if isinstance(what, Ready) else what.shard.name
            self._tries[name] = self._tries.get(name, 0) + 1
            self._check_tries(self._tries[name], name, "ended its worker when it was put together", error)
            self._give_back(task)
        elif isinstance(what, Unit):
            self.run.died[what.id] = self.run.died.get(what.id, 0) + 1
            self._say(f"a worker died in unit {what.id[:12]}, death {self.run.died[what.id]} in it")
            if task.alone:
                said = f"ended its process {TRIES} times (at last with its worker); perhaps it needs more memory"
                self._done(what, set_aside(what, self.run.work, said, said))
            else:
                self._wait_for(what)

    def _hear(self, hand: _Hand) -> None:
        """Take what a worker said of its end before what came of the end."""
        waiting = [reference for reference, task in self.flying.items() if task.hand is hand and task.what == "left"]
        for reference in ray.wait(waiting, timeout=0)[0] if waiting else ():
            self._take(reference)

    def _left(self, task: _Task) -> None:
        """A worker's machine is taken away: nothing is asked of it until its process is begun again elsewhere."""
        hand = task.hand
        hand.leaving.add(task.process)
        if hand.up and task.process == hand.process:
            hand.up = False
            self._say(f"a worker leaves; {len(hand.tasks)} tasks go to others")
            self._call(hand, "there")

    def _give_back(self, task: _Task) -> None:
        """What a worker that leaves was asked to do is next, and its end is not counted."""
        if isinstance(task.what, Ready):
            self.files.appendleft(task.what)
        elif isinstance(task.what, ReadyShard):
            self.run.shards.put_back(task.what)
        elif isinstance(task.what, Unit):
            (self.suspects if task.alone else self.units).appendleft(task.what)

    def _say(self, message: str) -> None:
        self.run.say(message)

    def _wait_for(self, unit: Unit) -> None:
        (self.suspects if self.run.careful(unit) else self.units).append(unit)

    @staticmethod
    def _check_tries(tries: int, where: str, said: str, error: Exception) -> None:
        if tries >= TRIES:
            raise ReleaseError(where, f"{said}, {tries} times ({_short(error)})", fix="Perhaps it needs more memory.")


def _short(error: Exception) -> str:
    """Of Ray's pages-long messages, what happened."""
    return next(_sentences(error), type(error).__name__)


def _sentences(error: Exception) -> Iterator[str]:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    yield from (line for line in reversed(lines) if "Error: " in line)
    yield from lines
