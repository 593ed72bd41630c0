"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, progress as JSON lines on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Where = Annotated[str, typer.Argument(metavar="RELEASE", help="Directory or address of a release.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec: release.yaml.")]
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
Workers = Annotated[int | None, typer.Option(min=1, help="Workers on Ray; default: as many as there is room for.")]
Unit = Annotated[
    str | None,
    typer.Option(metavar="N/M", help="Make the Nth of M shares of the run; the last one to be done finishes it."),
]
