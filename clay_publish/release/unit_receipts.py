"""What the units of a run leave in `.run`: receipts, from which the record of the run can be derived again."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import LockedError, ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release, checked
from clay_publish.release.fingerprint import canonical_json

RECEIPTS = f"{paths.RUN}/receipts"
ATTEMPTS = f"{paths.RUN}/attempts"
"""One file per unit at work; those that are there when a run begins are of units in which a process ended."""
FAILURES = f"{paths.RUN}/failures"
"""Tracebacks of units that failed."""
FINISHED = f"{paths.RUN}/finished.json"
"""From which receipts the release was finished, and a digest of its files then."""
SHOWN = 10
"""Names that messages and `status` list, at most."""
_READ_AT_ONCE = 16
_NOT_READ = frozenset({"no_imagery", "excluded", "over_budget"})


class PartEntry(BaseModel):
    """One part."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    rows: int
    zones: dict[int, tuple[int, int]] = {}
    """Of rows of coverage: by UTM zone, the first and last of their places in the order of grid rows."""


class UnitReceipt(BaseModel):
    """What a finished unit did."""

    model_config = ConfigDict(frozen=True)

    unit: str
    images: int
    """How many images it has."""
    items: list[str]
    """Ids of the first `SHOWN` of them: in a large run each image is one of several units."""
    parts: dict[str, PartEntry]
    """By token of the published file; `coverage` for the coverage rows."""
    counts: dict[str, int]
    """Chips by `embedded` or by reason."""
    seconds: float
    finished: float = 0.0
    """When: seconds since 1970 by the clock of its machine."""
    device: str
    machine: str = ""
    """The machine that made it; empty where its chips were reused."""
    error: str | None = None
    """Why some or all of its chips could not be made as planned: the next run makes them again."""
    notes: list[str] = []
    """What a reader of the release should know of its images."""

    @property
    def computed(self) -> int:
        """Chips whose images were read for it, whatever became of them; none where they were reused."""
        return sum(count for reason, count in self.counts.items() if reason not in _NOT_READ) if self.seconds else 0


def unread_note(item: str) -> str:
    """What a run notes of an image that it could not read, where others may have taken its place."""
    return f"item {item} could not be read: chips that it reaches are taken from other images, or missing"


def receipts_digest(receipts: Sequence[UnitReceipt]) -> str:
    """SHA-256 of the receipts of a run, in any order."""
    ordered = sorted(receipts, key=lambda receipt: receipt.unit)
    return hashlib.sha256(canonical_json([receipt.model_dump(mode="json") for receipt in ordered])).hexdigest()


@dataclass
class Finish:
    """`.run/finished.json`, as this process last saw it: whether the release is finished, and by whom.

    A process claims the end of a run before it writes what only one may write, and completes the claim when all is
    written. Each is a put on the condition that no other process has done so since: of two, one can go on.
    """

    release: Release
    _seen: tuple[bytes, str] | None
    """Its bytes and their tag."""
    _tags: dict[str, str | None] = field(default_factory=dict)
    """Of the documents that the claim is for; None: not there."""

    @classmethod
    def now(cls, release: Release) -> Self:
        """Read it."""
        return cls(release, release.store.read_tagged(FINISHED))

    def of(self, receipts: Sequence[UnitReceipt]) -> bool:
        """Whether the release was finished from these receipts.

        Raises:
            ReleaseError: it cannot be read.
        """
        said = self._said()
        return "files" in said and said.get("receipts") == receipts_digest(receipts)

    def as_left(self, receipts: Sequence[UnitReceipt], *, described: bool) -> bool:
        """Whether the release was finished from these receipts, and its files are still those that were there then.

        Args:
            receipts: of all units.
            described: with documents and manifest, which `produce` alone does not write.

        Raises:
            ReleaseError: it cannot be read.
        """
        if not self.of(receipts) or (described and not self._said().get("described")):
            return False
        return bool(self._said()["files"] == _files_digest(self.release))

    def _said(self) -> dict[str, Any]:
        if self._seen is None:
            return {}
        try:
            return dict(json.loads(self._seen[0]))
        except (ValueError, TypeError) as error:
            raise ReleaseError(
                self.release.store.path(FINISHED), f"cannot be read ({error!r})", fix="Remove it and run again."
            ) from error

    def claim(self, receipts: Sequence[UnitReceipt], documents: Sequence[str]) -> None:
        """Say that this process finishes the release from these receipts, and writes these documents.

        Raises:
            LockedError: another one has, since this was read: it took over the lease of this one, or lost its own.
        """
        self._tags = {path: self._tag(path) for path in documents}
        self._put({"receipts": receipts_digest(receipts), "by": uuid.uuid4().hex})

    def write(self, path: str, text: str) -> None:
        """Write a document that the claim is for.

        Raises:
            LockedError: another process has claimed the end of the run since.
        """
        while self.release.store.put(path, text.encode(), self._tags[path]) is None:
            if self._tag(FINISHED) != (self._seen and self._seen[1]):
                raise self._lost()
            self._tags[path] = self._tag(path)  # of one that had lost its claim

    def _tag(self, path: str) -> str | None:
        found = self.release.store.read_tagged(path)
        return None if found is None else found[1]

    def complete(self, *, described: bool) -> None:
        """Say that the release is finished, with the files that are there now.

        Raises:
            LockedError: another process finishes it, or has, since this one claimed it.
        """
        self._put(self._said() | {"files": _files_digest(self.release), "described": described})

    def _put(self, said: dict[str, Any]) -> None:
        data, tag = canonical_json(said), None if self._seen is None else self._seen[1]
        new = self.release.store.put(FINISHED, data, tag)
        if new is None:
            raise self._lost()
        self._seen = data, new

    def _lost(self) -> LockedError:
        return LockedError(self.release.store.where, "was finished by another process meanwhile", fix="Let it work.")


def _files_digest(release: Release) -> str:
    """SHA-256 of the paths and sizes of all files of a release, with the manifest and the checksums."""
    files = [path for path in release.store.files() if not path.startswith(f"{paths.RUN}/")]
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        sizes = list(pool.map(release.store.size, files))
    return hashlib.sha256(canonical_json(list(zip(files, sizes, strict=True)))).hexdigest()


def read_receipts(release: Release) -> dict[str, UnitReceipt]:
    """Receipts by unit, read side by side: on a server most of the time is spent waiting.

    Raises:
        ReleaseError: a receipt cannot be read.
    """
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = pool.map(lambda path: parse_receipt(release, path), release.store.files(RECEIPTS))
        return {receipt.unit: receipt for receipt in found}


def parse_receipt(release: Release, path: str) -> UnitReceipt:
    """Read one receipt.

    Raises:
        ReleaseError: it cannot be read.
    """
    return checked_receipt(release, path, release.store.read(path))


def checked_receipt(release: Release, path: str, data: bytes) -> UnitReceipt:
    """What the bytes of a receipt say.

    Raises:
        ReleaseError: they are not one.
    """
    fix = "Remove it; the unit is done again."
    return checked(UnitReceipt, data, release.store.path(path), "a receipt of this program", fix)
