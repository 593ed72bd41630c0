"""The child process: validates one release after the other, may open only what it was given, until the pipe closes.

Python's audit events are refused where they ask for a socket, a process, or a file elsewhere. Native code raises no
such events; it is given open files and bytes, and paths below the release that were checked.
"""

import faulthandler
import json
import os
import resource
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from clay_publish.errors import ClayPublishError
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.validate.checks import check_release, scan_files
from clay_publish.validate.context import Recompute
from clay_publish.validate.data import stac_schemas
from clay_publish.validate.sandbox.marks import Marks, watch
from clay_publish.validate.sandbox.stores import Parent, ParentFile, ParentStore, WatchedFile, WatchedFolder, packed

_REFUSED = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "os.kill",
    "pty.",
    "ftplib.",
    "http.client.",
    "imaplib.",
    "poplib.",
    "smtplib.",
    "telnetlib.",
    "urllib.",
    "webbrowser.",
    "winreg.",
)
_CHANGES = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"),
    *("os.truncate", "os.utime", "os.setxattr"),
}
_LOOKS = {"os.listdir", "os.scandir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SYSTEM = (
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/fs/cgroup", "/sys/devices/system"),
    "/usr/share/zoneinfo",
)
_DEVICES = {"/dev/null", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/timezone", "/etc/mime.types"}


class GuardedError(PermissionError):
    """Reading a release asked for something outside of it."""


class Guard:
    """The folders that may be read, and the one that may be written into."""

    def __init__(self, scratch: str) -> None:
        own = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *(path for path in sys.path if path)}
        self._writable = os.path.realpath(scratch)
        self._own = {os.path.realpath(path) for path in (*own, *_packages())} | {self._writable}
        self._own |= {os.path.realpath(path) for path in _SYSTEM}
        self._releases: list[str] = []

    def install(self) -> None:
        """Refuse what is not allowed from now on; it cannot be undone."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.addaudithook(self._hear)

    def allow_only(self, releases: list[str]) -> None:
        """Allow to read these folders or files, and no longer the ones before."""
        self._releases = [os.path.realpath(path) for path in releases]

    def allow(self, release: str) -> None:
        """Allow to read another folder."""
        self._releases.append(os.path.realpath(release))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(flags, int) and flags & _WRITES) or (isinstance(mode, str) and set(mode) & set("wax+"))
            self._check(path, writes=bool(writes))
        elif event in _CHANGES:
            for path in arguments[1:2] if event == "os.symlink" else arguments[:2]:
                self._check(path, writes=True)
        elif event in _LOOKS:
            self._check(arguments[0], writes=False)
        elif event.startswith(_REFUSED) and not (event == "socket.__new__" and _is_pair(arguments)):
            msg = f"reading a release may not use {event}"
            raise GuardedError(msg)

    def _check(self, path: object, *, writes: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # an open file
        real = os.path.realpath(os.fsdecode(path))
        if real in _DEVICES or _below(real, [self._writable]):
            return
        if writes or not (_below(real, self._own) or _below(real, self._releases)):
            msg = f"reading a release may not {'write' if writes else 'open'} {real!r}"
            raise GuardedError(msg)


def _is_pair(arguments: tuple[Any, ...]) -> bool:
    """Whether `socket.socketpair` makes a socket: by a pair the event loop of asyncio, which zarr runs, wakes itself.

    Its ends are connected to each other alone; every other event of a socket is refused for them, too.
    """
    # The frames: this function, the hook, `socket.socket.__init__`, and who called that.
    caller = sys._getframe(3).f_code  # noqa: SLF001 - the event does not tell a pair from a lone socket
    return arguments[1:] == (socket.AF_UNIX, socket.SOCK_STREAM, 0) and caller is socket.socketpair.__code__


def _below(path: str, folders: Any) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _packages() -> set[str]:
    """Where the modules that are loaded lie, linked ones too."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    # What renders documents is loaded when a job asks for it; in a checkout it lies in folders of its own.
    specs = [find_spec(f"clay_publish.{name}") for name in ("cards", "catalog")]
    later = [folder for spec in specs if spec is not None for folder in spec.submodule_search_locations or ()]
    return {str(Path(file).resolve().parent) for file in files if file} | {os.path.realpath(path) for path in later}


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
            if name is None:
                return Release(ParentStore(parent, described["number"], where, refused, prefix))
            file = ParentFile(parent, described["number"], where, refused, prefix)
            file.name = name
            return Release(file)
        guard.allow(where if name is None else os.path.join(where, name))  # noqa: PTH118 - as a store joins them
        if name is None:
            return Release(WatchedFolder(where, refused, prefix))
        return Release(WatchedFile(f"{where}/{name}", refused, prefix))

    def report(made: Progress) -> None:
        described = [made.stage, made.done, made.total, made.message, made.unit]
        answers.send_bytes(json.dumps({"progress": described}).encode())

    def keep(path: str, seen: bytes) -> None:
        # By way of a file: a message has a limit.
        handle, name = tempfile.mkstemp()
        with os.fdopen(handle, "wb") as file:
            file.write(seen)
        answers.send_bytes(json.dumps({"keep": [path, Path(name).name]}).encode())

    previous = "previous/"
    try:
        if job["share"] is not None:
            scan_files(
                open_(job["release"]),
                only=job["only"],
                skip=job["skip"],
                sample=job["sample"],
                share=tuple(job["share"]),
                done=set(job["done"]),
                threads=job["threads"],
                keep=keep,
                report=report,
            )
            return {"scanned": True}
        found = check_release(
            open_(job["release"]),
            only=job["only"],
            skip=job["skip"],
            sample=job["sample"],
            quick=job["quick"],
            refused=refused,
            threads=job["threads"],
            previous=None if job["previous"] is None else open_(job["previous"], previous),
            verified=job["verified"],
            scans=job["scans"],
            open_previous=lambda named: open_(parent.ask("previous", named), previous),
            render=None if job["render"] is None else getattr(import_module(job["render"][0]), job["render"][1]),
            recompute=None
            if job["recompute"] is None
            else Recompute(job["recompute"], partial(parent.ask, "recompute")),
            report=report,
        )
    except ClayPublishError as error:
        return {"error": packed(error)}
    return {"report": found.model_dump(mode="json")}
