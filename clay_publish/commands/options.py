"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

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
