"""The parent's side of a child process: it is started, given a job, watched and held to its limits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil

from clay_publish.errors import ClayPublishError
from clay_publish.progress import Progress, Report
from clay_publish.validate.outcomes import no_room
from clay_publish.validate.sandbox.marks import SIZE, Mark, Marks, own_memory
from clay_publish.validate.sandbox.stores import Server

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


class Watch:
    """Looks at a child from time to time."""

    def __init__(self, process: psutil.Process, fetched: Callable[[], int]) -> None:
        self._process, self._fetched = process, fetched
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
        memory = own_memory(self._process)
        threads = {thread.id: thread.user_time + thread.system_time for thread in self._process.threads()}
        for mark in reading:
            allowed = SECONDS + mark.size / BYTES_PER_SECOND
            if threads.get(mark.thread, 0.0) - mark.seconds > allowed:
                why = f"takes more than {allowed:,.0f} s of processor time to read"
                raise ExceededError(why, [Culprit(mark.name)])
        if reading:
            allowed = MEMORY + MEMORY_PER_BYTE * sum(mark.size for mark in reading)
            if memory - min(mark.memory for mark in reading) > allowed:
                blamed = [Culprit(mark.name) for mark in reading]
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


_CHANNELS = 4
"""Requests that are answered at a time."""
_LOOK = 0.05
"""Seconds between two looks at the child."""
_LONGEST = 256 << 20
"""Bytes of an answer."""
_KEPT = {"PATH", "HOME", "LANG", "TZ", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}
"""Environment variables that the child gets, beside this program's own: no credentials."""
_OWN = {"OPENBLAS_NUM_THREADS": "1"}
"""What it gets in any case: threads of BLAS wait for work by spinning, which takes more time than they save here."""
_START = """import sys
sys.path[:] = {path!r}
from clay_publish.validate.sandbox.worker import main
main(*{arguments!r})"""


Keep = Callable[[str, bytes], None]
"""Receives a path, and what a child saw in that file."""


class CrashedError(Exception):
    """The child ended by itself, or did more than it may."""

    def __init__(self, why: str, culprits: list[Culprit], *, machine: bool = False) -> None:
        super().__init__(why)
        self.why, self.culprits, self.machine = why, culprits, machine
        """What happened; what may have caused it, the likeliest first; whether this machine is to blame."""


class Child:
    """One child process."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._scratch = tempfile.mkdtemp(prefix="clay-publish-")
        with tempfile.TemporaryFile() as shared:
            try:  # all of it: on a full disk, memory mapped on a hole ends the process that looks at it
                shared.write(bytes(SIZE))
                shared.flush()
            except OSError as error:
                self._errors.close()
                shutil.rmtree(self._scratch, ignore_errors=True)
                raise no_room("what two processes share", f"{SIZE:,} bytes", error) from error
            self._marks = Marks(shared.fileno())
            theirs, mine = self._pipes()
            arguments = (self._scratch, *theirs[0], shared.fileno(), theirs[1:])
            handed = [shared.fileno(), *(end for pair in theirs for end in pair)]
            own = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith(("LC_", "CLAY_PUBLISH_"))}
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with this package
                [sys.executable, "-c", _START.format(path=[p for p in sys.path if p], arguments=arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=own | _OWN,
                pass_fds=handed,
                close_fds=True,
            )
        for end in handed[1:]:
            os.close(end)
        (self._answers, self._jobs), *channels = mine
        self._server: Server | None = None
        for incoming, outgoing in channels:
            Thread(target=self._serve, args=(incoming, outgoing), daemon=True).start()

    @staticmethod
    def _pipes() -> tuple[list[tuple[int, int]], list[tuple[Connection, Connection]]]:
        """Return the child's ends (in, out) and the parent's, the control pipes first."""
        theirs, mine = [], []
        for _ in range(_CHANNELS + 1):
            (child_in, parent_out), (parent_in, child_out) = os.pipe(), os.pipe()
            theirs.append((child_in, child_out))
            mine.append((Connection(parent_in, writable=False), Connection(parent_out, readable=False)))
        return theirs, mine

    def _serve(self, incoming: Connection, outgoing: Connection) -> None:
        files: dict[tuple[int, str], IO[bytes]] = {}
        server = None
        with incoming, outgoing:
            while True:
                try:
                    request = incoming.recv_bytes(1 << 20)
                    if self._server is not server:
                        files, server = {}, self._server
                    if server is None:
                        return
                    outgoing.send_bytes(server.answer(request, files))
                except (EOFError, LookupError, OSError, TypeError, ValueError):  # the child ended, or asks nonsense
                    return

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._process.poll() is None

    def run(
        self, job: dict[str, Any], server: Server, fetched: Callable[[], int], report: Report, keep: Keep
    ) -> dict[str, Any]:
        """Return the answer to a job.

        Raises:
            CrashedError: there is none.
        """
        self._server = server
        self._marks.clear()
        self._errors.seek(0)
        self._errors.truncate()
        watch = Watch(psutil.Process(self._process.pid), fetched)
        try:
            self._jobs.send_bytes(json.dumps(job).encode())
            while True:
                if self._answers.poll(_LOOK):
                    reply = json.loads(self._answers.recv_bytes(_LONGEST))
                    if "keep" in reply:
                        keep(str(reply["keep"][0]), self._taken(str(reply["keep"][1])))
                    elif "progress" in reply:
                        report(Progress(*reply["progress"]))
                    else:
                        return dict(reply)
                watch.look(self._marks.current())
        except ExceededError as error:
            self.close()
            raise CrashedError(error.why, error.culprits, machine=error.machine) from error
        except ClayPublishError:  # of who keeps what is sent: a StoreError is an OSError
            self.close()
            raise
        except (EOFError, OSError, ValueError) as error:
            raise self._crash() from error
        except BaseException:
            self.close()
            raise
        finally:
            self._server = None

    def _taken(self, name: str) -> bytes:
        """Read and remove a file that the child has written; no link that it may have put there."""
        path = Path(self._scratch, Path(name).name)
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 - of a descriptor
            data = file.read()
        path.unlink()
        return data

    def _crash(self) -> CrashedError:
        """What ended the child, from its exit status, its marks and what it wrote."""
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read(1 << 16).decode("utf-8", "replace")
        marks = self._marks.current()
        self.close()
        if status == -signal.SIGKILL:
            return CrashedError("was ended by the operating system, most likely for want of memory", [], machine=True)
        if status < 0:
            name = signal.Signals(-status).name
            return CrashedError(f"ends the process that reads it ({name})", suspects(marks, crashed_thread(said)))
        last = " ".join(said.split())[-300:]
        return CrashedError(f"ended with exit code {status} ({last})", [], machine=True)

    def forget(self) -> None:
        """Leave the process to the one that this was forked from."""
        self._process.returncode = 0

    def close(self) -> None:
        """End the process."""
        self._server = None
        self._process.kill()
        self._process.wait()
        self._jobs.close()
        self._answers.close()
        self._errors.close()
        self._marks.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
