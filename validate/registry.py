"""What a rule is, and the list of all of them."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.release.findings import Severity

if TYPE_CHECKING:
    from clay_publish.validate.context import View
    from clay_publish.validate.data.chips import ChipRows

GROUPS: dict[str, str] = {
    "SCH": "Schema of the tables",
    "INT": "Integrity of the files",
    "VEC": "Vectors",
    "GEO": "Geometry",
    "TIM": "Time",
    "COV": "Coverage",
    "STC": "STAC",
    "DOC": "Documents",
    "PRV": "Provenance and licence",
    "RDR": "Readers",
    "EXP": "Explorer",
}
"""First three letters of a code, in the order in which rules are listed."""

UNFORESEEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pa.ArrowException,
)
"""What a rule may stumble over in a release that anyone made: a text for a list, a list for a number.

It is told as not checked, which is no verdict; the rules on schemas say what is wrong.
"""


@dataclass(frozen=True)
class Fault:
    """One place where a rule does not hold."""

    where: str
    """File, row, field."""
    found: str
    expected: str = ""
    fix: str = ""
    """Where it differs from the rule's."""


@dataclass(frozen=True)
class NotChecked:
    """What a rule could not look at, or only in part."""

    why: str


@dataclass(frozen=True)
class Sampled:
    """A rule looked at some of the rows only, as it was allowed to."""

    seen: int
    total: int
    of: str = "chips"


Outcome = Fault | NotChecked | Sampled


@dataclass(frozen=True)
class BadRows:
    """The rows of a batch in which a rule does not hold."""

    rows: npt.NDArray[np.integer]
    """Places in the batch."""
    found: Callable[[int], str]
    """What is there in such a row."""
    expected: str


@dataclass(frozen=True)
class Rule:
    """One thing that has to be true of a release."""

    code: str
    """Stable: `COV001`."""
    severity: Severity
    title: str
    """What has to be true, in one line."""
    reason: str
    """Why it matters to whoever uses the embeddings."""
    fix: str
    """What a maintainer does about it."""
    check: "Callable[[View], Iterable[Outcome]]" = field(repr=False)
    rows: "Callable[[ChipRows, View], Sequence[BadRows]] | None" = field(repr=False, default=None)
    """For rules on single rows: judges one batch of the one streaming pass."""
    sampled: bool = False
    """Whether it looks at some rows only, where there are many."""

    @property
    def group(self) -> str:
        """The group's title."""
        return GROUPS[self.code[:3]]


OURS = {
    *(
        "SCH001",
        "SCH002",
        "SCH004",
        "SCH005",
        "SCH007",
        "SCH008",
        "SCH009",
        "SCH010",
        "SCH012",
        "SCH013",
        "SCH014",
        "SCH020",
    ),
    *("EXP001", "EXP002", "EXP003"),
    *("INT002", "INT008", "INT010", "GEO013", "TIM005", "PRV001", "RDR003", "RDR005", "RDR006"),
}
"""Rules that ask for how this program lays out a release. Of other software's they are infos."""

GEOPARQUET = {"SCH011", "RDR002"}
"""Rules that ask other software's tables for GeoParquet, where these call themselves so."""

_RULES: dict[str, Rule] = {}


def _register(made: Rule) -> None:
    if made.code in _RULES or made.code[:3] not in GROUPS:
        raise ReleaseError(f"rule {made.code}", "is taken, or belongs to no group", "a new code")
    _RULES[made.code] = made


type_of_check = Callable[["View"], Iterable[Outcome]]
type_of_rows = Callable[["ChipRows", "View"], Sequence[BadRows]]


def rule(
    code: str, severity: Severity, title: str, *, reason: str, fix: str
) -> Callable[[type_of_check], type_of_check]:
    """Register a function over the whole release."""

    def wrap(check: type_of_check) -> type_of_check:
        _register(Rule(code, severity, title, reason, fix, check))
        return check

    return wrap


def row_rule(
    code: str, severity: Severity, title: str, *, reason: str, fix: str, sampled: bool = False
) -> Callable[[type_of_rows], type_of_rows]:
    """Register a function over one batch of rows; every embeddings file is read once for all of these."""

    def wrap(rows: type_of_rows) -> type_of_rows:
        _register(Rule(code, severity, title, reason, fix, lambda view: view.scan.outcomes(code), rows, sampled))
        return rows

    return wrap


def all_rules() -> list[Rule]:
    """Every rule, by group and number."""
    order = list(GROUPS)
    return sorted(_RULES.values(), key=lambda r: (order.index(r.code[:3]), r.code))


def select(only: Iterable[str], skip: Iterable[str]) -> list[Rule]:
    """The rules that codes (`COV001`) or groups (`COV`) name; without `only`, all.

    Raises:
        ReleaseError: a name that no rule and no group has.
    """
    only, skip = list(only), list(skip)
    known = {*_RULES, *GROUPS}
    for name in (*only, *skip):
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ReleaseError(f"rule {name!r}", "is unknown", fix=f"{hint}`clay-publish rules` lists them.")
    return [r for r in all_rules() if (not only or _named(r, only)) and not _named(r, skip)]


def _named(rule: Rule, names: Sequence[str]) -> bool:
    return rule.code in names or rule.code[:3] in names


def bad_rows(mask: npt.NDArray[np.bool_], found: Callable[[int], str], expected: str) -> Iterator[BadRows]:
    """The rows that a mask marks; nothing where there are none."""
    rows = np.flatnonzero(mask)
    if rows.size:
        yield BadRows(rows, found, expected)
