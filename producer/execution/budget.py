"""The books of a run: chips a second, dollars so far, what it will come to, and when to stop."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.planning.cost import Rates
from clay_publish.release.lease.base import Share
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.spec.models import Spec

STRAY = 0.25
"""Share by which the pace may differ from the plan's before it is said."""
_EARLY = 0.02
"""Share of the chips after which a pace says something."""


@dataclass
class Books:
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
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, spec: Spec, units: Iterable[Unit], planned: Rates | None, share: Share | None = None) -> "Books":
        """Empty books for the units of a plan; a share may spend as much of the budget as any other."""
        total, budget = sum(unit.chips for unit in units if unit.items and not unit.reused), spec.cost.budget_usd
        if budget is not None and share is not None:
            budget /= share.of
        return cls(total, spec.cost.usd_per_hour, budget, planned)

    def enter(self, receipt: UnitReceipt) -> None:
        """Count a unit that is done, in this run or before; each once. Reused chips cost nothing, and are no pace."""
        with self._lock:
            if receipt.unit in self._entered or not receipt.seconds:
                return
            self._entered.add(receipt.unit)
            self.chips += receipt.computed
            if receipt.items:
                self.total -= receipt.counts.get("no_imagery", 0) + receipt.counts.get("excluded", 0)
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
