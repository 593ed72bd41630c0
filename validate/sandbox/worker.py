"""The child process: validates one release after the other, until the parent closes the pipe."""

import faulthandler
import json
import os
import shutil
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any

from clay_publish.errors import ClayPublishError
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.validate.checks import check_release
from clay_publish.validate.data import stac_schemas
from clay_publish.validate.sandbox.guard import Guard
from clay_publish.validate.sandbox.marks import Marks, watch
from clay_publish.validate.sandbox.stores import Parent, ParentStore, WatchedFile, WatchedFolder, packed


def main(scratch: str, control_in: int, control_out: int, marks: int, channels: list[tuple[int, int]]) -> None:
    """Work on jobs.

    Args:
        scratch: the folder that this process may write into.
        control_in: file descriptor that jobs come from.
        control_out: file descriptor that answers go to.
        marks: file descriptor of the shared marks.
        channels: pairs of file descriptors for requests to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    sys.dont_write_bytecode = True
    jobs, answers = Connection(control_in, writable=False), Connection(control_out, readable=False)
    parent = Parent([(Connection(a, writable=False), Connection(b, readable=False)) for a, b in channels])
    shared = Marks(marks)
    faulthandler.enable(sys.stderr, all_threads=False)
    os.chdir(scratch)
    tempfile.tempdir = scratch
    stac_schemas.known()  # before the folders that they lie in are out of reach
    for name in ("TMPDIR", "HOME", "HF_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = scratch
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    stac_schemas.fetch = lambda uri: parent.ask("schema", uri)
    guard = Guard(scratch)
    guard.install()
    while True:
        try:
            job = json.loads(jobs.recv_bytes())
        except EOFError:  # the parent ended without ending this process
            shutil.rmtree(scratch, ignore_errors=True)
            return
        watch(shared)
        answers.send_bytes(json.dumps(_answer(job, answers, parent, guard)).encode())


def _answer(job: dict[str, Any], answers: Connection, parent: Parent, guard: Guard) -> dict[str, Any]:
    guard.allow_only([])
    refused = job["refused"]

    def open_(described: dict[str, Any], prefix: str = "") -> Release:
        where, name = described["where"], described["name"]
        if not described["local"]:
            return Release(ParentStore(parent, described["number"], where, refused, prefix))
        guard.allow(where if name is None else os.path.join(where, name))  # noqa: PTH118 - as a store joins them
        if name is None:
            return Release(WatchedFolder(where, refused, prefix))
        return Release(WatchedFile(f"{where}/{name}", refused, prefix))

    def report(made: Progress) -> None:
        described = [made.stage, made.done, made.total, made.message, made.unit]
        answers.send_bytes(json.dumps({"progress": described}).encode())

    previous = "previous/"
    try:
        found = check_release(
            open_(job["release"]),
            only=job["only"],
            skip=job["skip"],
            sample=job["sample"],
            quick=job["quick"],
            refused=refused,
            threads=job["threads"],
            previous=None if job["previous"] is None else open_(job["previous"], previous),
            open_previous=lambda named: open_(parent.ask("previous", named), previous),
            report=report,
        )
    except ClayPublishError as error:
        return {"error": packed(error)}
    return {"report": found.model_dump(mode="json")}
