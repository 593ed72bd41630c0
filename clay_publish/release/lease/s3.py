"""Leases on an object store: conditional puts do the work of locks.

A lease is a small object that its holder rewrites every few seconds, each time with a conditional put.
A second process watches it: if it changes, the holder is alive; if it does not for a timeout, by the watcher's own
clock, the watcher takes it over with a conditional put, and the holder's next put fails. Nothing is ever deleted, so
that no server has to know of conditional deletes: a lease that was given back says so.
"""

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from pydantic import BaseModel, ConfigDict, ValidationError

from clay_publish.errors import ClayPublishError, LockedError, StoreError, first_fault
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.lease.base import (
    LEASES,
    Holder,
    Lease,
    Share,
    excludes,
    lease_path,
    locked,
    share_of,
    this_process,
)
from clay_publish.release.manifest import dump_json

_ENDING = ".json"
"""Files without it are of a directory that was copied here."""
_ASKED_AT_ONCE = 8


@dataclass(frozen=True)
class Times:
    """Seconds."""

    beat: float = 10.0
    """Between two heartbeats."""
    timeout: float = 60.0
    """Timeout without a heartbeat, after which another process may take the lease."""


TIMES = Times()


class _State(BaseModel):
    """What a lease says."""

    model_config = ConfigDict(frozen=True)

    holder: str
    """For people."""
    run: str
    """Another one for each time that a lease is taken."""
    process: str | None
    """Which process it is, for those that see the same processes."""
    beat: int = 0
    at: float = 0.0
    """When it was put: seconds since 1970 by the holder's clock."""
    free: bool = False


@dataclass(frozen=True)
class _SeenLease:
    state: _State
    tag: str

    @property
    def free(self) -> bool:
        """Whether it is free: released, or of a process of this machine that has ended."""
        return self.state.free or _has_ended(self.state.process)


@contextmanager
def hold_objects(release: Release, share: Share | None) -> Iterator[Lease]:
    """Take the lease, then see that none is held which it keeps out: of two that do so at once, none or one remains.

    Raises:
        LockedError: another living process holds it, or one that it keeps out.
        StoreError: nothing can be written there, or on no condition.
    """
    release.store.check_conditions(paths.RUN)
    mine = _Mine(release, f"{lease_path(share)}{_ENDING}", TIMES)
    mine.take()
    try:
        there = [path for path in release.store.files(LEASES) if path.endswith(_ENDING)]
        others = [path for path in there if path != mine.path and excludes(share, path.removesuffix(_ENDING))]
        for path, seen in _watch(release, others, TIMES).items():
            _set_free(release, path, seen)
        yield mine
    except BaseException:
        with suppress(ClayPublishError):  # the error that led here is the one to tell; the lease becomes stale
            mine.give_back()
        raise
    else:
        mine.give_back()


def object_holders(release: Release) -> list[Holder]:
    """Return who holds leases on an object store, and who ended without giving theirs back.

    A heartbeat that looks old by the clocks of two machines is watched for as long as the next one takes.
    """
    paths_there = [path for path in release.store.files(LEASES) if path.endswith(_ENDING)]
    seen = {path: _read(release, path) for path in paths_there}
    taken = {path: found for path, found in seen.items() if found is not None and not found.state.free}
    alive = {path: not found.free and _age(found) <= TIMES.timeout for path, found in taken.items()}
    doubtful = [path for path, found in taken.items() if not alive[path] and not found.free]
    if doubtful:
        time.sleep(1.5 * TIMES.beat)
        for path in doubtful:
            again = _read(release, path)
            alive[path] = again is not None and again.tag != taken[path].tag and not again.state.free
    return [Holder(share_of(path), each.state.holder, alive[path], _age(each)) for path, each in taken.items()]


def _age(seen: _SeenLease) -> float:
    return max(0.0, time.time() - seen.state.at)


class _Mine:
    """A lease that this process holds."""

    def __init__(self, release: Release, path: str, times: Times) -> None:
        self.path = path
        self._release, self._times = release, times
        self._state = _State(holder=this_process(), run=uuid.uuid4().hex, process=_this_process())
        self._tag = ""
        self._renewed = 0.0
        self._ended, self._lost = Event(), Event()
        self._heart = Thread(target=self._beat, name="lease", daemon=True)

    def take(self) -> None:
        """Take it, and keep it from now on."""
        while True:
            seen = _watch(self._release, [self.path], self._times).get(self.path)
            tag = self._put(self._state, None if seen is None else seen.tag)
            if tag is not None:
                self._tag = tag
                self._heart.start()
                return
            # Another process was first; watch again to learn which, or that it is free after all.

    def check(self) -> None:
        """Whether it is still held."""
        fresh = time.monotonic() - self._renewed < self._times.timeout
        if not self._lost.is_set() and (fresh or self._still_mine() is not None):
            return
        seen = _read(self._release, self.path)
        now = "a process that has ended" if seen is None or seen.state.run == self._state.run else seen.state.holder
        raise LockedError(
            self._release.store.where,
            f"lease lost: {now} took over after {self._times.timeout:g} s without a heartbeat",
            fix="Let it work: what this run has finished is not done again.",
        )

    def give_back(self) -> None:
        """Let others have it at once."""
        self._ended.set()
        self._heart.join()
        free = self._state.model_copy(update={"free": True})
        if self._lost.is_set() or self._put(free, self._tag) is not None:
            return
        tag = self._still_mine()  # a heartbeat arrived whose answer was lost
        if tag is not None:
            self._put(free, tag)

    def _beat(self) -> None:
        while not self._ended.wait(self._times.beat):
            self._state = self._state.model_copy(update={"beat": self._state.beat + 1})
            try:
                tag = self._put(self._state, self._tag) or self._still_mine()
            except ClayPublishError:
                continue  # the server is unreachable; if another process takes over meanwhile, the next put fails
            if tag is None:
                self._lost.set()
                return
            self._tag = tag

    def _still_mine(self) -> str | None:
        """The tag, where an earlier put arrived although it seemed to have failed."""
        seen = _read(self._release, self.path)
        return seen.tag if seen is not None and seen.state.run == self._state.run and not seen.state.free else None

    def _put(self, state: _State, tag: str | None) -> str | None:
        begun = time.monotonic()
        now = state.model_copy(update={"at": round(time.time(), 1)})
        new = self._release.store.put(self.path, _bytes(now), tag)
        if new is not None:
            self._renewed = begun
        return new


def _watch(release: Release, leases: Iterable[str], times: Times) -> dict[str, _SeenLease]:
    """Wait until all of these leases are free; what was last seen of those that are there.

    Raises:
        LockedError: the holder of one of them is alive.
    """
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        asked = list(leases)
        first = dict(zip(asked, pool.map(lambda path: _read(release, path), asked), strict=True))
        there = {path: seen for path, seen in first.items() if seen is not None}
        silent = [path for path, seen in there.items() if not seen.free]
        end = time.monotonic() + times.timeout
        while silent and time.monotonic() < end:
            time.sleep(min(times.beat / 4, max(0.0, end - time.monotonic())))
            for path, seen in zip(silent, list(pool.map(lambda path: _read(release, path), silent)), strict=True):
                if seen is None:
                    del there[path]
                    continue
                if seen.tag != there[path].tag and not seen.free:
                    raise locked(release, path.removesuffix(_ENDING), seen.state.holder)
                there[path] = seen
            silent = [path for path in silent if path in there and not there[path].free]
    return there


def _set_free(release: Release, path: str, seen: _SeenLease) -> None:
    """Take a stale lease. If its holder is alive after all, the holder's next heartbeat fails."""
    if seen.state.free:
        return
    freed = seen.state.model_copy(update={"free": True, "holder": this_process(), "run": uuid.uuid4().hex})
    if release.store.put(path, _bytes(freed), seen.tag) is None:
        again = _read(release, path)
        raise locked(release, path.removesuffix(_ENDING), seen.state.holder if again is None else again.state.holder)


def _read(release: Release, path: str) -> _SeenLease | None:
    found = release.store.read_tagged(path)
    if found is None:
        return None
    data, tag = found
    try:
        return _SeenLease(_State.model_validate_json(data), tag)
    except ValidationError as error:
        why, fix = f"is not a lease ({first_fault(error)})", "Remove it once no run is active there."
        raise StoreError(release.store.path(path), why, fix=fix) from error


def _bytes(state: _State) -> bytes:
    return dump_json(state.model_dump(mode="json")).encode()


def _this_process() -> str | None:
    """Which process this is, of all that this boot of this machine, or this container, has seen; None: unknown."""
    return _process(os.getpid())


def _process(number: int) -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        room = Path("/proc/self/ns/pid").readlink()
        said = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, begun = said[0], said[19]
    return None if state in {"Z", "X"} else f"{boot} {room} {number} {begun}"


def _has_ended(process: str | None) -> bool:
    """Whether a process of this machine has ended; its number may have been reused since."""
    here = _this_process()
    if process is None or here is None or process.split()[:2] != here.split()[:2]:
        return False
    return _process(int(process.split()[2])) != process
