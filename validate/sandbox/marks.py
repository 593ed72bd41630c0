"""Which files a process is reading, kept where its supervisor sees it even after a crash.

The supervisor reads while the process writes, and no lock holds across both: each mark has a checksum, and one that is
half written is none.
"""

import mmap
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil

Kind = Literal["reading", "touched", "rule"]
_KINDS: tuple[Kind, ...] = ("reading", "touched", "rule")
_SLOTS = 96
_SLOT = 1024
_SUM = struct.Struct("<I")
"""CRC-32 of all that follows."""
_HEAD = struct.Struct("<dQQQQdBH")
"""A mark's numbers in the order of `Mark`, kind, and bytes of the name; no bytes, no mark."""
_NAME = _SUM.size + _HEAD.size
"""Where the name begins in a slot."""
SIZE = _SLOTS * _SLOT


@dataclass(frozen=True)
class Mark:
    """A file that a thread reads, the file that it opened last, or the rule that it checks."""

    kind: Kind
    name: str
    start: float
    """On the monotonic clock, which all processes of a machine share."""
    thread: int
    """As the operating system numbers it."""
    ident: int
    """As Python does."""
    size: int
    """Bytes of the file."""
    memory: int
    """Bytes that the process had when the mark was set."""
    seconds: float
    """Processor time that the thread had used by then."""


def own_memory(process: psutil.Process) -> int:
    """Bytes of memory that a process shares with no other."""
    usage = process.memory_info()
    return int(usage.rss - getattr(usage, "shared", 0))


class Marks:
    """Marks in memory that two processes share."""

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, SIZE)
        self._process = psutil.Process()
        self._lock = threading.Lock()

    def begin(self, kind: Kind, name: str, size: int = 0) -> int:
        """Set a mark; return its slot, or −1 if all are taken."""
        with self._lock:
            for slot in range(_SLOTS):
                if not _HEAD.unpack_from(self._memory, slot * _SLOT + _SUM.size)[-1]:
                    self._put(slot, kind, name, size)
                    return slot
        return -1

    def replace(self, slot: int, kind: Kind, name: str, size: int = 0) -> None:
        """Set a mark in a slot of this thread."""
        with self._lock:
            self._put(slot, kind, name, size)

    def end(self, slot: int) -> None:
        """Remove a mark."""
        if slot >= 0:
            self._memory[slot * _SLOT : slot * _SLOT + _NAME] = bytes(_NAME)

    def clear(self) -> None:
        """Remove all marks."""
        self._memory[:] = bytes(SIZE)

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()

    def current(self) -> list[Mark]:
        """Return all marks, the latest first."""
        found = []
        for slot in range(_SLOTS):
            data = self._memory[slot * _SLOT : (slot + 1) * _SLOT]
            *numbers, kind, length = _HEAD.unpack_from(data, _SUM.size)
            stated, name = _SUM.unpack_from(data)[0], data[_NAME : _NAME + length]
            if length and stated == zlib.crc32(data[_SUM.size : _NAME + length]) and kind < len(_KINDS):
                found.append(Mark(_KINDS[kind], name.decode("utf-8", "replace"), *numbers))
        return sorted(found, key=lambda mark: -mark.start)

    def _put(self, slot: int, kind: Kind, name: str, size: int) -> None:
        text = name.encode("utf-8", "replace")[: _SLOT - _NAME]
        number = _KINDS.index(kind)
        threads = threading.get_native_id(), threading.get_ident()
        used = own_memory(self._process), time.thread_time()
        data = _HEAD.pack(time.monotonic(), *threads, max(size, 0), *used, number, len(text)) + text
        self._memory[slot * _SLOT : slot * _SLOT + _SUM.size + len(data)] = _SUM.pack(zlib.crc32(data)) + data


_watched: list[Marks] = []
_own = threading.local()


def watch(marks: Marks) -> None:
    """Write what this process reads into these marks from now on, or again after they were cleared."""
    _watched[:] = [marks]
    _own.__dict__.clear()


@contextmanager
def marked(kind: Kind, name: str, size: int = 0) -> Iterator[None]:
    """Mark a file or a rule while the block works on it."""
    if not _watched:
        yield
        return
    slot = _watched[0].begin(kind, name, size)
    try:
        yield
    finally:
        _watched[0].end(slot)


def touch(name: str) -> None:
    """Mark the file that this thread opened last."""
    if not _watched:
        return
    slot = getattr(_own, "slot", -1)
    if slot < 0:
        _own.slot = _watched[0].begin("touched", name)
    else:
        _watched[0].replace(slot, "touched", name)
