"""`status`: the progress of a run in any place, on any engine."""

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Screen, release_at
from clay_publish.formats import duration

if TYPE_CHECKING:
    from clay_publish.release.run_status import RunStatus

Place = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Directory or s3:// address that `clay-publish run` writes to.")
]


def status(
    where: Place,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the run ends.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="With --watch: how often.")] = 5.0,
    json: Json = False,
) -> None:
    """Show the progress of a run. Exit codes: 0 in progress or finished, 1 failed units or findings, 2 stopped."""
    from clay_publish.release.run_status import StatusReader

    reader, screen = StatusReader(release_at(where)), Screen(quiet=True, as_json=json)
    while True:
        found = reader.read()
        lines = list(_lines(found))
        again = watch and found.state in {"running", "starting"}
        if watch and not json and sys.stdout.isatty():
            lines.insert(0, "\x1b[H\x1b[2J" + lines.pop(0))
        screen.result("\n".join(lines), found.model_dump(mode="json"))
        if not again:
            raise typer.Exit(found.exit_code)
        sys.stdout.flush()
        try:
            time.sleep(every)
        except KeyboardInterrupt:
            raise typer.Exit(found.exit_code) from None


def _lines(found: "RunStatus") -> Iterator[str]:
    units, chips = found.units, found.chips
    yield f"{found.where}: {_state(found)}"
    of = f" of {units['total']:,}" if units["total"] else ""
    yield f"units     {units['done']:,}{of} done, {units['working']:,} working, {units['failed']:,} failed"
    embedded = chips["done"] - sum(found.missing.values())
    expected = f" of {chips['expected']:,} expected" if chips["expected"] else ""
    yield (
        f"chips     {embedded:,}{expected} embedded, in {found.files:,} files; {chips['computed']:,} computed"
        + "".join(f", {count:,} {reason}" for reason, count in found.missing.items())
    )
    if found.chips_per_second is not None:
        left = f"; about {duration(found.seconds_left)} left" if found.seconds_left is not None else ""
        yield f"pace      {found.chips_per_second:,.3g} chips/s{left}"
    if found.usd is not None:
        in_all = f" of about ${found.usd_in_all:,.2f}" if found.usd_in_all is not None else ""
        budget = f"; budget ${found.budget_usd:,.2f}" if found.budget_usd is not None else ""
        yield f"cost      ${found.usd:,.2f}{in_all}{budget}"
    if found.findings is not None:
        counts = ", ".join(f"{count} {severity}" for severity, count in sorted(found.findings.items()))
        yield f"verdict   {counts or 'no findings'}"
    elif sum(found.verdicts.values()):
        yield (
            "verdicts  " + ", ".join(f"{count:,} {kind}" for kind, count in found.verdicts.items() if count) + " files"
        )
    yield from (f"  invalid {path}" for path in found.invalid_files[:10])
    for each in found.holders:
        share = f" (share {each.share})" if each.share else ""
        beat = f", heartbeat {duration(each.heartbeat)} ago" if each.heartbeat is not None else ""
        yield f"lease     {each.name}{share}{beat}" + ("" if each.alive else ": ended without giving it back")
    for failed in found.failures:
        yield f"  failed  {', '.join(failed.items[:3]) or failed.unit}: {failed.reason}"


def _state(found: "RunStatus") -> str:
    if found.state == "finished":
        return "finished"
    if found.state == "planned":
        return "planned; no run has begun. Next: clay-publish run"
    if found.state == "stopped":
        return "stopped: no heartbeat, and work is left. Run the same command again to continue"
    if found.state == "starting":
        return "starting: reading sources and loading the model"
    left = found.units["total"] - found.units["done"] - found.units["failed"]
    return "running" if left else "running: all units are done; files, documents and validation follow"
