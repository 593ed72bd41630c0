"""What a process that reads untrusted files may do: read the release and its own libraries, write into one folder.

Python's audit events are refused where they ask for a socket, a process, or a file elsewhere. Native code raises no
such events; it is given open files and bytes, and paths below the release that were checked.
"""

import os
import resource
import sys
import sysconfig
from pathlib import Path
from typing import Any

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


class RefusedError(PermissionError):
    """Reading a release asked for something outside of it."""


class Guard:
    """The folders that may be read, and the one that may be written into."""

    def __init__(self, scratch: str) -> None:
        own = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *(path for path in sys.path if path)}
        self._writable = os.path.realpath(scratch)
        self._own = {os.path.realpath(path) for path in (*own, *_packages())} | {self._writable, *_SYSTEM}
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
        elif event.startswith(_REFUSED):
            msg = f"reading a release may not use {event}"
            raise RefusedError(msg)

    def _check(self, path: object, *, writes: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # an open file
        real = os.path.realpath(os.fsdecode(path))
        if real in _DEVICES or _below(real, [self._writable]):
            return
        if writes or not (_below(real, self._own) or _below(real, self._releases)):
            msg = f"reading a release may not {'write' if writes else 'open'} {real!r}"
            raise RefusedError(msg)


def _below(path: str, folders: Any) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _packages() -> set[str]:
    """Where the modules that are loaded lie, linked ones too."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {str(Path(file).resolve().parent) for file in files if file}
