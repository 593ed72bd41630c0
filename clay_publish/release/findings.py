"""What a validation says: `validate` makes it, the CLI prints it, `publish` asks for it."""

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


class Histogram(BaseModel):
    """How a number is spread over the chips that were read."""

    model_config = ConfigDict(frozen=True)

    edges: list[float]
    """One more than counts, ascending."""
    counts: list[int]


class MissingChips(BaseModel):
    """Chips that lack for one reason in one window."""

    model_config = ConfigDict(frozen=True)

    window: str
    reason: str
    chips: int


class Outline(BaseModel):
    """A piece of missing ground, as gaps.geojson draws it."""

    model_config = ConfigDict(frozen=True)

    window: str
    reason: str
    ring: list[tuple[float, float]]
    """Longitude and latitude, degrees."""


class GroundMap(BaseModel):
    """Where the chips that were read lie: counts on a grid of longitude and latitude, south to north."""

    model_config = ConfigDict(frozen=True)

    bbox: tuple[float, float, float, float]
    """West, south, east, north, degrees; east is beyond 180 where the ground crosses the antimeridian."""
    counts: list[list[int]]


class FindingPlace(BaseModel):
    """Where on the ground a finding is."""

    model_config = ConfigDict(frozen=True)

    code: str
    lon: float
    lat: float
    """Degrees."""


class Measures(BaseModel):
    """What the release looks like, beside what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    chips: int
    """Of which the rest was measured."""
    distributions: dict[str, Histogram]
    """`norm`, `loss`, and `similarity`: the cosine of pairs of chips drawn at random."""
    missing: list[MissingChips]
    outlines: list[Outline]
    ground: GroundMap | None
    places: list[FindingPlace] = []
    """Of findings that name a chip, or a file with chips."""
    unmeasured: dict[str, str]
    """What could not be measured, and why."""


class FileVerdict(BaseModel):
    """What the worker that made an embeddings file found in it, by the rules that need no other file."""

    model_config = ConfigDict(frozen=True)

    file: str
    """Path in the release."""
    sha256: str
    """Of the bytes that were checked."""
    validator: str
    """Version of the rules."""
    findings: list[Finding]
    unchecked: dict[str, str]
    """Rules that could not be checked, and why."""

    @property
    def valid(self) -> bool:
        """Whether every rule was checked and holds."""
        return not self.findings and not self.unchecked

    @property
    def errors(self) -> list[Finding]:
        """Findings that make the release invalid."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]


class ValidationReport(BaseModel):
    """Everything that was found in one release."""

    model_config = ConfigDict(frozen=True)

    where: str
    kind: str = ""
    """What the input was taken for: a release of clay-publish, Major TOM embeddings, …"""
    findings: list[Finding]
    checked: dict[str, str]
    """Rule → `passed`, `failed` or `not checked: why`; nothing unchecked ever counts as passed."""
    quick: bool = False
    """Whether only metadata, footers and a sample were read."""
    fetched: int = 0
    """Bytes that came from a server."""
    measures: Measures | None = None

    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def at_or_above(self, threshold: Severity) -> list[Finding]:
        """Findings that count at this threshold."""
        return [f for f in self.findings if f.severity.rank >= threshold.rank]
