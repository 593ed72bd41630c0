"""What the program shows: progress on stderr, the result on stdout."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from clay_publish.progress import Progress, Report, silent

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
Workers = Annotated[int | None, typer.Option(min=1, help="Workers on Ray; default: as many as there is room for.")]
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
        console = Console(stderr=True)
        if self.quiet:
            yield silent
        elif self.as_json:
            yield _json_line
        elif console.is_terminal:
            with _bars(console) as bars:
                yield _Bars(bars)
        else:
            yield _PlainLines()

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


def _json_line(step: Progress) -> None:
    print(json.dumps(asdict(step), ensure_ascii=False), file=sys.stderr, flush=True)


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        _Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}", markup=False),
        console=console,
    )


class _Amount(ProgressColumn):
    """Units done of all; of bytes, also how many a second."""

    def render(self, task: Task) -> Text:
        done, total = int(task.completed), "?" if task.total is None else int(task.total)
        if task.fields["unit"] != "bytes":
            return Text(f"{done}/{total}")
        rate = f" {decimal(int(task.speed))}/s" if task.speed else ""
        return Text(f"{decimal(done)}/{decimal(int(task.total or 0))}{rate}")


class _Bars:
    """One bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: Progress) -> None:
        if step.stage not in self._tasks:
            self._tasks[step.stage] = self._bars.add_task(step.stage, message="", unit=step.unit)
        self._bars.update(self._tasks[step.stage], completed=step.done, total=step.total or None, message=step.message)


class _PlainLines:
    """About ten lines a stage, so that a log stays readable."""

    def __init__(self) -> None:
        self._shown: dict[str, int] = {}

    def __call__(self, step: Progress) -> None:
        tenth = 10 * step.done // step.total if step.total else 0
        if self._shown.get(step.stage) == tenth:
            return
        self._shown[step.stage] = tenth
        of = f"{step.done}/{step.total}" if step.total else f"{step.done}"
        print(f"{step.stage} {of} {step.message}".rstrip(), file=sys.stderr, flush=True)


@contextmanager
def resumable(kept: Callable[[], str]) -> Iterator[None]:
    """End with one line on Ctrl-C and SIGTERM: what is kept, and how to continue. Exit codes as shells have them."""
    begun = signal.getsignal(signal.SIGTERM)
    received = [signal.SIGINT]

    def end(number: int, _: object) -> None:
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {kept()}", err=True)
        raise typer.Exit(128 + received[-1]) from None
    finally:
        signal.signal(signal.SIGTERM, begun)
