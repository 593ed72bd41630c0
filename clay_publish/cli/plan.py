"""`plan`: know the run before it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Out, Quiet, Screen, SetKey, SpecFile
from clay_publish.formats import size

if TYPE_CHECKING:
    from clay_publish.producer.planning.estimate import Estimate

Calibrate = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Time about N real chips on this machine, end to end.")
]

ReadHeaders = Annotated[
    bool, typer.Option("--read-headers", help="Read the headers of all images that state no grid, even beyond 10,000.")
]


def plan(
    spec: SpecFile = Path("release.yaml"),
    out: Out = None,
    overrides: SetKey = None,
    calibrate: Calibrate = None,
    read_headers: ReadHeaders = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a run will make, read, store and cost; exit code 1 when it would go over the budget."""
    from clay_publish.errors import require_extra
    from clay_publish.release.directory import Release
    from clay_publish.spec.load import load_spec

    screen, asked = Screen(quiet=quiet, as_json=json), load_spec(spec, overrides or ())
    require_extra("produce", "Planning")
    from clay_publish.producer.plan_run import plan as make

    release = Release(out or f"./{asked.name}/{asked.version}")
    with screen.progress() as report:
        made = make(asked, release, calibrate=calibrate, read_headers=read_headers, report=report)
    screen.result("\n".join(_lines(made, release.store.where)), made.model_dump(mode="json"))
    if made.over_budget:
        raise typer.Exit(1)


def _lines(made: "Estimate", where: str) -> Iterator[str]:
    images, chips = made.images, made.chips
    yield f"{made.name} {made.version}: {made.layout}, {made.size} px of {made.gsd:g} m, {made.encoder}, {made.dtype}"
    yield f"images      {images['used']:,} used of {images['considered']:,}" + "".join(
        f"; {count:,} {reason}" for reason, count in made.left_out.items()
    )
    yield from _resolutions(made)
    yield (
        f"chips       {chips['expected']:,} expected, {chips['with_imagery']:,} with imagery,"
        f" {chips['no_imagery']:,} without, {chips['excluded']:,} with excluded imagery only"
    )
    yield from _windows(made)
    yield from _observations(made)
    yield "ground      " + ", ".join(f"{value:,.0f} km² {name.replace('_', ' ')}" for name, value in made.km2.items())
    if made.per_scene:
        yield (
            f"overlap     {made.per_scene:,} chips if every image were cut on its own"
            f" ({made.per_scene / max(chips['with_imagery'], 1):.2f} for each one here)"
        )
    counted = ", ".join(f"{count:,} {name}" for name, count in made.output_files.items())
    yield f"files       {counted}; {made.tiles:,} squares of {made.square_km} km"
    stored = ", ".join(f"{size(count)} as {dtype}" for dtype, count in made.bytes_to_store.items())
    yield f"bytes       {size(made.bytes_to_read)} to read; to store {stored}"
    room = "" if made.free_bytes is None else f"; {size(made.free_bytes)} free"
    yield f"machine     {made.device}{room}"
    yield f"cost        {_cost(made)}"
    if chips["done"] or made.spent_usd:
        spent = f" for {_usd(made.spent_usd)}" if made.spent_usd else ""
        yield f"done        {chips['done']:,} chips by earlier runs{spent}; to compute: {chips['to_make']:,}"
    if made.comparison is not None:
        c = made.comparison
        yield f"reused      {chips['reused']:,} chips from {c.previous}; to compute: {chips['to_make']:,}"
        model = "same model" if c.same_model else "another model: everything is computed again"
        yield (
            f"since       {c.previous}: images {c.stays:,} stay, {c.new:,} new, {c.fixed:,} fixed, {c.changed:,}"
            f" changed, {c.gone:,} gone; {model}"
        )
    yield ""
    yield from _table(made)
    yield ""
    yield from (f"warning: {sentence}" for sentence in made.warnings)
    if made.over_budget:
        spent = f"{_usd(made.spent_usd)} spent, " if made.spent_usd else ""
        yield f"OVER BUDGET: {spent}{_usd(made.usd)} planned, {_usd(made.budget_usd)} allowed"
    more = ", observations.png" if made.observations else ""
    yield f"written to {where}/.run: plan.json, plan.parquet, plan.png{more}"


def _resolutions(made: "Estimate") -> Iterator[str]:
    """How images are read, a group of them at a time."""
    for each in made.resolutions[:6]:
        yield f"reading     {each.images:,} images such as {each.example}"
        yield f"  bands     {', '.join(each.bands)}"
        yield f"  values    {'; '.join(each.values)}"
        yield f"  mask      {each.mask or 'none'}; product by {each.level or 'nothing that the items say'}"
    if len(made.resolutions) > 6:
        yield f"            … and {len(made.resolutions) - 6:,} more ways"


def _windows(made: "Estimate") -> Iterator[str]:
    shown = made.windows[:12]
    for each in shown if len(made.windows) > 1 else ():
        yield f"            {each.window}: {each.expected:,} expected, {each.with_imagery:,} with imagery"
    if len(made.windows) > len(shown):
        yield f"            … and {len(made.windows) - len(shown):,} windows more"


def _observations(made: "Estimate") -> Iterator[str]:
    """How often composites see the ground, window by window."""
    if not made.observations:
        return
    how = "measured by masks" if made.observations[0].measured else "an estimate from the cloud cover of the items"
    yield f"images      {made.images_per_chip:,.1f} acquisitions per chip; clear observations per pixel ({how}):"
    for each in made.observations[:12]:
        counted = ", ".join(f"{seen}: {cells:,}" for seen, cells in enumerate(each.histogram) if cells)
        yield (
            f"            {each.window}: median {each.median:.1f}, enough for {each.enough:.0%} of the pixels;"
            f" {each.short:.0%} of the chips would be missing; cells by observations {counted}"
        )
    if len(made.observations) > 12:
        yield f"            … and {len(made.observations) - 12:,} more"


def _cost(made: "Estimate") -> str:
    if made.rates is None:
        return "unknown: state cost.chips_per_hour, or use --calibrate N"
    rates = made.rates
    said = f"{made.hours:,.1f} hours at {rates.chips_per_hour:,.0f} chips per hour"
    said += " (measured here)" if rates.measured else " (stated)"
    if made.usd is not None:
        said += f", {_usd(made.usd)} at ${rates.usd_per_hour:g} an hour"
        said += f", {made.km2_per_usd:,.0f} km²/$" if made.km2_per_usd else ""
    if made.shares is not None:
        share = made.shares
        said += f"; reading {share.reading:.0%}, inference {share.inference:.0%}, writing {share.writing:.0%}"
    return said


def _table(made: "Estimate") -> Iterator[str]:
    yield (
        f"{'size':>5} {'km²/chip':>9} {'km²/$':>8} {'chips':>13} {'cost':>9} {'storage':>8}"
        f" | all land {'chips':>13} {'cost':>9} {'storage':>8} | whole Earth {'cost':>9}"
    )
    for row in made.alternatives:
        mark = "*" if row.size == made.size else " "
        per_usd = "-" if row.km2_per_usd is None else f"{row.km2_per_usd:,.0f}"
        yield (
            f"{row.size:>4}{mark} {row.km2_per_chip:>9.3g} {per_usd:>8} {row.chips:>13,} {_usd(row.usd):>9}"
            f" {size(row.bytes):>8} | {row.land_chips:>22,} {_usd(row.land_usd):>9} {size(row.land_bytes):>8}"
            f" | {_usd(row.earth_usd):>21}"
        )


def _usd(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 10_000_000:
        return f"${value / 1_000_000:,.1f} M"
    return f"${value / 1000:,.1f} K" if value >= 10_000 else f"${value:,.2f}"
