"""The parent's side of a child process: it is started, given a job, and watched."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Thread
from typing import IO, Any

import psutil

from clay_publish.progress import Progress, Report
from clay_publish.validate.sandbox.limits import Culprit, ExceededError, Watch, crashed_thread, suspects
from clay_publish.validate.sandbox.marks import SIZE, Marks
from clay_publish.validate.sandbox.stores import Server

_CHANNELS = 4
"""Requests that are answered at a time."""
_LOOK = 0.05
"""Seconds between two looks at the child."""
_LONGEST = 256 << 20
"""Bytes of an answer."""
_KEPT = {"PATH", "HOME", "LANG", "TZ", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
"""Environment variables that the child gets, beside this program's own: no credentials."""
_START = """import sys
sys.path[:] = {path!r}
from clay_publish.validate.sandbox.worker import main
main(*{arguments!r})"""


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
            shared.truncate(SIZE)
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
                env=own,
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

    def run(self, job: dict[str, Any], server: Server, fetched: Callable[[], int], report: Report) -> dict[str, Any]:
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
                    if "progress" not in reply:
                        return dict(reply)
                    report(Progress(*reply["progress"]))
                watch.look(self._marks.current())
        except ExceededError as error:
            self.close()
            raise CrashedError(error.why, error.culprits, machine=error.machine) from error
        except (EOFError, OSError, ValueError) as error:
            raise self._crash() from error
        except BaseException:
            self.close()
            raise
        finally:
            self._server = None

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
