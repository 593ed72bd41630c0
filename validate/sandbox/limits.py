"""What a child process may take, and who is to blame where it takes more or crashes."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from clay_publish.validate.sandbox.marks import Mark

MEMORY, MEMORY_PER_BYTE = 512 << 20, 4
"""Bytes by which the child may grow while it reads a file, and so many more for each byte of it."""
SECONDS, BYTES_PER_SECOND = 120, 500_000
"""Processor time of the thread that reads a file, and one second more for so many bytes of it."""
HOURS, BYTES_IN_ALL_PER_SECOND = 4, 200_000
"""Time for a whole release, and one second more for so many bytes that were read."""
IDLE = 900
"""Seconds without processor time or a byte read."""
LEFT = 0.03
"""Share of the machine's memory that has to be available."""


@dataclass(frozen=True)
class Culprit:
    """What may have ended the child."""

    name: str
    """A file, or a rule after a colon, with which no path begins."""

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return not self.name.startswith(":")


class ExceededError(Exception):
    """The child did more than it may."""

    def __init__(self, why: str, culprits: list[Culprit], *, machine: bool = False) -> None:
        super().__init__(why)
        self.why, self.culprits, self.machine = why, culprits, machine


@dataclass
class _Begin:
    """What a child and a thread of it had used when a mark was first seen."""

    memory: int
    seconds: float


class Watch:
    """Looks at a child from time to time."""

    def __init__(self, process: psutil.Process, fetched: Callable[[], int]) -> None:
        self._process, self._fetched = process, fetched
        self._begun: dict[Mark, _Begin] = {}
        self._start = self._moved = time.monotonic()
        self._used = (0.0, 0)
        self._read_before = self._read()

    def look(self, marks: Sequence[Mark]) -> None:
        """Compare what the child has used with what it may.

        Raises:
            ExceededError: it is more.
        """
        with suppress(psutil.Error):  # it has ended, which the wait for its answer notices
            self._look([mark for mark in marks if mark.kind == "reading"])

    def _look(self, reading: list[Mark]) -> None:
        usage = self._process.memory_info()
        memory = usage.rss - getattr(usage, "shared", 0)
        threads = {thread.id: thread.user_time + thread.system_time for thread in self._process.threads()}
        self._begun = {mark: self._begun.get(mark) or _Begin(memory, threads.get(mark.thread, 0.0)) for mark in reading}
        blamed = [Culprit(mark.name) for mark in reading]
        for mark, begun in self._begun.items():
            allowed = SECONDS + mark.size / BYTES_PER_SECOND
            if threads.get(mark.thread, 0.0) - begun.seconds > allowed:
                why = f"takes more than {allowed:,.0f} s of processor time to read"
                raise ExceededError(why, [Culprit(mark.name)])
        if reading:
            allowed = MEMORY + MEMORY_PER_BYTE * sum(mark.size for mark in reading)
            if memory - min(begun.memory for begun in self._begun.values()) > allowed:
                raise ExceededError(f"takes more than {allowed / 1e6:,.0f} MB of memory to read", blamed)
        self._look_at_machine(memory, sum(threads.values()))

    def _look_at_machine(self, memory: int, seconds: float) -> None:
        machine = psutil.virtual_memory()
        if machine.available < LEFT * machine.total and memory > MEMORY:
            raise ExceededError("needs more memory than this machine has available", [], machine=True)
        now, used = time.monotonic(), (seconds, self._read())
        if used != self._used:
            self._used, self._moved = used, now
        if now - self._moved > IDLE:
            raise ExceededError(f"was not read any further for {IDLE} s", [], machine=True)
        allowed = 3600 * HOURS + (used[1] - self._read_before) / BYTES_IN_ALL_PER_SECOND
        if now - self._start > allowed:
            raise ExceededError(f"takes more than {allowed / 3600:,.1f} hours", [], machine=True)

    def _read(self) -> int:
        """Bytes that the child has read, through the parent or itself, where the system counts them."""
        own = 0
        with suppress(psutil.Error, AttributeError, OSError):
            own = int(self._process.io_counters().read_chars)
        return own + self._fetched()


_CRASHED = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)


def crashed_thread(said: str) -> int | None:
    """Return the thread that faulthandler names; None where it could not write, as after a stack overflow."""
    found = _CRASHED.search(said)
    return int(found[1], 16) if found else None


def suspects(marks: Sequence[Mark], thread: int | None) -> list[Culprit]:
    """Return what may have crashed, the likeliest first.

    A file that a thread reads comes first; else the one that it opened during its rule; else the rule.
    """
    known = {mark.ident for mark in marks}
    mine = [mark for mark in marks if thread not in known or mark.ident == thread]
    rule = next((mark for mark in marks if mark.kind == "rule"), None)
    reading = [Culprit(mark.name) for mark in _latest(mine)]
    touched = [
        Culprit(mark.name) for mark in mine if mark.kind == "touched" and rule is not None and mark.start >= rule.start
    ]
    rules = [Culprit(f":{rule.name}")] if rule is not None else []
    return reading or [*touched, *rules]


def _latest(marks: Sequence[Mark]) -> list[Mark]:
    """The latest file that each thread reads."""
    found: dict[int, Mark] = {}
    for mark in marks:
        if mark.kind == "reading":
            found.setdefault(mark.ident, mark)
    return list(found.values())
