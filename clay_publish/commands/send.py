"""`publish`: send a validated release to its readers."""

from typing import Annotated

import typer

from clay_publish.commands.judge import judge
from clay_publish.commands.options import Json, Quiet, Where
from clay_publish.commands.screen import Screen

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")]


def publish(
    where: Where,
    to: Annotated[str, typer.Option(metavar="TARGET", help="A directory or file:// address.")],
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a version: all of it or nothing, and never other bytes under a version that is out."""
    from clay_publish.publish import publish as send
    from clay_publish.release import Release

    screen, release = Screen(quiet=quiet, as_json=json), Release(where)
    with screen.progress() as report:
        receipt = send(release, to, judge(release, report), dry_run=dry_run, report=report)
    screen.result(receipt.line, receipt.model_dump(mode="json"))
