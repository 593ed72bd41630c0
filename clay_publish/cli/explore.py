"""`explore`: look at a release in a browser."""

import contextlib
import webbrowser
from typing import Annotated

import typer

from clay_publish.cli.console import Where, release_at


def explore(
    where: Where,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Show a release in a browser: serve its page on 127.0.0.1 until interrupted."""
    from clay_publish.cards.explorer.server import serve_release

    def opened(address: str) -> None:
        typer.echo(address)
        if browser:
            webbrowser.open(address)

    with contextlib.suppress(KeyboardInterrupt):
        serve_release(release_at(where), port, opened)
