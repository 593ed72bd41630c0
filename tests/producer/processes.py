"""Runs of the program that may be killed."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from program import fork

_NUMBER = itertools.count()
_LONGEST = 240
"""Seconds."""

DIE_BEFORE_FILE = """
import os, pathlib, signal
real, left = pathlib.Path.replace, [{number}]
def replace(self, target):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
pathlib.Path.replace = replace
"""
"""Dies with file number so and so written, but not yet in its place."""


@dataclass
class Program:
    """A running `clay-publish produce`."""

    process: ForkServerProcess
    errors: Path

    def wait(self) -> int:
        """The exit code; negative: the signal that ended it."""
        self.process.join(_LONGEST)
        assert self.process.exitcode is not None, f"still running after {_LONGEST} s"
        return self.process.exitcode

    def finish(self, *, code: int = 0) -> None:
        """Wait until it has done its work; with 1, all but some units that failed."""
        assert self.wait() == code, self.errors.read_text()

    def kill_when(self, seen: Callable[[], bool]) -> bool:
        """Kill it as soon as something is seen; False where it ended before."""
        while self.process.is_alive():
            if seen():
                self.kill()
                return True
            time.sleep(0.001)
        return False

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.wait()


def start(spec: Path, out: Path, first: str = "", more: Sequence[str] = ()) -> Program:
    """Start it, with `more` arguments; `first` is Python that runs in the process before the program does."""
    errors = spec.with_name(f"printed-{os.getpid()}-{next(_NUMBER)}.txt")
    arguments = ["produce", str(spec), "--out", str(out), "--quiet", *more]
    process = fork(arguments, out=errors, errors=errors, first=first)
    return Program(process, errors)


def until(running: Program, seen: Callable[[], object]) -> None:
    """Wait until something is seen of a program, which must not end before."""
    end = time.monotonic() + _LONGEST
    while not seen():
        assert running.process.is_alive(), running.errors.read_text()
        assert time.monotonic() < end, f"not seen after {_LONGEST} s"
        time.sleep(0.01)
