"""What every engine does alike: find what is done, keep the ledger and the budget, say which files can be published."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from clay_publish import __version__
from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.attempts import TRIES, died_in, end
from clay_publish.producer.execution.context import Work
from clay_publish.producer.execution.second_pass import References, keep_reference
from clay_publish.producer.execution.shard_queue import ShardQueue
from clay_publish.producer.execution.unit import set_aside
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.aggregates import write_aggregates
from clay_publish.producer.outputs.arrays.shards import remove_arrays
from clay_publish.producer.outputs.assemble import publish_coverage, publish_file, remove_parts, remove_unknown_files
from clay_publish.producer.outputs.codes import write_codes
from clay_publish.producer.outputs.missing import write_gaps
from clay_publish.producer.outputs.parts import COVERAGE, file_of, finished_units, read_part, remove_all
from clay_publish.producer.outputs.patches import publish_patches
from clay_publish.producer.outputs.sources_table import write_sources
from clay_publish.producer.planning.cost import Rates
from clay_publish.producer.planning.estimate_files import planned_rates
from clay_publish.producer.sources.selection import Selection
from clay_publish.producer.unit_plan import Plan, units_of
from clay_publish.progress import Progress, Report
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.findings import FileVerdict
from clay_publish.release.lease.base import Lease, Share
from clay_publish.release.manifest import RUN_RECORD, RunRecord, derive_run_record, dump_json
from clay_publish.release.measurements import dump_measurements, measured
from clay_publish.release.run_status import file_verdict, file_verdicts, keep_file_verdict
from clay_publish.release.tables import OMITTED, PER_FILE, PER_RELEASE, chips_per_file
from clay_publish.release.unit_receipts import Finish, UnitReceipt
from clay_publish.spec.models import Spec

STRAY = 0.25
"""Share by which the pace may differ from the plan's before it is said."""
_EARLY = 0.02
"""Share of the chips after which a pace says something."""


@dataclass
class Ledger:
    """What was done and what it cost; for several threads."""

    total: int
    """Chips to compute in the whole run; counted down where images turn out not to reach some."""
    usd_per_hour: float | None
    budget_usd: float | None
    planned: Rates | None
    """What the plan said of the pace."""
    chips: int = 0
    seconds: float = 0.0
    _entered: set[str] = field(default_factory=set)
    _before: dict[str, float] = field(default_factory=dict)
    """Seconds of earlier attempts, of units that are to be made again."""
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, spec: Spec, units: Iterable[Unit], planned: Rates | None, share: Share | None = None) -> "Ledger":
        """Empty ledger for the units of a plan; a share may spend as much of the budget as any other."""
        total, budget = sum(unit.chips for unit in units if unit.items and not unit.reused), spec.cost.budget_usd
        if budget is not None and share is not None:
            budget /= share.of
        return cls(total, spec.cost.usd_per_hour, budget, planned)

    def enter(self, receipt: UnitReceipt) -> None:
        """Count a finished unit, of this run or before, once. Reused chips cost nothing; they are not in the rate."""
        with self._lock:
            if receipt.unit in self._entered or not receipt.seconds:
                return
            self._entered.add(receipt.unit)
            self.chips += receipt.computed
            if receipt.images:
                self.total -= receipt.counts.get("no_imagery", 0) + receipt.counts.get("excluded", 0)
            self.seconds += receipt.seconds - self._before.pop(receipt.unit, 0.0)

    def enter_failed(self, receipt: UnitReceipt) -> None:
        """Count what a unit cost that failed before and is made again; its next receipt has these seconds as well."""
        with self._lock:
            self._before[receipt.unit] = receipt.seconds
            self.seconds += receipt.seconds

    @property
    def usd(self) -> float | None:
        """Dollars so far; None where no price is stated."""
        return None if self.usd_per_hour is None else self.seconds / 3600 * self.usd_per_hour

    @property
    def projected_usd(self) -> float | None:
        """Dollars in all, if it goes on like this."""
        if self.usd is None or not self.chips:
            return None
        return self.usd * max(self.total, self.chips) / self.chips

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.usd is not None and self.budget_usd is not None and self.usd >= self.budget_usd

    def line(self) -> str:
        """Dollars, and warnings, for a person who watches."""
        said = [] if self.usd is None else [f"${self.usd:,.2f}"]
        if self.projected_usd is not None:
            said = [f"{said[0]} of about ${self.projected_usd:,.2f}"]
        return "; ".join([*said, *self._warnings()])

    def _warnings(self) -> list[str]:
        if self.spent:
            return [f"the budget of ${self.budget_usd:g} is spent: the rest is left for another run"]
        if self.planned is None or not self.seconds or self.chips < max(1, _EARLY * self.total):
            return []
        pace, planned = self.chips / self.seconds * 3600, self.planned.chips_per_hour
        if abs(pace / planned - 1) <= STRAY:
            return []
        times = f"{max(pace / planned, planned / pace):.3g}×"
        return [f"{times} {'faster' if pace > planned else 'slower'} than planned"]


@dataclass(frozen=True)
class Ready:
    """A published file whose units are all done."""

    file: DataFile
    units: tuple[Unit, ...]
    receipts: tuple[UnitReceipt, ...]
    """Of these units."""
    reference: int
    """Chips of it that are computed a second time."""


class Engine(Protocol):
    """Makes units, and publishes files, in any order and any number at a time."""

    def __call__(self, run: "Run", units: Sequence[Unit], ready: Sequence[Ready]) -> None:
        """Make the units and tell the run of each; publish what is ready, and what becomes so.

        Raises:
            ClayPublishError: the run cannot go on; what is finished stays.
        """
        ...


def run_units(run: "Run", engine: Engine) -> list[UnitReceipt]:
    """Run the units that are not done, and give the receipts of all, in the order of the plan.

    Units that failed in an earlier run are tried again. Those in which a run died come last.

    Raises:
        ClayPublishError: the run cannot go on; what is finished stays.
    """
    ready = run.resume()
    waiting = [unit for unit in run.units if unit.id not in run.receipts]
    waiting.sort(key=lambda unit: run.died.get(unit.id, 0))
    engine(run, waiting, ready)
    for name in run.died.keys() - {unit.id for unit in waiting}:
        end(run.work.release, name)  # it was done after all
    return [run.receipts[unit.id] for unit in run.units]


def publish_ready(ready: Ready, work: Work, plan: Plan, gsd: float) -> FileVerdict | None:
    """Make parts into the published file, compute its reference vectors, and validate it; rerun after an interruption.

    Returns:
        What is wrong with the file, where it is there and the run validates.
    """
    release, mine = work.release, list(ready.receipts)
    made = publish_file(release, ready.file, mine, plan, gsd)
    as_table = work.spec.outputs.patch_format != "zarr"
    if made and as_table:
        publish_patches(release, ready.file, mine, plan, gsd)
    path, verdict = f"{paths.EMBEDDINGS}/{ready.file.name}", None
    if not any(ready.file.token in receipt.parts for receipt in mine):  # its units, made again, gave no row
        remove_all(release, [path, f"{paths.PATCHES}/{ready.file.name}"])
    if made or release.store.exists(path):
        keep_reference(ready.file, ready.units, mine, count=ready.reference, work=work)
        verdict = _verdict(path, work, made=made)
    # Last: while there are parts, the file is made and validated again. Where a unit is to be made again, the parts of
    # all are kept, so that none of its rows stay that it no longer gives.
    if made and not any(receipt.error for receipt in mine):
        remove_parts(release, ready.file, mine, patches=as_table)
    return verdict


def _verdict(path: str, work: Work, *, made: bool) -> FileVerdict | None:
    if work.check is None:
        return None
    kept = None if made else file_verdict(work.release, path)
    if kept is None or kept.validator != __version__:
        kept = work.check(path)
        keep_file_verdict(work.release, kept)
    return kept


@dataclass
class Run:
    """The units of one process, and their progress."""

    plan: Plan
    work: Work
    selection: Selection
    """The images."""
    gsd: float
    """Ground size of a pixel as it is published, meters."""
    report: Report
    held: Lease
    share: Share | None
    """None: all of the plan; no other process is at work."""
    units: tuple[Unit, ...]
    ledger: Ledger
    shards: ShardQueue
    """Of the arrays."""
    finish: Finish
    """Whether the release was finished before."""
    receipts: dict[str, UnitReceipt] = field(default_factory=dict)
    """Of units that are done, in this run or before."""
    files: dict[DataFile, set[str]] = field(default_factory=dict)
    """The units that each published file waits for; of a share only files that are of no other."""
    died: dict[str, int] = field(default_factory=dict)
    """How many runs ended while a unit was at work."""
    invalid: set[str] = field(default_factory=set)
    """Files with errors, of those that were published or looked at by this process."""
    reference: int = PER_FILE
    """Chips of each file that are computed a second time, as far as the plan tells: it knows the files, not their rows.
    What is missing then is added at the end."""
    _by_id: dict[str, Unit] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        plan: Plan,
        work: Work,
        selection: Selection,
        gsd: float,
        *,
        report: Report,
        held: Lease,
        share: Share | None = None,
    ) -> "Run":
        """A run of a plan, or of a share of it."""
        units = plan.units if share is None else units_of(share, plan.units)
        ledger = Ledger.of(work.spec, units, planned_rates(work.release, work.spec), share)
        shards, before = ShardQueue.of(plan, work), Finish.now(work.release)
        run = cls(plan, work, selection, gsd, report, held, share, units, ledger, shards, before)
        for unit in plan.units:
            for file in unit.files:
                run.files.setdefault(file, set()).add(unit.id)
        run.reference = chips_per_file([PER_RELEASE] * len(run.files)) if run.files else PER_FILE
        run._by_id = {unit.id: unit for unit in plan.units}
        own = {unit.id for unit in units}
        run.files = {file: names for file, names in run.files.items() if names <= own}
        return run

    def resume(self, *, failed: bool = False) -> list[Ready]:
        """Find what is done already, remove what is not part of it, and give the files that only waited for that.

        Args:
            failed: count units that failed as done.
        """
        release, own = self.work.release, {unit.id for unit in self.units}
        for name, receipt in finished_units(release, failed=True).items():
            if name in own and (failed or receipt.error is None):
                self._enter(receipt)
            elif name in own:
                self.ledger.enter_failed(receipt)
        self.died = {name: runs for name, runs in died_in(release).items() if self.share is None or name in own}
        if self.share is None:
            remove_unknown_files(release, self.files, self.receipts.values())
        self.shards.resume(alone=self.share is None)
        self._tell()
        return self._ready(self.files)

    def careful(self, unit: Unit) -> bool:
        """Whether so many processes ended while this unit was at work that it has to be on its own."""
        return self.died.get(unit.id, 0) >= TRIES - 1

    def left_out(self, unit: Unit) -> UnitReceipt | None:
        """To be asked before each unit: its receipt where the budget is spent, and it is left to another run.

        Raises:
            LockedError: another run has taken this one's place.
        """
        self.held.check()
        if not self.ledger.spent:
            return None
        detail = "the budget was spent before its turn"
        return set_aside(unit, self.work, detail, "run again with a greater cost.budget_usd", "over_budget")

    def done(self, unit: Unit, receipt: UnitReceipt) -> list[Ready]:
        """Count a unit; the files that waited for it alone."""
        self._enter(receipt)
        mine: set[DataFile] = set(unit.files)
        if not mine and self.share is None:  # its image could not be asked where it lies before it was read
            mine = {file for token in receipt.parts if (file := file_of(token)) is not None}
            for file in mine:
                self.files.setdefault(file, set()).add(unit.id)
        self._tell()
        return self._ready(mine)

    def _enter(self, receipt: UnitReceipt) -> None:
        self.receipts[receipt.unit] = receipt
        self.ledger.enter(receipt)

    def _ready(self, files: Iterable[DataFile]) -> list[Ready]:
        done = [file for file in files if file in self.files and self.files[file] <= self.receipts.keys()]
        return [self._waiting(file, self.files[file], self.reference) for file in done]

    def _waiting(self, file: DataFile, names: Iterable[str], count: int) -> Ready:
        units = tuple(self._by_id[name] for name in sorted(names))
        return Ready(file, units, tuple(self.receipts[unit.id] for unit in units), count)

    def landed(self, ready: Ready, verdict: FileVerdict | None) -> None:
        """Count a file that was published, and validated; of a share, beside those of the others.

        The shards of the arrays that waited for it alone are ready.

        Raises:
            ReleaseError: as many files have errors as `run.stop_after_findings` allows.
        """
        self.shards.published(ready.file, ready.receipts)
        if verdict is None or not verdict.errors:
            return
        self.invalid.add(verdict.file)
        limit, first = self.work.spec.run.stop_after_findings, verdict.errors[0]
        if limit > len(self.invalid) and self.share is not None:
            self.invalid |= {each.file for each in file_verdicts(self.work.release).values() if each.errors}
        said = f"{len(self.invalid):,} finished files have errors" if len(self.invalid) > 1 else "has errors"
        if limit and len(self.invalid) >= limit:
            raise ReleaseError(
                verdict.file,
                f"{said}, and the run stops ({first.code}: {first.where}: {first.found})",
                first.expected,
                f"{first.fix} Or set run.stop_after_findings to a greater number, or to 0, and run again.",
            )
        self.say(f"warning: {verdict.file}: {first.code}: {first.found}")

    def without_reference(self, references: References) -> list[Ready]:
        """Files whose reference vectors are not all there, now that the rows of all files are known."""
        names: dict[str, list[str]] = {}
        for receipt in self.receipts.values():
            for token in receipt.parts:
                names.setdefault(token, []).append(receipt.unit)
        files = references.incomplete()
        return [self._waiting(file, names.get(file.token, ()), references.count) for file in files]

    def _tell(self) -> None:
        self.say(self.ledger.line())

    def say(self, message: str) -> None:
        """Report how many chips are computed, with a message."""
        done, total = self.ledger.chips, self.ledger.total
        self.report(Progress("produce", done, total if total >= done else 0, message, unit="chips"))


def finish(run: Run, receipts: Sequence[UnitReceipt], engine: Engine) -> RunRecord:
    """Write sources, coverage, gaps, reference vectors, aggregates, codes and arrays, and the record of the run.

    The engine computes the reference vectors that are still missing, on the same kind of machine as the others.

    Raises:
        LockedError: another run has taken this one's place, or was first to finish.
        ReleaseError: no chip was embedded, or the files don't hold what the receipts say.
    """
    run.held.check()
    release, plan, spec = run.work.release, run.plan, run.work.spec
    release.store.remove_orphans()  # of workers killed in the middle of a write; no other process is at work now
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update(receipt.counts)
    write_sources(release, run.selection.considered, run.selection.broken, spec)
    run.held.check()
    write_gaps(release, publish_coverage(release, receipts))
    expected = sum(counts.values())
    if not counts["embedded"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "no whole chip"
        first = next((receipt.error for receipt in receipts if receipt.error), None) or _first_detail(release, receipts)
        raise ReleaseError(release.store.where, f"has no embedded chip of {expected} ({reasons})", fix=first)
    _publish_reference(run, engine)
    run.held.check()
    write_aggregates(release, plan, layout_of(spec, run.work.sensor), spec.outputs.aggregate, run.gsd)
    run.held.check()
    write_codes(release, plan.fingerprint, wanted=spec.outputs.codes)
    run.held.check()
    _publish_arrays(run)
    record = derive_run_record(release)
    run.held.check()
    run.finish.claim(receipts, (paths.MEASUREMENTS, RUN_RECORD))
    measurements = measured(receipts, spec.cost.usd_per_hour, record.libraries)
    run.finish.write(paths.MEASUREMENTS, dump_measurements(measurements))
    run.finish.write(RUN_RECORD, dump_json(record.model_dump(mode="json")))
    return record


def _publish_arrays(run: Run) -> None:
    """Make a store of the shards that the engine assembled, or remove the arrays of an earlier spec."""
    if run.work.spec.outputs.array_dtype is None:
        remove_arrays(run.work.release)
    else:
        run.work.arrays.publish(run.shards.assembled())


def _publish_reference(run: Run, engine: Engine) -> None:
    references = References.of(run.work.release)
    waiting = run.without_reference(references)
    if waiting:
        engine(run, [], waiting)
    expected, omitted = references.publish(run.plan.fingerprint.dimensions)
    if omitted > OMITTED * expected:
        said = f"warning: {omitted:,} of {expected:,} reference vectors are left out, as their imagery cannot be read"
        run.report(Progress("produce", len(run.receipts), len(run.units), said))


def _first_detail(release: Release, receipts: Sequence[UnitReceipt]) -> str:
    """Why a chip is missing, in the words of the first row that says so."""
    for receipt in (each for each in receipts if COVERAGE in each.parts):
        details = read_part(release, receipt, COVERAGE)["detail"].drop_null()
        if len(details):
            return str(details[0].as_py())
    return ""
