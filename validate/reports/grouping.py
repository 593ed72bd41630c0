"""Findings by kind, causes before consequences: what follows from a changed or broken file comes below it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from clay_publish.release.findings import Finding, Severity

CAUSES = ("INT006", "INT007", "INT003", "INT004", "INT001", "INT011", "SCH014", "SCH007")
"""Rules on whole files: a file that breaks one of these may break any other rule. The first explains the most."""
STATEMENTS = frozenset(
    {"STC005", "STC006", "STC007", "STC008", "STC009", "DOC002", "DOC007", "DOC008", "DOC011", "DOC012", "TIM007"}
)
"""Rules that compare what documents state with what the tables hold: where a table is wrong, they may differ, too."""
PLACES = 3
"""Places of one kind that are shown."""
DOCS = "https://clay-foundation.github.io/clay-publish/rules/"
"""Where every rule is explained."""


@dataclass(frozen=True)
class Kind:
    """All findings of one rule; of a cause, what follows from it."""

    code: str
    severity: Severity
    findings: list[Finding]
    follows: "list[Kind]" = field(default_factory=list)

    @property
    def count(self) -> int:
        """Findings of this kind."""
        return len(self.findings)

    @property
    def places(self) -> str:
        """The places after the first, on one line."""
        more = [finding.where for finding in self.findings[1:PLACES]]
        rest = [f"and {self.count - PLACES:,} more"] if self.count > PLACES else []
        return ", ".join([*more, *rest])


def rule_link(code: str) -> str:
    """Where a rule is explained."""
    return f"{DOCS}#{code.lower()}"


def by_kind(findings: Sequence[Finding]) -> list[Kind]:
    """Kinds of findings: causes first, then the worst, of these what is wrong in tables before what documents state.

    What may follow from a cause is below it.
    """
    causes = {_file(f): f.code for f in sorted(findings, key=_explains, reverse=True) if f.code in CAUSES}
    own: list[Finding] = []
    below: dict[str, list[Finding]] = {}
    for finding in findings:
        cause = causes.get(_file(finding))
        if cause is None or finding.code == cause:
            own.append(finding)
        else:
            below.setdefault(cause, []).append(finding)
    return [Kind(kind.code, kind.severity, kind.findings, _kinds(below.get(kind.code, []))) for kind in _kinds(own)]


def _kinds(findings: Sequence[Finding]) -> list[Kind]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.code, []).append(finding)
    kinds = [Kind(code, max((f.severity for f in made), key=lambda s: s.rank), made) for code, made in found.items()]
    return sorted(kinds, key=_order)


def _order(kind: Kind) -> tuple[int, int, bool, str]:
    return _explains(kind.findings[0]), -kind.severity.rank, kind.code in STATEMENTS, kind.code


def _explains(finding: Finding) -> int:
    return CAUSES.index(finding.code) if finding.code in CAUSES else len(CAUSES)


def _file(finding: Finding) -> str:
    """The file that a finding is about."""
    place, _, entry = finding.where.partition(": ")
    return entry if finding.code in {"INT001", "INT011"} else place.partition(" ")[0]
