"""The progress of a run, read from its files in `.run`, in any place and with any engine."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import ReleaseError, StoreError
from clay_publish.redaction import redact
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release, checked
from clay_publish.release.findings import FileVerdict, Severity, ValidationReport
from clay_publish.release.lease import holders
from clay_publish.release.manifest import UNITS, dump_json
from clay_publish.release.unit_receipts import ATTEMPTS, RECEIPTS, SHOWN, Finish, UnitReceipt, parse_receipt

DAMAGE = ("unreadable", "source_changed", "failed", "implausible")
"""Reasons for missing chips that are properties neither of the ground nor of the sky."""
VERDICT = f"{paths.RUN}/validation.json"
"""What the last run found when it validated the release."""
VERDICTS = f"{paths.RUN}/verdicts"
"""One file for each embeddings file, by the worker that made it."""
_READ_AT_ONCE = 16
_PACE_OF = 50
"""The newest units, from which the pace is computed."""


class FailedUnit(BaseModel):
    """A unit none of whose chips could be made."""

    model_config = ConfigDict(frozen=True)

    unit: str
    items: list[str]
    reason: str


class LeaseHolder(BaseModel):
    """Who works on the release, or did until it ended without a word."""

    model_config = ConfigDict(frozen=True)

    share: str | None
    name: str
    alive: bool
    heartbeat: float | None
    """Age of the last heartbeat in seconds; None where a lock of the operating system answers for it."""


State = Literal["starting", "running", "finished", "stopped", "planned"]


class RunStatus(BaseModel):
    """Progress of a run."""

    model_config = ConfigDict(frozen=True)

    where: str
    state: State
    """`stopped`: work is left and the lease is free. `planned`: no run has begun."""
    units: dict[str, int]
    """`total`, `done`, `failed` and `working`."""
    chips: dict[str, int]
    """`expected` and `to_compute` by the plan; `done` and `computed` so far. 0: not known yet."""
    missing: dict[str, int]
    """Chips that are not embedded, by reason."""
    failures: list[FailedUnit]
    files: int
    """Published embeddings files."""
    chips_per_second: float | None
    """Of the newest units, all workers together."""
    seconds_left: float | None
    usd: float | None
    usd_in_all: float | None
    budget_usd: float | None
    findings: dict[str, int] | None
    """Of the validation that ended the run, by severity; None where the release has not been validated since."""
    verdicts: dict[str, int]
    """Published embeddings files that were validated as they landed: `valid`, `invalid` (errors) and `other`."""
    invalid_files: list[str]
    """Files with errors, by that validation; before it, by the workers that made them."""
    holders: list[LeaseHolder]

    @property
    def exit_code(self) -> int:
        """0: finished, or in progress; 1: units that failed, or errors; 2: stopped or not begun."""
        if self.state in {"stopped", "planned"}:
            return 2
        lost = any(self.missing.get(reason) for reason in (*DAMAGE, "over_budget"))
        return 1 if self.units["failed"] or lost or self.invalid_files or (self.findings or {}).get("error") else 0


def keep_verdict(release: Release, validation: ValidationReport) -> None:
    """Keep what a run found when it validated the release, for `status`."""
    release.store.write(VERDICT, redact(dump_json(validation.model_dump(mode="json", exclude={"measures"}))))


def keep_file_verdict(release: Release, verdict: FileVerdict) -> None:
    """Keep what a worker found in a file that it made."""
    release.store.write(_verdict_path(verdict.file), redact(dump_json(verdict.model_dump(mode="json"))))


def file_verdict(release: Release, file: str) -> FileVerdict | None:
    """What is kept of a file; None where nothing is, or nothing that can be read."""
    kept = release.store.read_tagged(_verdict_path(file))
    return None if kept is None else _parse_verdict(kept[0])


def file_verdicts(release: Release) -> dict[str, FileVerdict]:
    """What is kept of all published files."""
    kept = set(release.store.files(VERDICTS))
    files = [file for file in release.data_files() if _verdict_path(file) in kept]
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = pool.map(lambda file: file_verdict(release, file), files)
        return {verdict.file: verdict for verdict in found if verdict is not None}


def _verdict_path(file: str) -> str:
    return f"{VERDICTS}/{file.removeprefix(f'{paths.EMBEDDINGS}/').removesuffix('.parquet')}.json"


def _parse_verdict(data: bytes) -> FileVerdict | None:
    try:
        return FileVerdict.model_validate_json(data)
    except ValueError:
        return None  # the file is validated again


@dataclass
class StatusReader:
    """Reads the status of one release; asked again, it reads only the receipts that are new."""

    release: Release
    _receipts: dict[str, UnitReceipt] = field(default_factory=dict)
    """By path; only of units that did not fail, which no later run writes again."""

    def read(self) -> RunStatus:
        """Return the progress of the run.

        Raises:
            ReleaseError: nothing was planned or made there, or it cannot be read.
        """
        release, store = self.release, self.release.store
        held = holders(release)
        there = store.exists(UNITS)
        planned: dict[str, Any] = release.json(UNITS) if there else {}
        if not there and not held and not store.exists(f"{paths.RUN}/plan.json"):
            published = store.exists(paths.MANIFEST)
            found = "is a release without a record of its run" if published else "has no run"
            fix = "A published release has no `.run`." if published else "Begin with `clay-publish run`."
            raise ReleaseError(
                store.where, found, "the directory or s3:// address that `clay-publish run` writes to", fix
            )
        receipts = self._read_receipts(set(planned.get("units", [])))
        alive = any(each.alive for each in held)
        done = {receipt.unit for receipt in receipts}
        finished = there and len(done) == len(planned["units"]) and Finish.now(release).of(receipts)
        state: State = "running" if there else "starting"
        if not alive:
            # A lease that was not given back is of a run that ended before its catalog, card and validation did.
            state = "planned" if not there else "finished" if finished and not held else "stopped"
        failed = [receipt for receipt in receipts if receipt.error is not None]
        counts: Counter[str] = Counter()
        for receipt in receipts:
            counts.update(receipt.counts)
        chips = {
            "expected": 0,
            "to_compute": 0,
            **planned.get("chips", {}),
            "done": counts.total(),
            "computed": sum(receipt.computed for receipt in receipts),
        }
        pace = _pace(receipts) if alive else None
        left = max(0, chips["to_compute"] - chips["computed"])
        usd, in_all, budget = self._dollars(receipts, chips)
        findings, invalid = self._verdict(finished=finished)
        landed = file_verdicts(release).values()
        if findings is None:
            invalid = [verdict.file for verdict in landed if verdict.errors]
        return RunStatus(
            where=store.where,
            state=state,
            units={
                "total": len(planned.get("units", [])),
                "done": len(done) - len(failed),
                "failed": len(failed),
                "working": len(store.files(ATTEMPTS)) if alive else 0,
            },
            chips=chips,
            missing={reason: count for reason, count in sorted(counts.items()) if reason != "embedded" and count},
            failures=[FailedUnit(unit=each.unit, items=each.items, reason=each.error or "") for each in failed[:SHOWN]],
            files=len(release.data_files()),
            chips_per_second=pace,
            seconds_left=left / pace if pace and chips["to_compute"] else None,
            usd=usd,
            usd_in_all=in_all,
            budget_usd=budget,
            findings=findings,
            verdicts={
                "valid": sum(verdict.valid for verdict in landed),
                "invalid": sum(bool(verdict.errors) for verdict in landed),
                "other": sum(not verdict.valid and not verdict.errors for verdict in landed),
            },
            invalid_files=invalid,
            holders=[
                LeaseHolder(share=each.share, name=each.name, alive=each.alive, heartbeat=each.heartbeat)
                for each in held
            ],
        )

    def _read_receipts(self, units: set[str]) -> list[UnitReceipt]:
        there = self.release.store.files(RECEIPTS)
        new = [path for path in there if path not in self._receipts]
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            read = {path: each for path, each in zip(new, pool.map(self._read_receipt, new), strict=True) if each}
        self._receipts |= {path: receipt for path, receipt in read.items() if receipt.error is None}
        found = (self._receipts.get(path) or read.get(path) for path in there)
        return [receipt for receipt in found if receipt is not None and receipt.unit in units]

    def _read_receipt(self, path: str) -> UnitReceipt | None:
        try:
            return parse_receipt(self.release, path)
        except StoreError:
            return None  # removed meanwhile, to be made again

    def _dollars(
        self, receipts: list[UnitReceipt], chips: dict[str, int]
    ) -> tuple[float | None, float | None, float | None]:
        """Dollars so far and in all at the stated price, and the budget."""
        if not self.release.store.exists(paths.SPEC):
            return None, None, None
        cost = self.release.spec().cost
        if cost.usd_per_hour is None:
            return None, None, cost.budget_usd
        usd = sum(receipt.seconds for receipt in receipts) / 3600 * cost.usd_per_hour
        share = chips["computed"] / chips["to_compute"] if chips["to_compute"] else 0.0
        return usd, usd / min(1.0, share) if share else None, cost.budget_usd

    def _verdict(self, *, finished: bool) -> tuple[dict[str, int] | None, list[str]]:
        if not finished or not self.release.store.exists(VERDICT):
            return None, []
        document, where = self.release.json(VERDICT), self.release.store.path(VERDICT)
        validation = checked(ValidationReport, document, where, "a validation report", "Run again.")
        counts = Counter(str(finding.severity) for finding in validation.findings)
        files = self.release.data_files()
        wrong = [finding.where for finding in validation.findings if finding.severity is Severity.ERROR]
        return dict(counts), [path for path in files if any(path in where for where in wrong)]


def _pace(receipts: list[UnitReceipt]) -> float | None:
    """Chips per second of the newest units: by when they were finished, or if that is not known, by what they took."""
    computed = sorted((each for each in receipts if each.computed), key=lambda each: each.finished)[-_PACE_OF:]
    if not computed:
        return None
    begun = _gap(computed)
    recent = computed[begun:]
    seconds = recent[-1].finished - recent[0].finished
    if len(recent) > 2 and seconds > 0:
        return sum(each.computed for each in recent[1:]) / seconds
    taken = sum(each.seconds for each in recent)
    return sum(each.computed for each in recent) / taken if taken else None


def _gap(receipts: list[UnitReceipt]) -> int:
    """Where the newest stretch of work begins: after the last pause that is not an unit's own time."""
    for place in range(len(receipts) - 1, 0, -1):
        pause = receipts[place].finished - receipts[place - 1].finished
        if pause > 60 + 3 * receipts[place].seconds:
            return place
    return 0
