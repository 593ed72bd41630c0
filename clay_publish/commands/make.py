"""`run` and `produce`: from a spec to embeddings, and on to a validated release."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clay_publish.commands.describe import describe
from clay_publish.commands.judge import judge
from clay_publish.commands.options import Json, Out, Quiet, SpecFile
from clay_publish.commands.screen import Screen

if TYPE_CHECKING:
    from clay_publish.manifest import RunRecord
    from clay_publish.progress import Report
    from clay_publish.release import Release


_DAMAGE = ("unreadable", "source_changed", "failed")
"""Reasons that are no property of the ground or the sky."""


def run(spec: SpecFile = Path("release.yaml"), out: Out = None, json: Json = False, quiet: Quiet = False) -> None:
    """Do everything, from the spec to a validated release directory."""
    screen, begun = Screen(quiet=quiet, as_json=json), time.monotonic()
    with screen.progress() as report:
        release, record, previous = _embed(spec, out, report)
        describe(release, report, previous=previous)
        validation = judge(release, report, previous=previous)
    seconds = time.monotonic() - begun
    summary = {**_summary(release, record), "seconds": round(seconds, 1), "findings": _count(validation.findings)}
    verdict = "valid" if not _count(validation.findings).get("error") else "NOT valid"
    screen.result(f"{_line(summary)} in {seconds:.0f} s, {verdict}", summary)
    if verdict != "valid":
        if not json:
            typer.echo(f"`clay-publish validate {release.store.where}` says what is wrong.", err=True)
        raise typer.Exit(1)
    _leave_if_unfinished(record, json=json)


def produce(spec: SpecFile = Path("release.yaml"), out: Out = None, json: Json = False, quiet: Quiet = False) -> None:
    """Make the embeddings, and say of every expected chip that is missing why."""
    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        release, record, _ = _embed(spec, out, report)
    summary = _summary(release, record)
    screen.result(_line(summary), summary)
    _leave_if_unfinished(record, json=json)


def _leave_if_unfinished(record: "RunRecord", *, json: bool) -> None:
    """Exit with 1 where the run went past images that it could not use, or stopped at its budget.

    The release may be valid all the same: the reader has to decide whether it is what was wanted.
    """
    for note in record.notes:
        typer.echo(f"note: {note}", err=True)
    lost = {reason: record.coverage[reason] for reason in _DAMAGE if record.coverage.get(reason)}
    unpaid = record.coverage.get("over_budget", 0)
    if not lost and not unpaid:
        return
    if lost and not json:
        said = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        typer.echo(
            f"{said}: the coverage table says which and why. Mend or `exclude` their items; run again to retry.",
            err=True,
        )
    if unpaid and not json:
        typer.echo(
            f"{unpaid} over_budget: the run stopped at its budget. Raise `cost.budget_usd` and run again; it goes on"
            " where it stopped.",
            err=True,
        )
    raise typer.Exit(1)


def _embed(path: Path, out: str | None, report: "Report") -> "tuple[Release, RunRecord, str | None]":
    from clay_publish.extras import require_extra
    from clay_publish.release import Release
    from clay_publish.spec_file import load_spec
    from clay_publish.versions import check_previous

    spec = load_spec(path)
    check_previous(spec)
    require_extra("produce", "Making embeddings")
    from clay_publish.producer.produce import produce as embed

    release = Release(out or str(Path(spec.name) / spec.version))
    return release, embed(spec, release, report=report), spec.previous


def _summary(release: "Release", record: "RunRecord") -> dict[str, Any]:
    expected, embedded = record.coverage["expected"], record.coverage["embedded"]
    return {
        "release": release.store.where,
        "chips": embedded,
        "expected": expected,
        "coverage": embedded / expected if expected else 0.0,
    }


def _line(summary: dict[str, Any]) -> str:
    covered = f"{summary['chips']} of {summary['expected']} expected chips ({summary['coverage']:.1%})"
    return f"{summary['release']}: {covered}"


def _count(findings: list[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity] = counts.get(finding.severity, 0) + 1
    return counts
