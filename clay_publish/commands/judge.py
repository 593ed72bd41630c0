"""`validate` and `rules`: judge a release, wherever it lies, and say what it is judged by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.commands.options import Json, Quiet, Where
from clay_publish.commands.screen import Screen

if TYPE_CHECKING:
    from clay_publish.findings import ValidationReport
    from clay_publish.progress import Report
    from clay_publish.release import Release

Codes = Annotated[list[str] | None, typer.Option(metavar="CODE", help="A rule (COV001) or group (COV); repeatable.")]
FailOn = Annotated[str, typer.Option(metavar="SEVERITY", help="Exit with 1 from here on: info, warning or error.")]
Sample = Annotated[int | None, typer.Option(min=1, metavar="CHIPS", help="Chips that costly checks look at, at most.")]


def validate(
    where: Where,
    only: Codes = None,
    skip: Codes = None,
    fail_on: FailOn = "error",
    sample: Sample = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a release: exit code 0 when nothing is wrong, 1 with findings, 2 when it cannot be judged."""
    from clay_publish.commands.findings_table import render
    from clay_publish.errors import ReleaseError
    from clay_publish.findings import Severity
    from clay_publish.release import Release

    if fail_on not in set(Severity):
        raise typer.BadParameter(f"{fail_on!r} is no severity: info, warning or error", param_hint="--fail-on")
    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        validation = judge(Release(where), report, only=only or (), skip=skip or (), sample=sample)
    screen.result(render(validation), validation.model_dump(mode="json"))
    if validation.at_or_above(Severity(fail_on)):
        raise typer.Exit(1)
    if not any(state.startswith(("passed", "failed")) for state in validation.checked.values()):
        raise ReleaseError(validation.where, "could not be judged by any of these rules")


def judge(
    release: "Release",
    report: "Report",
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    sample: int | None = None,
) -> "ValidationReport":
    """Call the judge of releases."""
    from clay_publish.validate import SAMPLE
    from clay_publish.validate import validate as judge_release

    return judge_release(release, only=only, skip=skip, sample=SAMPLE if sample is None else sample, report=report)


def rules(only: Codes = None, json: Json = False) -> None:
    """List every rule that releases are judged by, with its reason."""
    from clay_publish.commands.findings_table import render_rules
    from clay_publish.validate.rules import select

    chosen = select(only or (), ())
    fields = ("code", "severity", "group", "title", "reason", "fix")
    document = {"rules": [{name: str(getattr(rule, name)) for name in fields} for rule in chosen]}
    Screen(quiet=True, as_json=json).result(render_rules(chosen), document)
