"""Validating a release in a child process, which reads what anyone may have written."""

import atexit
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Any

from clay_publish import __version__
from clay_publish.errors import ReleaseError
from clay_publish.progress import Report, silent
from clay_publish.release.directory import Release
from clay_publish.release.findings import FileVerdict, ValidationReport
from clay_publish.storage.store import Store
from clay_publish.validate.sandbox.child import Child, CrashedError
from clay_publish.validate.sandbox.stores import Server, describe, neighbor, unpacked

if TYPE_CHECKING:  # the parent of a child process needs no context
    from clay_publish.validate.context import Recompute, Render

SAMPLE = 20_000
"""Chips that costly checks look at, at most, where the caller does not say."""
_MOST = 20
"""Files and rules that may end a child before validating is given up."""


def validate(
    release: Release,
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    sample: int = SAMPLE,
    quick: bool = False,
    previous: Release | None = None,
    verdicts: Mapping[str, FileVerdict] = {},
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
        render: a function of a module that renders the release's documents again, in the child process.
        recompute: computes vectors of some chips again, in this process: it needs the imagery and the model.
        report: hears of the progress.

    Raises:
        ReleaseError: there is nothing to validate, a rule is unknown, or this machine lacks memory or time.
    """
    store = release.store
    stores = [store] if previous is None else [store, previous.store]
    job = {
        "release": describe(store, 0),
        "previous": None if previous is None else describe(previous.store, 1),
        "only": list(only),
        "skip": list(skip),
        "sample": sample,
        "quick": quick,
        "threads": None,
        "render": None if render is None else [render.__module__, render.__name__],
        "recompute": None if recompute is None else recompute.chips,
        "refused": {},
        "verified": {
            path: verdict.sha256
            for path, verdict in verdicts.items()
            if verdict.valid and verdict.validator == __version__
        },
    }
    with ExitStack() as stack:
        for each in stores:
            stack.enter_context(each.remembering())
        server = Server([*stores], lambda named: Store(neighbor(store, named)), _schema, recompute)
        answer = _answer(job, store, server, report)
    if "error" in answer:
        raise unpacked(answer["error"])
    return ValidationReport.model_validate(answer["report"]).model_copy(update={"fetched": store.fetched})


def _schema(uri: str) -> dict[str, Any]:
    from clay_publish.validate.data.stac_schemas import fetched_schema  # noqa: PLC0415 - rarely needed, slow to import

    return fetched_schema(uri)


def _answer(job: dict[str, Any], store: Store, server: Server, report: Report) -> dict[str, Any]:
    """Return the answer of a child that came to the end, without the files that ended others.

    Raises:
        ReleaseError: none does.
    """
    refused: dict[str, str] = {}
    while True:
        try:
            return _children.run({**job, "refused": refused}, server, store, report)
        except CrashedError as error:
            new = [each for each in error.culprits if each.name not in refused]
            if error.machine or not new or len(refused) >= _MOST:
                raise ReleaseError(store.where, error.why) from error
            if len(new) > 1 and new[0].is_file and job["threads"] is None:
                job["threads"] = 1  # which of the files is seen when they are read one after the other
                continue
            refused[new[0].name] = error.why


class _Children:
    """Idle child processes of this process, used again."""

    def __init__(self) -> None:
        self._idle: list[Child] = []
        self._lock = Lock()

    def run(self, job: dict[str, Any], server: Server, store: Store, report: Report) -> dict[str, Any]:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None or not child.alive:
            child = Child()
        answer = child.run(job, server, lambda: store.fetched, report)
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
