"""What two versions of a release differ in, and how that is told."""

from pydantic import BaseModel, ConfigDict

from clay_publish.cards.escape import markdown
from clay_publish.cards.formats import figure, number, percent
from clay_publish.tables import REASONS
from clay_publish.versions import Step

NOT_EXPECTED = "not_expected"
"""Stands for a reason where the other version did not expect the chip at all."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class ChipChanges(_Model):
    """Chips of the new version against those of the old one, by their ids."""

    added: int
    removed: int
    changed: int | None
    """Vectors that moved farther than the tolerance; None where the fingerprints differ."""
    unchanged: int | None
    largest: float
    """Farthest any vector moved, as a share of its length."""


class CoverageChanges(_Model):
    """Expected chips of the new version against those of the old one."""

    expected_before: int
    expected: int
    gained: dict[str, int]
    """Chips that have an embedding now, by why they had none."""
    lost: dict[str, int]
    """Chips that have none any more, by why."""


class Difference(_Model):
    """Everything that differs."""

    old: str
    """Version."""
    new: str
    step: Step
    """What the difference asks of the version number."""
    because: str
    """Why, in a few words."""
    chips: ChipChanges
    coverage: CoverageChanges
    columns: list[str]
    """Columns and tables: `embeddings: column loss added`."""
    fingerprint: list[str]
    """`field: before → after`."""

    def lines(self) -> list[str]:
        """One line a fact, plain text."""
        chips, coverage = self.chips, self.coverage
        told = [f"fingerprint, {line}" for line in self.fingerprint] + self.columns
        if chips.added:
            told.append(f"{number(chips.added)} chips added{_by_reason(coverage.gained, 'before')}")
        if chips.removed:
            told.append(f"{number(chips.removed)} chips removed{_by_reason(coverage.lost, 'now')}")
        if chips.changed is None:
            told.append("vectors were not compared: the fingerprints differ")
        else:
            moved = f", by up to {percent(chips.largest)} of their length" if chips.changed else ""
            told.append(f"{number(chips.changed)} vectors changed{moved}; {number(chips.unchanged or 0)} stayed")
        share = figure(100 * coverage.expected / coverage.expected_before) if coverage.expected_before else "–"
        if coverage.expected != coverage.expected_before:
            told.append(
                f"{number(coverage.expected)} chips expected, {number(coverage.expected_before)} before ({share} %)"
            )
        return told

    def markdown(self, day: str) -> str:
        """The entry of a changelog."""
        facts = "".join(f"- {markdown(line)}\n" for line in self.lines())
        return f"## {self.new} ({day})\n\nA {self.step} step from {self.old}: {markdown(self.because)}.\n\n{facts}"


def _by_reason(counts: dict[str, int], when: str) -> str:
    if not counts:
        return ""
    parts = [f"{number(count)} {_reason(reason, when)}" for reason, count in counts.items()]
    return f" ({', '.join(parts)})"


def _reason(reason: str, when: str) -> str:
    if reason == NOT_EXPECTED:
        return f"not expected {when}"
    return f"{when}: {REASONS.get(reason, reason)}"
