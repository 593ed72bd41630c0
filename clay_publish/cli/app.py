"""The command line: parses, calls a stage, prints."""

import json
import sys
from typing import Annotated

import typer

from clay_publish.cli import describe, explore, plan, publish, run, search, validate
from clay_publish.errors import ClayPublishError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # an error that nobody expected keeps its whole traceback
    help="Turn satellite images into a published, versioned, searchable dataset of embeddings.",
)


def _version(asked: bool) -> None:
    if asked:
        from clay_publish import __version__

        typer.echo(f"clay-publish {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


app.command()(run.sample)
app.command()(run.init)
app.command()(plan.plan)
app.command()(run.run)
app.command()(run.produce)
app.command()(describe.catalog)
app.command()(describe.card)
app.command()(describe.diff)
app.command()(validate.validate)
app.command()(validate.rules)
app.command()(publish.publish)
app.command()(publish.mirror)
app.command()(publish.versions)
app.command()(publish.yank)
app.command()(search.search)
app.command()(search.sample_points)
app.command()(search.serve)
app.command()(explore.explore)


def main() -> None:
    """Run the program: exit code 0, 1 for findings, 2 where something stands in the way."""
    try:
        app(prog_name="clay-publish")
    except ClayPublishError as error:
        _tell(error)
        sys.exit(error.exit_code)


def _tell(error: ClayPublishError) -> None:
    if "--json" not in sys.argv:
        print(f"error: {error}", file=sys.stderr)
        return
    parts = {"where": error.where, "found": error.found, "expected": error.expected, "fix": error.fix}
    document = {"kind": type(error).__name__, "message": str(error), **parts}
    print(json.dumps({"error": document}, ensure_ascii=False), file=sys.stderr)
