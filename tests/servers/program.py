"""The program in this process, where what it has loaded, and the child that validates, serve the next test as well; in
a process of its own where that is to be killed, forked from one that has everything imported; started from its script
where the interpreter's own environment matters.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from unittest.mock import patch

from clay_publish.cli.app import main

# Not `publish`: what it brings reads its environment when it is imported.
_IMPORTED = [
    "clay_publish.cli.app",
    "clay_publish.cards",
    "clay_publish.catalog",
    "clay_publish.producer.encoders.random_features",
    "clay_publish.producer.plan_run",
    "clay_publish.validate.landing",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_IMPORTED)
_LONGEST = 300
"""Seconds."""
_begun: list[ForkServerProcess] = []


def fork(
    arguments: Sequence[str],
    *,
    out: Path,
    errors: Path,
    cwd: Path | None = None,
    first: str = "",
) -> ForkServerProcess:
    """Start `clay-publish` with these arguments; what it prints goes to two files, or to one.

    `first` is Python that runs in the process before the program does.
    """
    code = f"""
import gc, os, sys
gc.freeze()  # what is imported is not looked through again
os.environ.clear()
os.environ.update({dict(os.environ)!r})
os.chdir({str(cwd or Path.cwd())!r})
os.fsync = os.fstat  # as in `conftest`
for number, path in ((1, {str(out)!r}), (2, {str(errors)!r})):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
sys.argv = {json.dumps(["clay-publish", *arguments])}
{first}
from clay_publish.cli.app import main
main()
"""
    process = _CONTEXT.Process(target=exec, args=(code, {}))
    process.start()
    _begun.append(process)
    return process


def end_all() -> None:
    """Kill what `fork` started and is still running."""
    while _begun:
        process = _begun.pop()
        process.kill()
        process.join()


def run_script(
    arguments: Sequence[str], *, cwd: Path | None, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the installed script, with `env` over the environment."""
    return subprocess.run(
        [Path(sys.executable).with_name("clay-publish"), *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LONGEST,
    )


@contextmanager
def below_python() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Two files with what libraries in C and child processes print, which Python's own streams do not see."""
    before = [os.dup(number) for number in (1, 2)]
    with TemporaryFile() as out, TemporaryFile() as errors:
        try:
            for number, file in ((1, out), (2, errors)):
                os.dup2(file.fileno(), number)
            yield out, errors
        finally:
            for number, kept in zip((1, 2), before, strict=True):
                os.dup2(kept, number)
                os.close(kept)


def run_here(arguments: Sequence[str], *, cwd: Path | None) -> subprocess.CompletedProcess[str]:
    """Run it to its end in this process."""
    out, errors = BytesIO(), BytesIO()
    code = 0
    with (
        below_python() as below,
        patch.object(sys, "argv", ["clay-publish", *arguments]),
        chdir(cwd or Path.cwd()),
        redirect_stdout(TextIOWrapper(out, write_through=True)),
        redirect_stderr(TextIOWrapper(errors, write_through=True)),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        # The streams close what they write to.
        printed = [file.getvalue().decode() for file in (out, errors)]
        for number, file in enumerate(below):
            file.seek(0)
            printed[number] += file.read().decode()
    return subprocess.CompletedProcess(list(arguments), code, *printed)
