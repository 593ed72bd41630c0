"""`validate`: judge a release, wherever it lies."""

from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.commands.options import Json, Quiet, Where
from clay_publish.commands.screen import Screen

if TYPE_CHECKING:
    from clay_publish.findings import ValidationReport
    from clay_publish.progress import Report
    from clay_publish.release import Release


def validate(
    where: Where,
    only: Annotated[list[str] | None, typer.Option(help="Judge by these rules only.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave these rules out.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a release: exit code 0 when nothing is wrong, 1 with findings, 2 when it cannot be judged."""
    from clay_publish.findings import Severity
    from clay_publish.release import Release

    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        validation = judge(Release(where), report, only=only or (), skip=skip or ())
    screen.result(table(validation), validation.model_dump(mode="json"))
    if validation.at_or_above(Severity.ERROR):
        raise typer.Exit(1)


def judge(
    release: "Release",
    report: "Report",
    *,
    only: "list[str] | tuple[str, ...]" = (),
    skip: "list[str] | tuple[str, ...]" = (),
) -> "ValidationReport":
    """Call the judge of releases."""
    from clay_publish.validate import validate as judge_release

    return judge_release(release, only=only, skip=skip, report=report)


def table(validation: "ValidationReport") -> str:
    """The findings for a person, the worst first, and one line that sums up."""
    rows = sorted(validation.findings, key=lambda f: (-f.severity.rank, f.code, f.where))
    lines = [
        f"{f.severity:<7} {f.code}  {f.where}: {f.found}"
        + (f"; expected {f.expected}" if f.expected else "")
        + (f". {f.fix}" if f.fix else "")
        for f in rows
    ]
    passed = sum(1 for state in validation.checked.values() if state == "passed")
    unchecked = [f"{rule} {state}" for rule, state in validation.checked.items() if state.startswith("not checked")]
    lines += [f"{line}" for line in unchecked]
    lines.append(f"{validation.where}: {passed} of {len(validation.checked)} rules passed, {len(rows)} findings")
    return "\n".join(lines)
