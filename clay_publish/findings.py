"""What a judge of releases says: `validate` makes it, the CLI prints it, `publish` asks for it."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Severity(StrEnum):
    """How bad a finding is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return list(Severity).index(self)


class Finding(BaseModel):
    """One thing that is wrong, or that could not be checked."""

    model_config = ConfigDict(frozen=True)

    code: str
    """Stable: `COV001`."""
    severity: Severity
    where: str
    """File, row, field."""
    found: str
    expected: str
    fix: str


class ValidationReport(BaseModel):
    """Everything that was found in one release."""

    model_config = ConfigDict(frozen=True)

    where: str
    findings: list[Finding]
    checked: dict[str, str]
    """Rule → `passed`, `failed` or `not checked: why`; nothing unchecked ever counts as passed."""

    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def at_or_above(self, threshold: Severity) -> list[Finding]:
        """Findings that count at this threshold."""
        return [f for f in self.findings if f.severity.rank >= threshold.rank]
