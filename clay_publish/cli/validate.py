"""`validate` and `rules`: validate a release, wherever it lies, and list the rules."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clay_publish.cli.console import Engine, Json, Quiet, Screen, Where, Workers, release_at
from clay_publish.cli.interrupts import resumable

if TYPE_CHECKING:
    from clay_publish.progress import Report
    from clay_publish.release.directory import Release
    from clay_publish.release.findings import FileVerdict, Severity, ValidationReport
    from clay_publish.validate.context import Recompute
    from clay_publish.validate.runner import Gathered
    from clay_publish.validate.shares import Choice, SharedValidation

Codes = Annotated[list[str] | None, typer.Option(metavar="CODE", help="A rule (COV001) or group (COV); repeatable.")]
FailOn = Annotated[str, typer.Option(metavar="SEVERITY", help="Exit with 1 from here on: info, warning or error.")]
Quick = Annotated[bool, typer.Option("--quick", help="Read metadata, footers and a sample of chips only.")]
Before = Annotated[
    str | None,
    typer.Option("--previous", metavar="RELEASE", help="The version before, where it does not lie beside this one."),
]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page for people.")]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, for CI.")]
Sarif = Annotated[Path | None, typer.Option(metavar="FILE", help="Write SARIF, for code hosts.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="List what could not be checked, and what passed.")]
Recomputed = Annotated[
    int | None,
    typer.Option(min=1, metavar="CHIPS", help="Make so many chips again from the imagery (extra `produce`)."),
]
Imagery = Annotated[
    str | None,
    typer.Option(metavar="STAC_OR_DIR", help="Where the imagery is, for --recompute, if not where the release says."),
]
Weights = Annotated[
    str | None, typer.Option(metavar="FILE", help="The model's weights, for --recompute, if the spec names a file.")
]
Unit = Annotated[
    str | None,
    typer.Option(metavar="N/M", help="Read the Nth of M shares of the embeddings; the last one to be done reports."),
]
EngineName = Annotated[Engine, typer.Option(help="On what it runs: this machine, or a Ray cluster.")]
Sample = Annotated[int | None, typer.Option(min=1, metavar="CHIPS", help="Chips that costly checks look at, at most.")]


def validate(
    where: Where,
    only: Codes = None,
    skip: Codes = None,
    fail_on: FailOn = "error",
    sample: Sample = None,
    quick: Quick = False,
    previous: Before = None,
    html: Html = None,
    junit: Junit = None,
    sarif: Sarif = None,
    recompute: Recomputed = None,
    imagery: Imagery = None,
    weights: Weights = None,
    engine: EngineName = "local",
    workers: Workers = None,
    unit: Unit = None,
    verbose: Verbose = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Validate a release, or anybody's embeddings. Exit codes: 0 valid, 1 findings, 2 could not validate.

    WHERE is a directory, an address, a Parquet file, or the collection.json of a directory. The first line says what it
    was taken for; only the rules that apply to that are checked.
    """
    from clay_publish.cli.findings_table import render
    from clay_publish.errors import ReleaseError
    from clay_publish.release.findings import Severity
    from clay_publish.validate import SAMPLE
    from clay_publish.validate.shares import Choice

    _check(fail_on, engine, workers, unit, quick=quick)
    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        release = _opened(where)
        again = _recompute(release, recompute, imagery, weights)
        choice = Choice(tuple(only or ()), tuple(skip or ()), SAMPLE if sample is None else sample)
        with ExitStack() as stack:
            gathered: Gathered | None = None
            if unit is not None or engine == "ray":
                shared = _read_shares(release, choice, unit, workers, report)
                left = shared.left()
                gathered = None if left else stack.enter_context(shared.gathered())
                if gathered is None:
                    _say_share(screen, release, unit, left)
                    return
            validation = run_validation(
                release,
                report,
                only=choice.only,
                skip=choice.skip,
                sample=choice.sample,
                quick=quick,
                previous=previous,
                gathered=gathered,
                recompute=again,
            )
    _write(validation, Severity(fail_on), html=html, junit=junit, sarif=sarif)
    screen.result(render(validation, verbose=verbose), validation.model_dump(mode="json"))
    if validation.at_or_above(Severity(fail_on)):
        raise typer.Exit(1)
    if not any(state.startswith(("passed", "failed")) for state in validation.checked.values()):
        raise ReleaseError(validation.where, "could not be checked by any of these rules")
    # Of a release, the arrays are one part of many.
    needed = ("ANY001", "VEC023") if "INT001" in validation.checked else ("ANY001", "VEC023", "ARR002")
    for code in needed:
        if validation.checked.get(code, "").startswith("not checked"):
            raise ReleaseError(validation.where, f"{code} {validation.checked[code]}")


def _check(fail_on: str, engine: "Engine", workers: int | None, unit: str | None, *, quick: bool) -> None:
    """Refuse options that contradict each other."""
    from clay_publish.release.findings import Severity

    if fail_on not in set(Severity):
        raise typer.BadParameter(f"{fail_on!r} is not a severity: info, warning or error", param_hint="--fail-on")
    if quick and (unit is not None or engine == "ray"):
        raise typer.BadParameter("reads a few files only, on one machine", param_hint="--quick")
    if unit is not None and engine == "ray":
        raise typer.BadParameter("is for one machine: Ray divides the work itself", param_hint="--unit")
    if workers is not None and engine != "ray":
        raise typer.BadParameter("is for --engine ray", param_hint="--workers")


def _read_shares(
    release: "Release", choice: "Choice", unit: str | None, workers: int | None, report: "Report"
) -> "SharedValidation":
    """Read the files of one share here, or of all on Ray."""
    from clay_publish.errors import require_extra
    from clay_publish.release.lease.base import Share
    from clay_publish.validate.shares import SCANS, SharedValidation

    with resumable(lambda: f"what was read is kept in {SCANS}. Run the same command again to continue."):
        if unit is None:
            require_extra("ray", "--engine ray")
            from clay_publish.validate.on_ray import scan_on_ray

            return scan_on_ray(release, choice, workers, report)
        share = Share.parse(unit)
        shared = SharedValidation(release, choice, share.of)
        shared.scan(share.number, report=report)
        return replace(shared)  # which looks at the files as they are now


def _say_share(screen: Screen, release: "Release", unit: str | None, left: list[int]) -> None:
    """What is said where another process makes the report."""
    where, done = release.store.where, "all shares are" if unit is None else f"share {unit} is"
    rest = f"{len(left)} of the others are not" if left else "another process makes the report, or has made it"
    screen.result(f"{where}: {done} read; {rest}", {"release": where, "share": unit, "shares_left": left})


def _opened(where: str) -> "Release":
    """A directory, the directory of a STAC document, or one file alone."""
    from clay_publish.errors import ReleaseError
    from clay_publish.release.directory import COLLECTION, Release
    from clay_publish.release.versions import CATALOG
    from clay_publish.storage.address import readable
    from clay_publish.storage.store import OneFile, is_url
    from clay_publish.validate import is_parquet

    address = readable(where)
    if is_url(address):
        folder, _, name = address.partition("?")[0].rpartition("/")
        if name in {COLLECTION, CATALOG, "zarr.json", ".zgroup", ".zmetadata"} and "?" not in address:
            return Release(folder)
        if not is_parquet(name) and not name.endswith(".json"):
            return Release(where)
        file = OneFile(address)
        if not file.exists(file.name):
            raise ReleaseError(where, "does not exist", "the address of a file")
        return Release(file)
    path = Path(address.removeprefix("file://"))
    if not path.exists():
        raise ReleaseError(where, "does not exist", "a directory, a file or an address")
    if path.is_file() and path.suffix not in {".json", ".geojson"}:
        return Release(OneFile(str(path)))
    return Release(str(path.parent if path.is_file() else path))


def _recompute(release: "Release", chips: int | None, imagery: str | None, weights: str | None) -> "Recompute | None":
    """What makes chips again, from the spec and the fingerprint that the release states."""
    if chips is None:
        if imagery is not None or weights is not None:
            raise typer.BadParameter("is for --recompute", param_hint="--imagery, --weights")
        return None
    from clay_publish.errors import require_extra
    from clay_publish.validate.context import Recompute

    require_extra("produce", "--recompute")

    def again(ids: Sequence[str]) -> "Mapping[str, Mapping[str, Any]]":
        from clay_publish.producer.recompute import recompute

        return recompute(release.spec(), release.fingerprint(), ids, imagery=imagery, weights=weights)

    return Recompute(chips, again)


def _write(
    validation: "ValidationReport", threshold: "Severity", *, html: Path | None, junit: Path | None, sarif: Path | None
) -> None:
    from clay_publish.errors import StoreError
    from clay_publish.redaction import redact
    from clay_publish.validate import all_rules, reports

    rules = all_rules()
    texts: list[tuple[Path | None, Callable[[], str]]] = [
        (html, lambda: reports.html(validation, rules)),
        (junit, lambda: reports.junit(validation, rules, threshold)),
        (sarif, lambda: reports.sarif(validation, rules)),
    ]
    for path, make in texts:
        if path is not None:
            try:
                path.write_text(redact(make()), encoding="utf-8")
            except OSError as error:
                raise StoreError(str(path), f"cannot be written ({error.strerror})") from error


def run_validation(
    release: "Release",
    report: "Report",
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    sample: int | None = None,
    quick: bool = False,
    previous: str | None = None,
    verdicts: "Mapping[str, FileVerdict] | None" = None,
    gathered: "Gathered | None" = None,
    recompute: "Recompute | None" = None,
) -> "ValidationReport":
    """Validate a release with the options of the command line."""
    from clay_publish.cli.rendering import render_documents
    from clay_publish.validate import SAMPLE
    from clay_publish.validate import validate as validate_release

    return validate_release(
        release,
        only=only,
        skip=skip,
        sample=SAMPLE if sample is None else sample,
        quick=quick,
        previous=None if previous is None else release_at(previous),
        verdicts=verdicts or {},
        gathered=gathered,
        render=render_documents,
        recompute=recompute,
        report=report,
    )


def rules(only: Codes = None, json: Json = False) -> None:
    """List every rule with its reason."""
    from clay_publish.cli.findings_table import render_rules
    from clay_publish.validate.registry import select

    chosen = select(only or (), ())
    fields = ("code", "severity", "group", "title", "reason", "fix")
    document = {"rules": [{name: str(getattr(rule, name)) for name in fields} for rule in chosen]}
    Screen(quiet=True, as_json=json).result(render_rules(chosen), document)
