"""Findings and rules for a person: tables on a terminal, plain lines elsewhere."""

import io
import sys
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clay_publish.release.findings import Finding, Severity, ValidationReport
from clay_publish.validate.registry import Rule

_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def render(validation: ValidationReport, *, verbose: bool = False) -> str:
    """What the input was taken for, the findings, the worst first, and one line that sums up.

    With `verbose`, also what could not be checked and what passed; of a release, the former in any case.
    """
    found = sorted(validation.findings, key=lambda f: (-f.severity.rank, f.code, f.where))
    unchecked = [(code, state) for code, state in validation.checked.items() if state.startswith("not checked")]
    parts = [f"{validation.where}: {validation.kind}"] if validation.kind else []
    parts += [_findings_table(found) if sys.stdout.isatty() else _findings_lines(found)] if found else []
    shown = unchecked if verbose or "ANY001" not in validation.checked else []
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


def _findings_lines(found: Sequence[Finding]) -> str:
    return "\n".join(
        f"{f.severity:<7} {f.code}  {f.where}: {f.found}"
        + (f"; expected {f.expected}" if f.expected else "")
        + (f". {f.fix}" if f.fix else "")
        for f in found
    )


def _findings_table(found: Sequence[Finding]) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    for title, share in (("rule", None), ("where", 3), ("found", 3), ("expected", 2), ("how to fix it", 3)):
        table.add_column(title, ratio=share, no_wrap=share is None, overflow="fold")
    for f in found:
        code = f"[{_COLORS[f.severity]}]{f.code}\n{f.severity}[/]"
        table.add_row(code, *(escape(text) for text in (f.where, f.found, f.expected, f.fix)))
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
