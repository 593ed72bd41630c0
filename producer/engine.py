"""What every engine does alike: find what is done, keep the books, and say which files can be published."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from clay_publish.producer.assemble import publish_file, remove_parts, remove_strangers
from clay_publish.producer.attempts import TRIES, died_in, end
from clay_publish.producer.books import Books
from clay_publish.producer.division import units_of
from clay_publish.producer.holders import Lease
from clay_publish.producer.parts import file_of, is_there, standing
from clay_publish.producer.patches import publish_patches
from clay_publish.producer.plan import Plan, Unit
from clay_publish.producer.plan_files import planned_rates
from clay_publish.producer.share import Share
from clay_publish.producer.unit import set_aside
from clay_publish.producer.work import Work
from clay_publish.progress import Progress, Report
from clay_publish.receipts import Receipt, read_receipts
from clay_publish.release import DataFile, Release


@dataclass(frozen=True)
class Ready:
    """A published file whose units are all done."""

    file: DataFile
    receipts: tuple[Receipt, ...]


class Engine(Protocol):
    """Makes units, and publishes files, in any order and any number at a time."""

    def __call__(self, run: "Run", units: Sequence[Unit], ready: Sequence[Ready]) -> None:
        """Make the units and tell the run of each; publish what is ready, and what becomes so.

        Raises:
            ClayPublishError: the run cannot go on; what is finished stays.
        """
        ...


def run_units(run: "Run", engine: Engine) -> list[Receipt]:
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


def publish(ready: Ready, release: Release, plan: Plan, gsd: float) -> None:
    """Make parts into the published file; again after a death in the middle of it, it comes to the same."""
    mine = list(ready.receipts)
    if publish_file(release, ready.file, mine, plan, gsd):
        publish_patches(release, ready.file, mine, plan, gsd)
        remove_parts(release, ready.file, mine)


@dataclass
class Run:
    """The units that one process is to see done, and how far they are."""

    plan: Plan
    work: Work
    gsd: float
    """Ground size of a pixel as it is published, metres."""
    report: Report
    held: Lease
    share: Share | None
    """None: all of the plan, and nobody else is at work."""
    units: tuple[Unit, ...]
    books: Books
    receipts: dict[str, Receipt] = field(default_factory=dict)
    """Of units that are done, in this run or before."""
    files: dict[DataFile, set[str]] = field(default_factory=dict)
    """The units that each published file waits for; of a share only files that are of no other."""
    died: dict[str, int] = field(default_factory=dict)
    """How many runs ended while a unit was at work."""

    @classmethod
    def of(
        cls, plan: Plan, work: Work, gsd: float, *, report: Report, held: Lease, share: Share | None = None
    ) -> "Run":
        """A run of a plan, or of a share of it."""
        units = plan.units if share is None else units_of(share, plan.units, work.spec.chips.size)
        books = Books.of(work.spec, units, planned_rates(work.release, work.spec), share)
        run = cls(plan, work, gsd, report, held, share, units, books)
        for unit in plan.units:
            for file in unit.files:
                run.files.setdefault(file, set()).add(unit.id)
        own = {unit.id for unit in units}
        run.files = {file: names for file, names in run.files.items() if names <= own}
        return run

    def resume(self, *, failed: bool = False) -> list[Ready]:
        """Find what is done already, remove what is not part of it, and give the files that only waited for that.

        Args:
            failed: count units that failed as done.
        """
        release, own = self.work.release, {unit.id for unit in self.units}
        there = standing(release)
        for name, receipt in read_receipts(release).items():
            if name in own and (failed or receipt.error is None) and is_there(release, receipt, there):
                self._enter(receipt)
        self.died = {name: runs for name, runs in died_in(release).items() if self.share is None or name in own}
        if self.share is None:
            remove_strangers(release, self.files, self.receipts.values())
        self._tell()
        return self._ready(self.files)

    def careful(self, unit: Unit) -> bool:
        """Whether so many processes ended while this unit was at work that it has to be on its own."""
        return self.died.get(unit.id, 0) >= TRIES - 1

    def left_out(self, unit: Unit) -> Receipt | None:
        """To be asked before each unit: its receipt where the budget is spent, and it is left to another run.

        Raises:
            LockedError: another run has taken this one's place.
        """
        self.held.check()
        if not self.books.spent:
            return None
        detail = "the budget was spent before its turn"
        return set_aside(unit, self.work, detail, "run again with a greater cost.budget_usd", "over_budget")

    def done(self, unit: Unit, receipt: Receipt) -> list[Ready]:
        """Count a unit; the files that waited for it alone."""
        self._enter(receipt)
        mine: set[DataFile] = set(unit.files)
        if not mine and self.share is None:  # its image could not be asked where it lies before it was read
            mine = {file for token in receipt.parts if (file := file_of(token)) is not None}
            for file in mine:
                self.files.setdefault(file, set()).add(unit.id)
        self._tell()
        return self._ready(mine)

    def _enter(self, receipt: Receipt) -> None:
        self.receipts[receipt.unit] = receipt
        self.books.enter(receipt)

    def _ready(self, files: Iterable[DataFile]) -> list[Ready]:
        return [
            Ready(file, tuple(self.receipts[name] for name in sorted(self.files[file])))
            for file in files
            if file in self.files and self.files[file] <= self.receipts.keys()
        ]

    def _tell(self) -> None:
        self.report(Progress("produce", len(self.receipts), len(self.units), self.books.line()))
