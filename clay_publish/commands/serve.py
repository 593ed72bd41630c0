"""`serve`: a live STAC API over a release."""

import logging
import socket
from typing import Annotated

import typer

from clay_publish.commands.options import Where

HOST = "127.0.0.1"


def serve(
    where: Where, port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000
) -> None:
    """Answer STAC searches over a release, on this machine only, until interrupted."""
    from clay_publish.errors import ClayPublishError
    from clay_publish.extras import require_extra

    require_extra("serve", "clay-publish serve")
    logging.getLogger("stac_fastapi.types.config").setLevel(logging.ERROR)  # it warns of defaults we don't use
    import uvicorn

    from clay_publish.catalog.server import stac_api
    from clay_publish.reader import open_release

    app = stac_api(open_release(where))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise ClayPublishError(
                f"port {port}", f"cannot be used ({error.strerror})", fix="Choose another."
            ) from error
        listening.listen()  # whoever reads the address can connect
        typer.echo(f"http://{HOST}:{listening.getsockname()[1]}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
