"""Findings and rules for a person: tables on a terminal, plain lines elsewhere."""

import io
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clay_publish.release.findings import Finding, Severity, ValidationReport
from clay_publish.validate.registry import Rule
from clay_publish.validate.reports.grouping import Kind, by_kind, rule_link

_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def render(validation: ValidationReport, *, verbose: bool = False) -> str:
    """What the input was taken for, the findings, the worst first, and one line that sums up.

    With `verbose`, also what could not be checked and what passed; of a release, the former in any case.
    """
    found, kinds = validation.findings, by_kind(validation.findings)
    unchecked = [(code, state) for code, state in validation.checked.items() if state.startswith("not checked")]
    parts = [f"{validation.where}: {validation.kind}"] if validation.kind else []
    parts += [_findings_table(kinds) if sys.stdout.isatty() else "\n".join(_lines(kinds))] if kinds else []
    shown = [*unchecked] if verbose or "ANY001" not in validation.checked else []
    shown += [pair for pair in validation.checked.items() if verbose and pair[1].startswith("passed")]
    parts += [f"{code} {state}" for code, state in shown]
    return "\n".join([*parts, _verdict(validation, found, len(unchecked))])


def _verdict(validation: ValidationReport, found: Sequence[Finding], unchecked: int) -> str:
    passed = sum(1 for state in validation.checked.values() if state.startswith("passed"))
    counts = [
        f"{number} {severity}{'s' if number != 1 else ''}"
        for severity in reversed(Severity)
        if (number := sum(1 for f in found if f.severity == severity))
    ]
    more = f", {unchecked} could not be checked" if unchecked else ""
    said = ", ".join(counts) or "no findings"
    read = f"; {validation.fetched:,} bytes fetched" if validation.fetched else ""
    quick = " at a quick look" if validation.quick else ""
    return f"{validation.where}: {said}{quick}; {passed} of {len(validation.checked)} rules passed{more}{read}"


def _lines(kinds: Sequence[Kind], indent: str = "") -> Iterator[str]:
    """One line for each kind, and the kinds that follow from it indented below."""
    for kind in kinds:
        first = kind.findings[0]
        expected = f"; expected {first.expected}" if first.expected else ""
        count = f" ({kind.count:,} findings: also {kind.places})" if kind.count > 1 else ""
        fix = f". {first.fix}" if first.fix else ""
        yield f"{indent}{kind.severity:<7} {kind.code}  {first.where}: {first.found}{expected}{count}{fix}"
        yield from _lines(kind.follows, f"{indent}  follows: ")


def _findings_table(kinds: Sequence[Kind]) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    for title, share in (("rule", None), ("where", 3), ("found", 3), ("expected", 2), ("how to fix it", 3)):
        table.add_column(title, ratio=share, no_wrap=share is None, overflow="fold")
    for kind in kinds:
        for place, each in enumerate((kind, *kind.follows)):
            first = each.findings[0]
            follows = "↳ " if place else ""
            link = f"[link={rule_link(each.code)}]{follows}{each.code}[/link]"
            where = f"{first.where}\n{each.count:,} findings: also {each.places}" if each.count > 1 else first.where
            texts = (escape(text) for text in (where, first.found, first.expected, first.fix))
            table.add_row(f"[{_COLORS[each.severity]}]{link}\n{each.severity}[/]", *texts)
    return _drawn(table)


def render_rules(rules: Sequence[Rule]) -> str:
    """Every rule with its reason, by group."""
    if not sys.stdout.isatty():
        return "\n".join(f"{r.code} {r.severity:<7} {r.title}. {r.reason}" for r in rules)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for group, members in groupby(rules, key=lambda r: r.group):
        table.add_row("", f"\n[bold]{group}[/]")
        for r in members:
            table.add_row(f"[{_COLORS[r.severity]}]{r.code}[/]", f"{escape(r.title)}\n[dim]{escape(r.reason)}[/]")
    return _drawn(table)


def _drawn(table: Table) -> str:
    width = Console().width
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().rstrip("\n")
