"""`run` and `produce`: from a spec to embeddings, and on to a validated release."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clay_publish.cli.console import Engine, EngineName, Json, Out, Quiet, Screen, SetKey, SpecFile, Unit, Workers
from clay_publish.cli.describe import describe
from clay_publish.cli.validate import judge
from clay_publish.errors import SpecError

if TYPE_CHECKING:
    from clay_publish.producer.produce_share import ShareDone
    from clay_publish.progress import Report
    from clay_publish.release.directory import Release
    from clay_publish.release.manifest import RunRecord
    from clay_publish.spec.models import Spec


_DAMAGE = ("unreadable", "source_changed", "failed")
"""Reasons that are no property of the ground or the sky."""


def run(
    spec: SpecFile = Path("release.yaml"),
    out: Out = None,
    overrides: SetKey = None,
    engine: EngineName = None,
    workers: Workers = None,
    unit: Unit = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do everything, from the spec to a validated release directory."""
    from clay_publish.release.manifest import RunRecord

    screen, begun = Screen(quiet=quiet, as_json=json), time.monotonic()
    with screen.progress() as report:
        asked = _asked(spec, overrides, out, engine, workers)
        release, record = asked.release, _embed(asked, unit, report)
        if not isinstance(record, RunRecord):
            _say_share(screen, release, record)
            return
        describe(release, report, previous=asked.spec.previous)
        validation = judge(release, report, previous=asked.spec.previous)
    seconds = time.monotonic() - begun
    summary = {**_summary(release, record), "seconds": round(seconds, 1), "findings": _count(validation.findings)}
    verdict = "valid" if not _count(validation.findings).get("error") else "NOT valid"
    screen.result(f"{_line(summary)} in {seconds:.0f} s, {verdict}", summary)
    if verdict != "valid":
        if not json:
            typer.echo(f"`clay-publish validate {release.store.where}` says what is wrong.", err=True)
        raise typer.Exit(1)
    _leave_if_unfinished(record, json=json)


def produce(
    spec: SpecFile = Path("release.yaml"),
    out: Out = None,
    overrides: SetKey = None,
    engine: EngineName = None,
    workers: Workers = None,
    unit: Unit = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the embeddings, and say of every expected chip that is missing why."""
    from clay_publish.release.manifest import RunRecord

    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        asked = _asked(spec, overrides, out, engine, workers)
        record = _embed(asked, unit, report)
    if not isinstance(record, RunRecord):
        _say_share(screen, asked.release, record)
        return
    summary = _summary(asked.release, record)
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


@dataclass(frozen=True)
class _Asked:
    """A spec with what the command line says over it, and where the release goes."""

    spec: "Spec"
    release: "Release"


def _asked(
    path: Path, overrides: list[str] | None, out: str | None, engine: Engine | None, workers: int | None
) -> _Asked:
    from clay_publish.release.directory import Release
    from clay_publish.spec.load import load_spec

    spec = load_spec(path, overrides or ())
    said = {"engine": engine, "workers": workers}
    means = spec.run.model_copy(update={key: value for key, value in said.items() if value is not None})
    if workers is not None and means.engine == "local":
        raise SpecError("--workers", f"is {workers}", "nothing, for the local engine", "Say `--engine ray` as well.")
    return _Asked(spec.model_copy(update={"run": means}), Release(out or str(Path(spec.name) / spec.version)))


def _embed(asked: _Asked, unit: str | None, report: "Report") -> "RunRecord | ShareDone":
    from clay_publish.optional_deps import require_extra
    from clay_publish.release.semver import check_previous

    check_previous(asked.spec)
    require_extra("produce", "Making embeddings")
    if unit is None:
        from clay_publish.producer.produce import produce as embed

        return embed(asked.spec, asked.release, report=report)
    from clay_publish.producer.planning.share import Share
    from clay_publish.producer.produce_share import produce_share

    return produce_share(asked.spec, asked.release, Share.parse(unit), report=report)


def _say_share(screen: Screen, release: "Release", done: "ShareDone") -> None:
    """What a worker says that is not the last."""
    if done.left:
        rest = f"{done.left} units of other shares are not: `clay-publish run` finishes when they are"
    else:
        rest = "another worker finishes the release, or has"
    summary = {"release": release.store.where, "share": str(done.share), "units": done.units, "units_left": done.left}
    screen.result(f"{release.store.where}: share {done.share} is done ({done.units} units); {rest}", summary)


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
