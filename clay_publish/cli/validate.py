"""`validate` and `rules`: validate a release, wherever it lies, and list the rules."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Quiet, Screen, Where, release_at

if TYPE_CHECKING:
    from clay_publish.progress import Report
    from clay_publish.release.directory import Release
    from clay_publish.release.findings import FileVerdict, Severity, ValidationReport
    from clay_publish.validate.context import Recompute

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
    typer.Option(min=1, metavar="CHIPS", help="Compute so many chips again from the imagery (extra `produce`)."),
]
Imagery = Annotated[
    str | None,
    typer.Option(metavar="STAC_OR_DIR", help="Where the imagery is, for --recompute, if not where the release says."),
]
Weights = Annotated[
    str | None, typer.Option(metavar="FILE", help="The model's weights, for --recompute, if the spec names a file.")
]
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

    if fail_on not in set(Severity):
        raise typer.BadParameter(f"{fail_on!r} is not a severity: info, warning or error", param_hint="--fail-on")
    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        release = _opened(where)
        validation = run_validation(
            release,
            report,
            only=only or (),
            skip=skip or (),
            sample=sample,
            quick=quick,
            previous=previous,
            recompute=_recompute(release, recompute, imagery, weights),
        )
    _write(validation, Severity(fail_on), html=html, junit=junit, sarif=sarif)
    screen.result(render(validation, verbose=verbose), validation.model_dump(mode="json"))
    if validation.at_or_above(Severity(fail_on)):
        raise typer.Exit(1)
    if not any(state.startswith(("passed", "failed")) for state in validation.checked.values()):
        raise ReleaseError(validation.where, "could not be checked by any of these rules")
    for code in ("ANY001", "VEC023"):
        if validation.checked.get(code, "").startswith("not checked"):
            raise ReleaseError(validation.where, f"{code} {validation.checked[code]}")


def _opened(where: str) -> "Release":
    """A directory, the directory of a local STAC document, or one file alone."""
    from clay_publish.release.directory import Release
    from clay_publish.storage.address import readable
    from clay_publish.storage.store import OneFile, is_url
    from clay_publish.validate import PARQUET

    if where.endswith((".json", ".geojson")) and not is_url(where) and Path(where).is_file():
        return Release(str(Path(where).parent))
    return Release(OneFile(readable(where))) if where.endswith((*PARQUET, ".json")) else Release(where)


def _recompute(release: "Release", chips: int | None, imagery: str | None, weights: str | None) -> "Recompute | None":
    """What computes vectors again, from the spec and the fingerprint that the release states."""
    if chips is None:
        if imagery is not None or weights is not None:
            raise typer.BadParameter("is for --recompute", param_hint="--imagery, --weights")
        return None
    from clay_publish.errors import require_extra
    from clay_publish.validate.context import Recompute

    require_extra("produce", "--recompute")

    def vectors(ids: Sequence[str]) -> "Mapping[str, Sequence[float]]":
        from clay_publish.producer.recompute import recompute

        made = recompute(release.spec(), release.fingerprint(), ids, imagery=imagery, weights=weights)
        return {name: vector.tolist() for name, vector in made.items()}

    return Recompute(chips, vectors)


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
