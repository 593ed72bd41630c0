"""`run` and `produce`: from a spec to embeddings, and on to a validated release."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clay_publish.cli.console import (
    Engine,
    EngineName,
    Json,
    Out,
    Quiet,
    Screen,
    SetKey,
    SpecFile,
    Unit,
    Workers,
)
from clay_publish.cli.describe import describe
from clay_publish.cli.interrupts import resumable
from clay_publish.cli.validate import run_validation
from clay_publish.errors import SpecError
from clay_publish.formats import duration

if TYPE_CHECKING:
    from clay_publish.producer.produce import ShareDone, Then
    from clay_publish.progress import Report
    from clay_publish.release.directory import Release
    from clay_publish.release.manifest import RunRecord
    from clay_publish.spec.models import Spec

_CHECK = "clay_publish.validate.landing:FileCheck"
"""Validates each embeddings file where it is made."""


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
    from clay_publish.release.run_status import file_verdicts, keep_verdict

    screen = Screen(quiet=quiet, as_json=json)
    asked = _asked(spec, overrides, out, engine, workers)
    verdicts: list[dict[str, int]] = []
    with screen.progress() as report:

        def check(_: "RunRecord") -> None:
            describe(asked.release, report, previous=asked.spec.previous)
            verdicts_kept = file_verdicts(asked.release)
            validation = run_validation(asked.release, report, previous=asked.spec.previous, verdicts=verdicts_kept)
            keep_verdict(asked.release, validation)
            verdicts.append(_count(validation.findings))

        made = _embed(asked, unit, report, check)
    _tell(made, asked.release, screen, verdicts[0] if verdicts else None)


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
    screen = Screen(quiet=quiet, as_json=json)
    asked = _asked(spec, overrides, out, engine, workers)
    with screen.progress() as report:
        made = _embed(asked, unit, report, None)
    _tell(made, asked.release, screen, None)


@dataclass(frozen=True)
class _Made:
    """What a command did."""

    record: "RunRecord | ShareDone"
    computed: int
    """Chips whose images were read by this command."""
    reused: int
    """Chips that this command took from the version before."""
    failed: int
    """Units that the next run makes again."""
    seconds: float


def _tell(made: _Made, release: "Release", screen: Screen, findings: dict[str, int] | None) -> None:
    """Print what came of it; exit with 1 where the release is not valid, or the run could not do all of it."""
    from clay_publish.release.manifest import RunRecord

    record, where = made.record, release.store.where
    if not isinstance(record, RunRecord):
        _say_share(screen, release, record)
        return
    coverage = record.coverage
    expected, embedded = coverage["expected"], coverage["embedded"]
    missing = {reason: n for reason, n in coverage.items() if n and reason not in {"expected", "embedded"}}
    summary: dict[str, Any] = {
        "release": where,
        "chips": embedded,
        "expected": expected,
        "coverage": embedded / expected if expected else 0.0,
        "missing": missing,
        "computed": made.computed,
        "reused": made.reused,
        "seconds": round(made.seconds, 1),
    }
    counted = {"computed": made.computed, "reused": made.reused}
    did = ", ".join(f"{verb} {count:,}" for verb, count in counted.items() if count)
    did = did or "nothing to do, all of it was done before"
    reasons = "".join(f", {n:,} {reason}" for reason, n in missing.items())
    line = f"{where}: {embedded:,} of {expected:,} expected chips ({summary['coverage']:.1%}){reasons}; {did}"
    line += f", in {duration(made.seconds)}"
    bad = findings is not None and bool(findings.get("error"))
    look, command, to = f"{where}/README.md", "publish", ""
    if findings is None:
        look, command = f"{where}/coverage", "catalog"
    else:
        summary["findings"] = findings
        line += ", NOT valid" if bad else ", valid"
        command = "validate" if bad else "publish"
        place = release.spec().publish
        to = "" if bad or place.hugging_face or place.source_coop else " --to PLACE"
    screen.result(line, summary)
    if not screen.as_json:
        typer.echo(f"Look at {look}. Next: clay-publish {command} {where}{to}", err=True)
    if bad:
        raise typer.Exit(1)
    _leave_if_unfinished(record, made.failed, json=screen.as_json)


def _leave_if_unfinished(record: "RunRecord", failed: int, *, json: bool) -> None:
    """Exit with 1 where the run went past images that it could not use, or stopped at its budget.

    The release may be valid all the same: the reader has to decide whether it is what was wanted.
    """
    from clay_publish.release.run_status import DAMAGE

    for note in record.notes:
        typer.echo(f"note: {note}", err=True)
    lost = {reason: record.coverage[reason] for reason in DAMAGE if record.coverage.get(reason)}
    unpaid = record.coverage.get("over_budget", 0)
    if not lost and not unpaid and not failed:
        return
    if lost and not json:
        said = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        typer.echo(
            f"{said}: the coverage table says which and why. Fix or `exclude` their items; run again to retry.",
            err=True,
        )
    if failed and not lost and not unpaid and not json:
        typer.echo("Other images took the place of some that could not be read; run again to retry.", err=True)
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
    return _Asked(spec.model_copy(update={"run": means}), Release(out or f"./{spec.name}/{spec.version}"))


def _embed(asked: _Asked, unit: str | None, report: "Report", then: "Then | None") -> _Made:
    """Make the embeddings; `then` is called before anybody else may work on the release."""
    from clay_publish.errors import require_extra
    from clay_publish.release.versions import check_previous

    begun = time.monotonic()
    check_previous(asked.spec)
    require_extra("produce", "Making embeddings")
    from clay_publish.producer.produce import produce as embed
    from clay_publish.producer.produce import produce_share
    from clay_publish.release.lease.base import Share
    from clay_publish.release.unit_receipts import read_receipts

    release = asked.release
    with resumable(lambda: _kept(release)):
        share = None if unit is None else Share.parse(unit)
        before = read_receipts(release)
        if share is None:
            record: RunRecord | ShareDone = embed(asked.spec, release, check=_CHECK, report=report, then=then)
        else:
            record = produce_share(asked.spec, release, share, check=_CHECK, report=report, then=then)
        after = read_receipts(release)
    new = [receipt for name, receipt in after.items() if before.get(name) != receipt]
    computed = sum(receipt.computed for receipt in new)
    reused = sum(receipt.counts.get("embedded", 0) for receipt in new if not receipt.machine)
    failed = sum(receipt.error is not None for receipt in after.values())
    return _Made(record, computed, reused, failed, time.monotonic() - begun)


def _kept(release: "Release") -> str:
    """What an interrupted run leaves."""
    from clay_publish.release.manifest import UNITS
    from clay_publish.release.unit_receipts import RECEIPTS

    done = len(release.store.files(RECEIPTS))
    if not done:
        return "nothing was finished yet. Run the same command again."
    of = len(release.json(UNITS).get("units", []))
    return f"{done:,} of {of:,} units are kept in {release.store.where}. Run the same command again to continue."


def _say_share(screen: Screen, release: "Release", done: "ShareDone") -> None:
    """What a worker says that is not the last."""
    if done.left:
        rest = f"{done.left} units of other shares are not: `clay-publish run` finishes when they are"
    else:
        rest = "another worker finishes the release, or has"
    summary = {"release": release.store.where, "share": str(done.share), "units": done.units, "units_left": done.left}
    screen.result(f"{release.store.where}: share {done.share} is done ({done.units} units); {rest}", summary)


def _count(findings: list[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity] = counts.get(finding.severity, 0) + 1
    return counts
