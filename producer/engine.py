"""The engine of one machine: units side by side, each file published as soon as its last unit is done."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from clay_publish import release as paths
from clay_publish.producer.assemble import publish_file, remove_parts, remove_strangers
from clay_publish.producer.attempts import TRIES, attempt, begin, died_in, end
from clay_publish.producer.books import Books
from clay_publish.producer.isolated import run_isolated
from clay_publish.producer.parts import Receipt, file_of, part_is_whole, part_path, read_receipts
from clay_publish.producer.patches import patches_token, publish_patches
from clay_publish.producer.plan import Plan, Unit
from clay_publish.producer.plan_files import planned_rates
from clay_publish.producer.unit import set_aside
from clay_publish.producer.work import SIDE_BY_SIDE, Work
from clay_publish.progress import Progress, Report
from clay_publish.release import DataFile, Release


def run_units(plan: Plan, work: Work, gsd: float, report: Report) -> list[Receipt]:
    """Run the units that are not done, and give the receipts of all, in the order of the plan.

    Units that failed in an earlier run are tried again. Those in which a run died come last; after the last but one
    try in a process of their own.

    Raises:
        ClayPublishError: the run cannot go on; what is finished stays.
    """
    books = Books.of(work.spec, plan.units, planned_rates(work.release, work.spec))
    run = _Run(plan, work, gsd, report, books)
    run.resume()
    waiting = [unit for unit in plan.units if unit.id not in run.receipts]
    waiting.sort(key=lambda unit: run.died.get(unit.id, 0))
    careful = [unit for unit in waiting if run.died.get(unit.id, 0) >= TRIES - 1]
    run.side_by_side(waiting[: len(waiting) - len(careful)])
    for unit in careful:
        run.done(unit, run_isolated(unit, work))
    for name in run.died.keys() - {unit.id for unit in waiting}:
        end(work.release, name)  # it was done after all
    return [run.receipts[unit.id] for unit in plan.units]


@dataclass
class _Run:
    plan: Plan
    work: Work
    gsd: float
    report: Report
    books: Books
    receipts: dict[str, Receipt] = field(default_factory=dict)
    """Of units that are done, in this run or before."""
    files: dict[DataFile, set[str]] = field(default_factory=dict)
    """The units that each published file waits for."""
    died: dict[str, int] = field(default_factory=dict)
    """How many runs ended while a unit was at work."""

    def resume(self) -> None:
        """Find what is done already, remove what is not part of it, and publish what only waited for that."""
        for unit in self.plan.units:
            for file in unit.files:
                self.files.setdefault(file, set()).add(unit.id)
        release, known = self.work.release, {unit.id for unit in self.plan.units}
        published = {file.token: f"{paths.EMBEDDINGS}/{file.name}" for file in self.files}
        published |= {patches_token(file.token): f"{paths.PATCHES}/{file.name}" for file in self.files}
        for name, receipt in read_receipts(release).items():
            if name in known and receipt.error is None and _is_there(release, receipt, published):
                self.receipts[name] = receipt
                self.books.enter(receipt)
        self.died = died_in(release)
        remove_strangers(release, self.files, self.receipts.values())
        self._publish(self.files)
        self._tell()

    def side_by_side(self, units: list[Unit]) -> None:
        """Make units, a few at a time."""
        pool = ThreadPoolExecutor(SIDE_BY_SIDE, "unit")
        running = {pool.submit(self._one, unit): unit for unit in units}
        try:
            for future in as_completed(running):
                self.done(running[future], future.result())
        finally:
            self.work.pace.stop()
            pool.shutdown(cancel_futures=True)
            self.work.pace.resume()

    def _one(self, unit: Unit) -> Receipt:
        if self.books.spent:
            detail = "the budget was spent before its turn"
            return set_aside(unit, self.work, detail, "run again with a greater cost.budget_usd", "over_budget")
        begin(self.work.release, unit.id, self.died.get(unit.id, 0) + 1)
        try:
            receipt = attempt(unit, self.work)
        finally:
            end(self.work.release, unit.id)
        self.books.enter(receipt)  # at once, so that no unit begins when the budget is spent
        return receipt

    def done(self, unit: Unit, receipt: Receipt) -> None:
        """Count a unit, and publish the files that waited for it alone."""
        self.receipts[unit.id] = receipt
        self.books.enter(receipt)
        mine = set(unit.files)
        if not mine:  # its image could not be asked where it lies before it was read
            mine = {file for token in receipt.parts if (file := file_of(token)) is not None}
            for file in mine:
                self.files.setdefault(file, set()).add(unit.id)
        self._publish(mine)
        self._tell()

    def _publish(self, files: Iterable[DataFile]) -> None:
        for file in files:
            units = self.files[file]
            if not units <= self.receipts.keys():
                continue
            mine = [self.receipts[unit] for unit in units]
            if publish_file(self.work.release, file, mine, self.plan, self.gsd):
                publish_patches(self.work.release, file, mine, self.plan, self.gsd)
                remove_parts(self.work.release, file, mine)

    def _tell(self) -> None:
        self.report(Progress("produce", len(self.receipts), len(self.plan.units), self.books.line()))


def _is_there(release: Release, receipt: Receipt, published: Mapping[str, str]) -> bool:
    """Whether all that a receipt speaks of is still there: as a part, undamaged, or in its published file."""
    for token in receipt.parts:
        if release.store.exists(part_path(receipt.unit, token)):
            if not part_is_whole(release, receipt, token):
                return False
        elif token not in published or not release.store.exists(published[token]):
            return False
    return True
