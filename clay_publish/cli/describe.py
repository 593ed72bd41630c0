"""`catalog`, `card`, `diff` and `explore`: what describes a release, and shows it."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Previous, Quiet, Screen, Where, release_at

if TYPE_CHECKING:
    from clay_publish.progress import Report
    from clay_publish.release.directory import Release


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Directory or address of the older version.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Directory or address of the newer version.")],
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, help="Largest relative change of a vector that still counts as unchanged."
        ),
    ] = 1e-3,
    json: Json = False,
) -> None:
    """Compare two versions of a release, and state which step of the version number the difference requires."""
    from clay_publish.cards.diff import compare
    from clay_publish.release.versions import Version

    found = compare(release_at(old), release_at(new), tolerance)
    enough = Version.parse(found.old).smallest_after(found.step)
    lines = [f"{found.old} → {found.new}", *(f"  {line}" for line in found.lines())]
    if not found.identical:
        lines += [f"A {found.step} step: {found.because}. At least {enough}.", "", "In the spec of the newer version:"]
        lines += [f"version: {enough}", f"previous: {old}"]
    screen = Screen(quiet=True, as_json=json)
    screen.result("\n".join(lines), {**found.model_dump(mode="json"), "at_least": str(enough)})


def catalog(
    where: Where,
    json_items: Annotated[
        bool | None,
        typer.Option(
            "--json-items/--no-json-items",
            help="Each item as a JSON file too, for tools that browse static catalogs; default: up to 1,000 items.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Regenerate the STAC item table and the Collection, and update the manifest."""
    _write(where, again="catalog", screen=Screen(quiet=quiet, as_json=json), json_items=json_items)


def card(where: Where, previous: Previous = None, json: Json = False, quiet: Quiet = False) -> None:
    """Regenerate the dataset card, citation and figures, and update the manifest."""
    _write(where, again="card", screen=Screen(quiet=quiet, as_json=json), previous=previous)


def _write(
    where: str, *, again: str, screen: Screen, previous: str | None = None, json_items: bool | None = None
) -> None:
    from clay_publish.release.directory import CARD, ITEMS
    from clay_publish.release.lease import lease_if_run

    release = release_at(where)
    with screen.progress() as report, lease_if_run(release):
        describe(
            release,
            report,
            items=again == "catalog" or not release.store.exists(ITEMS),
            cards=again == "card" or not release.store.exists(CARD),
            previous=previous,
            json_items=json_items,
        )
    screen.result(release.store.where, {"release": release.store.where})


def describe(
    release: "Release",
    report: "Report",
    *,
    items: bool = True,
    cards: bool = True,
    previous: str | None = None,
    json_items: bool | None = None,
) -> None:
    """Items, then cards, then the Collection that holds their checksums, then the manifest over everything.

    `previous` is where the version before lies, which the changelog compares with. With `json_items`, each item is
    written as a JSON file too; None: up to 1,000 items.
    """
    from clay_publish import __version__
    from clay_publish.cards import write_cards
    from clay_publish.catalog import write_collection, write_items
    from clay_publish.progress import Progress
    from clay_publish.release.manifest import write_manifest

    if items:
        files = write_items(release, json_items=json_items)
        report(Progress("catalog", files, files, "written", unit="items"))
    if cards:
        write_cards(release, release_at(previous) if previous else None)
        report(Progress("card", 0, 0, "documents and figures written"))
    write_collection(release)
    write_manifest(release, f"clay-publish {__version__}")


def explore(
    where: Where,
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Show a release in a browser: serve its page on 127.0.0.1 until interrupted."""
    import webbrowser

    from clay_publish.cards.explorer.server import serve_release

    def opened(address: str) -> None:
        typer.echo(address)
        if browser:
            webbrowser.open(address)

    with contextlib.suppress(KeyboardInterrupt):
        serve_release(release_at(where), port, opened)
