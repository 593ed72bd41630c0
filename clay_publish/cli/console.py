"""What the program shows: progress on stderr, the result on stdout."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clay_publish.progress import Report, silent

if TYPE_CHECKING:
    from clay_publish.release.directory import Release

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, progress as JSON lines on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Where = Annotated[str, typer.Argument(metavar="RELEASE", help="Directory or address of a release.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec: release.yaml.")]
SetKey = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the spec, such as chips.size=256; may be repeated."
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE", help="Where to make the release: a directory or s3://BUCKET/PREFIX; default: ./NAME/VERSION."
    ),
]
Previous = Annotated[
    str | None,
    typer.Option(metavar="RELEASE", help="Directory or address of the version before, for the changelog."),
]
Engine = Literal["local", "ray"]
EngineName = Annotated[
    Engine | None,
    typer.Option(
        help="On what it runs: this machine, or a Ray cluster; default: `run.engine` of the spec, else local."
    ),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Workers on Ray; default: what there is room for.")
]
Unit = Annotated[
    str | None,
    typer.Option(metavar="N/M", help="Make the Nth of M shares of the run; the last one to be done finishes it."),
]


class Screen:
    """One command's output: bars on a terminal, plain lines elsewhere, JSON for machines."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A report for the stages, drawn until the block ends."""
        if self.quiet:
            yield silent
            return

        from rich.console import Console

        from clay_publish.cli.progress import Drawing, bars, report_json, report_lines

        console = Console(stderr=True)
        if self.as_json:
            yield report_json()
        elif console.is_terminal:
            with bars(console) as drawn:
                yield Drawing(drawn)
        else:
            yield report_lines()

    def result(self, line: str, document: dict[str, Any]) -> None:
        """Print what came of it: a line for a person, or the document."""
        typer.echo(json.dumps(document, ensure_ascii=False) if self.as_json else line)


def release_at(where: str) -> "Release":
    """The release at an address.

    Raises:
        ReleaseError: it is the root of a product; its versions are named.
    """
    from clay_publish.release.directory import Release
    from clay_publish.release.versions import refuse_root

    release = Release(where)
    refuse_root(release)
    return release
