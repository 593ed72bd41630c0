"""The command line: parses, calls a stage, prints."""

import json
import sys
from typing import Annotated

import typer

from clay_publish.commands import compare, describe, find, judge, make, plan, send, serve, start
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


app.command()(start.sample)
app.command()(start.init)
app.command()(plan.plan)
app.command()(make.run)
app.command()(make.produce)
app.command()(describe.catalog)
app.command()(describe.card)
app.command()(compare.diff)
app.command()(judge.validate)
app.command()(judge.rules)
app.command()(send.publish)
app.command()(send.mirror)
app.command()(send.versions)
app.command()(send.yank)
app.command()(find.search)
app.command()(find.sample_points)
app.command()(serve.serve)


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
