"""What a rule is, and the list of all of them."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING

import yaml

from clay_publish.errors import ReleaseError
from clay_publish.release.findings import Severity
from clay_publish.validate.outcomes import Outcome

if TYPE_CHECKING:  # the parent of a child process needs no context
    from clay_publish.validate.context import ReleaseContext, RowCheck

GROUPS: dict[str, str] = {
    "SCH": "Schema of the tables",
    "INT": "Integrity of the files",
    "VEC": "Vectors",
    "GEO": "Geometry",
    "TIM": "Time",
    "COV": "Coverage",
    "STC": "STAC",
    "DOC": "Documents",
    "PRV": "Provenance and license",
    "RDR": "Readers",
    "EXP": "Explorer",
    "ANY": "Anybody's embeddings",
    "ARR": "Arrays",
}
"""First three letters of a code, in the order in which rules are listed."""

Check = Callable[["ReleaseContext"], Iterable[Outcome]]


@dataclass(frozen=True)
class Rule:
    """One thing that has to be true of a release."""

    code: str
    """Stable: `COV001`."""
    check: Check = field(repr=False)
    rows: "RowCheck | None" = field(repr=False, default=None)
    """For rules on single rows: checks one batch of the one streaming pass."""
    sampled: bool = False
    """Whether it checks a sample of the rows where there are many."""
    alone: bool = False
    """Whether it depends on the rows alone: it uses no context, which reads other files."""

    @property
    def title(self) -> str:
        """What has to be true, in one line."""
        return _texts()[self.code]["title"]

    @property
    def reason(self) -> str:
        """Why it matters to users of the embeddings."""
        return _texts()[self.code]["reason"]

    @property
    def fix(self) -> str:
        """What a maintainer does about it."""
        return _texts()[self.code]["fix"]

    @property
    def advice(self) -> str:
        """What anybody does about it, who may never have used this program."""
        return _texts()[self.code].get("advice", self.fix)

    @property
    def severity(self) -> Severity:
        """How bad it is where it does not hold."""
        return Severity(_texts()[self.code].get("severity", "error"))

    @property
    def group(self) -> str:
        """The group's title."""
        return GROUPS[self.code[:3]]


@cache
def _texts() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = yaml.safe_load((files(__package__) / "rules" / "rules.yaml").read_text("utf-8"))
    return texts


ANYBODY: dict[str, frozenset[str]] = {
    **dict.fromkeys(("ANY001", "ANY003", "ANY006", "ANY008", "INT006", "INT007"), frozenset()),
    "INT012": frozenset({"id"}),
    **dict.fromkeys(("ANY002", "ANY004", "ANY005", "ANY007", "RDR001"), frozenset({"embedding"})),
    **dict.fromkeys(("VEC001", "VEC002", "VEC003", "VEC007", "VEC010", "VEC011", "VEC012"), frozenset({"embedding"})),
    **dict.fromkeys(("GEO003", "GEO006", "SCH011"), frozenset({"geometry"})),
    "GEO004": frozenset({"geometry", "bbox"}),
}
"""Rules that apply to embeddings that anybody made, and the columns that they need."""

OTHERS = frozenset({"ANY001", "ANY002", "ANY003", "ANY004", "ANY005", "ANY007", "ANY008"})
"""Rules that apply to others' embeddings alone: of releases, stricter ones ask for the same."""

RECOMPUTED = "VEC023"
"""The rule that reads imagery and runs the model, on request alone."""

UNCHECKED = "INT015"
"""The rule on what kept other rules from being checked. It is the last, and checked whatever rules are chosen."""

_RULES: dict[str, Rule] = {}


def register(made: Rule) -> None:
    """Add a rule to the list.

    Raises:
        ReleaseError: its code is taken, or `rules.yaml` does not describe it.
    """
    if made.code in _RULES or made.code not in _texts():
        raise ReleaseError(f"rule {made.code}", "is taken, or not in rules.yaml", "a new code")
    _RULES[made.code] = made


def rule(code: str) -> Callable[[Check], Check]:
    """Register a function over the whole release."""

    def wrap(check: Check) -> Check:
        register(Rule(code, check))
        return check

    return wrap


def row_rule(code: str, *, sampled: bool = False, alone: bool = False) -> Callable[["RowCheck"], "RowCheck"]:
    """Register a function over one batch of rows; every embeddings file is read once for all of these."""

    def wrap(rows: "RowCheck") -> "RowCheck":
        register(Rule(code, lambda context: context.scan.outcomes(code), rows, sampled, alone))
        return rows

    return wrap


def all_rules() -> list[Rule]:
    """Every rule, by group and number."""
    import_module("clay_publish.validate.checks")  # its rules register themselves
    order = list(GROUPS)
    return sorted(_RULES.values(), key=lambda r: (order.index(r.code[:3]), r.code))


def select(only: Iterable[str], skip: Iterable[str]) -> list[Rule]:
    """The rules that codes (`COV001`) or groups (`COV`) name; without `only`, all.

    Raises:
        ReleaseError: a name that no rule and no group has.
    """
    only, skip, rules = list(only), list(skip), all_rules()
    known = {*_RULES, *GROUPS}
    for name in (*only, *skip):
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ReleaseError(f"rule {name!r}", "is unknown", fix=f"{hint}`clay-publish rules` lists them.")
    return [r for r in rules if (not only or _named(r, only)) and not _named(r, skip)]


def _named(rule: Rule, names: Sequence[str]) -> bool:
    return rule.code in names or rule.code[:3] in names
