"""Validating a release by several processes or machines: each reads a share of the embeddings, one makes the report.

What was seen in a file is kept in `.run/scans`, in a folder named after the files of the release, so that nothing is
used that was seen before a file changed, and in it a folder named after the rules: validations by other rules may be at
work. `Store` writes each file whole or not at all: a process may end at any moment, and the same command resumes.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clay_publish import __version__
from clay_publish.errors import LockedError, ReleaseError
from clay_publish.progress import Report, silent
from clay_publish.release.directory import RUN, Release
from clay_publish.release.lease import lease
from clay_publish.storage.store import OneFile, Store
from clay_publish.validate.runner import Gathered, scan_share

SCANS = f"{RUN}/scans"
"""What was seen in each embeddings file; removed when the report is made, or when the files have changed since."""
_AT_ONCE = 16
"""Requests for the tags of files that are made at a time."""


@dataclass(frozen=True)
class Choice:
    """What decides what is looked at in a row, the same for all shares."""

    only: tuple[str, ...]
    skip: tuple[str, ...]
    sample: int


@dataclass(frozen=True)
class SharedValidation:
    """The validation of a release in a number of shares.

    Raises:
        ReleaseError: the release is a single file.
    """

    release: Release
    choice: Choice
    of: int

    def __post_init__(self) -> None:
        """Refuse a single file, which has no directory of its own to keep anything in."""
        store = self.release.store
        if isinstance(store, OneFile):
            raise ReleaseError(store.path(store.name), "is one file, which is not validated in shares", "a directory")

    def scan(self, number: int, *, threads: int | None = None, report: Report = silent) -> None:
        """Read the files of a share that were not read before.

        Raises:
            ReleaseError: as in `validate`.
            StoreError: nothing can be written in the release.
        """
        store = self.release.store
        store.check_conditions(SCANS)
        refused = scan_share(
            self.release,
            (number, self.of),
            only=self.choice.only,
            skip=self.choice.skip,
            sample=self.choice.sample,
            done=self._scans(),
            threads=threads,
            keep=lambda path, seen: store.write(self._place(path), seen),
            report=report,
        )
        store.write(self._end(number), json.dumps({"refused": refused}))

    def left(self) -> list[int]:
        """Numbers of the shares that are not done."""
        store = self.release.store
        done = set(store.files(self._folder))
        return [number for number in range(1, self.of + 1) if self._end(number) not in done]

    @contextmanager
    def gathered(self) -> Iterator[Gathered | None]:
        """Give what all shares found, for the one that makes the report; None where another one does, or has.

        What is kept is removed at the end of a block that succeeds, with what is left of files that have changed since
        and of shares that were killed.
        """
        store = self.release.store
        with ExitStack() as stack:
            try:
                stack.enter_context(lease(self.release))
            except LockedError:
                yield None
                return
            if self.left():  # another one has made the report since, and removed it all
                yield None
                return
            refused: dict[str, str] = {}
            for number in range(1, self.of + 1):
                refused |= json.loads(store.read(self._end(number)))["refused"]
            yield Gathered(self._scans(), refused)
            store.remove_orphans(SCANS)
            for path in store.files(SCANS):
                if path.startswith(f"{self._folder}/") or not path.startswith(f"{self._files}/"):
                    store.remove(path)

    def _scans(self) -> dict[str, str]:
        kept = set(self.release.store.files(self._folder))
        places = {path: self._place(path) for path in self._paths}
        return {path: place for path, place in places.items() if place in kept}

    def _place(self, path: str) -> str:
        return f"{self._folder}/{hashlib.sha256(path.encode()).hexdigest()[:32]}.npz"

    def _end(self, number: int) -> str:
        return f"{self._folder}/{number}-of-{self.of}.json"

    @cached_property
    def _paths(self) -> list[str]:
        return [path for path in self.release.files() if not path.startswith(f"{RUN}/")]

    @cached_property
    def _files(self) -> str:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            states = list(pool.map(lambda path: _state(self.release.store, path), self._paths))
        return f"{SCANS}/{_digest([self._paths, states])}"

    @cached_property
    def _folder(self) -> str:
        return f"{self._files}/{_digest([__version__, self.choice.only, self.choice.skip, self.choice.sample])}"


def _digest(decided: list[object]) -> str:
    return hashlib.sha256(json.dumps(decided).encode()).hexdigest()[:16]


def _state(store: Store, path: str) -> list[object]:
    """What changes when a file does: its size, and its tag or the time when it was written."""
    head = store.head(path)
    return [head.size, Path(store.where, path).stat().st_mtime_ns if store.local else head.tag]
