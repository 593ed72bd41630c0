"""Validating a release in a child process, which reads what anyone may have written."""

import atexit
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from clay_publish import __version__
from clay_publish.errors import ReleaseError
from clay_publish.progress import Report, silent
from clay_publish.release.directory import Release
from clay_publish.release.findings import FileVerdict, ValidationReport
from clay_publish.storage.store import Store
from clay_publish.validate.sandbox.child import Child, CrashedError, Keep
from clay_publish.validate.sandbox.stores import Server, describe, neighbor, unpacked

if TYPE_CHECKING:  # the parent of a child process needs no context
    from clay_publish.validate.context import Recompute, Render

SAMPLE = 20_000
"""Chips that costly checks look at, at most, where the caller does not say."""
_MOST = 20
"""Files and rules that may end a child before validating is given up."""


@dataclass(frozen=True)
class Gathered:
    """What all shares of a validation found together."""

    scans: Mapping[str, str] = field(default_factory=dict)
    """By embeddings file, the file in the release that keeps what was seen in it."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Files that end the process that reads them, and how."""


def validate(
    release: Release,
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    sample: int = SAMPLE,
    quick: bool = False,
    previous: Release | None = None,
    verdicts: Mapping[str, FileVerdict] = {},
    gathered: Gathered | None = None,
    render: "Render | None" = None,
    recompute: "Recompute | None" = None,
    report: Report = silent,
) -> ValidationReport:
    """Validate a release. It is read in a child process; a file that crashes or exhausts that is a finding.

    Args:
        release: a release, made by anyone.
        only: codes (`COV001`) or groups (`COV`) of rules to check; none means all.
        skip: codes or groups to leave out.
        sample: chips that the costly checks look at, at most; `checked` says where that was fewer than all.
        quick: read metadata, footers and a sample of rows only; what needs more is not checked.
        previous: the version before, where it is not a neighbor of this one. A release that names another server
            is not followed there.
        verdicts: of the workers that made the files, for the last step of the run that they are of. Files are read and
            hashed all the same; only rules that depend on the rows alone, and hold in these bytes as they say, are not
            checked again.
        gathered: what shares of this validation saw in the embeddings files; other files are read here.
        render: a function of a module that renders the release's documents again, in the child process.
        recompute: makes some chips again, in this process: it needs the imagery and the model.
        report: hears of the progress.

    Raises:
        ReleaseError: there is nothing to validate, a rule is unknown, or this machine lacks memory or time.
    """
    store = release.store
    stores = [store] if previous is None else [store, previous.store]
    gathered = gathered or Gathered()
    job = {
        **_job(release, only, skip, sample),
        "previous": None if previous is None else describe(previous.store, 1),
        "quick": quick,
        "render": None if render is None else [render.__module__, render.__name__],
        "recompute": None if recompute is None else recompute.chips,
        "verified": {
            path: verdict.sha256
            for path, verdict in verdicts.items()
            if verdict.valid and verdict.validator == __version__
        },
        "scans": dict(gathered.scans),
    }
    with ExitStack() as stack:
        for each in stores:
            stack.enter_context(each.remembering())
        server = Server([*stores], lambda named: Store(neighbor(store, named)), _schema, recompute)
        answer = _answer(job, store, server, report=report, refused=dict(gathered.refused))
    return ValidationReport.model_validate(answer["report"]).model_copy(update={"fetched": store.fetched})


def scan_share(
    release: Release,
    share: tuple[int, int],
    *,
    only: Iterable[str],
    skip: Iterable[str],
    sample: int,
    done: Iterable[str],
    threads: int | None,
    keep: Keep,
    report: Report = silent,
) -> dict[str, str]:
    """Read a share of the embeddings files in a child process. Return those that crash or exhaust it, and how.

    Args:
        release: as in `validate`.
        share: which share, from 1, and of how many.
        only: as in `validate`.
        skip: as in `validate`.
        sample: as in `validate`.
        done: files that need not be read again.
        threads: files that are read at a time, at most; default: by the processors of this machine.
        keep: receives each file's path and what was seen in it.
        report: hears of the progress.

    Raises:
        ReleaseError: there is nothing to validate, a rule is unknown, or this machine lacks memory or time.
    """
    store, read, refused = release.store, list(done), dict[str, str]()
    job = {**_job(release, only, skip, sample), "share": share, "done": read, "threads": threads}

    def taken(path: str, seen: bytes) -> None:
        keep(path, seen)
        read.append(path)  # a child that is started again reads on from here

    with store.remembering():
        server = Server([store], lambda named: Store(neighbor(store, named)), _schema)
        _answer(job, store, server, report=report, refused=refused, keep=taken)
    return refused


def _job(release: Release, only: Iterable[str], skip: Iterable[str], sample: int) -> dict[str, Any]:
    return {
        "release": describe(release.store, 0),
        "only": list(only),
        "skip": list(skip),
        "sample": sample,
        "threads": None,
        "share": None,
    }


def _schema(uri: str) -> dict[str, Any]:
    from clay_publish.validate.data.stac_schemas import fetched_schema  # noqa: PLC0415 - rarely needed, slow to import

    return fetched_schema(uri)


def _keep_nothing(path: str, _: bytes) -> None:
    raise ReleaseError(path, "was sent by the process that reads the release, which was not asked for it")


def _answer(
    job: dict[str, Any],
    store: Store,
    server: Server,
    *,
    report: Report,
    refused: dict[str, str],
    keep: Keep = _keep_nothing,
) -> dict[str, Any]:
    """Return the answer of a child that came to the end, without the files that ended others; they join `refused`.

    Raises:
        ReleaseError: none does.
    """
    while True:
        try:
            answer = _children.run({**job, "refused": refused}, server, store, report, keep)
        except CrashedError as error:
            new = [each for each in error.culprits if each.name not in refused]
            if error.machine or not new or len(refused) >= _MOST:
                raise ReleaseError(store.where, error.why) from error
            if len(new) > 1 and new[0].is_file and job["threads"] != 1:
                job["threads"] = 1  # which of the files is seen when they are read one after the other
                continue
            refused[new[0].name] = error.why
        else:
            if "error" in answer:
                raise unpacked(answer["error"])
            return answer


class _Children:
    """Idle child processes of this process, used again."""

    def __init__(self) -> None:
        self._idle: list[Child] = []
        self._lock = Lock()

    def run(self, job: dict[str, Any], server: Server, store: Store, report: Report, keep: Keep) -> dict[str, Any]:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None or not child.alive:
            child = Child()
        answer = child.run(job, server, lambda: store.fetched, report, keep)
        with self._lock:
            self._idle.append(child)
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """A forked process has its parent's children, which are not its own."""
        for child in self._idle:
            child.forget()
        self.__init__()  # type: ignore[misc]


_children = _Children()
atexit.register(_children.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_children.forget)
