"""A server on loopback that shows a release: range requests over whatever the release lies on."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from clay_publish.cards.explorer.build import FOLDER, SUMMARY
from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.release.directory import RUN, Release, content_type
from clay_publish.storage.address import HUB_DATASETS
from clay_publish.storage.store import Store, is_safe

HOST = "127.0.0.1"

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_BESIDE = re.compile(r"catalog\.json|[0-9A-Za-z.+-]+\.validation\.json")
_HUB_ROOT = "resolve/main"
"""Where the Hub has the root of a repository; the page knows a release of it by its address, `resolve/v1.0.0`."""
_ON_HUB = {f"{_HUB_ROOT}/collection.json": "collection.json", f"{_HUB_ROOT}/yanked.json": "yanked.json"}


@dataclass(frozen=True)
class _Resource:
    """A file that is served."""

    store: Store
    path: str


def serve_release(release: Release, port: int, opened: Callable[[str], None]) -> None:
    """Serve a release and what its product's root says of it, until interrupted.

    Args:
        release: a directory, or an address.
        port: 0 for any that is free.
        opened: called with the address of the page once it can be read.

    Raises:
        ReleaseError: the release has no explorer.
        ClayPublishError: the port cannot be used.
    """
    if not release.store.exists(SUMMARY):
        raise ReleaseError(
            release.store.where,
            f"has no {SUMMARY}",
            "a release with an explorer",
            "Set `outputs.explorer: true` and run `clay-publish card`.",
        )
    name = re.sub(r"[^0-9A-Za-z.+-]", "-", str(release.json(SUMMARY).get("version", "release")))
    where = release.store.where.rstrip("/")
    hub = where.startswith(HUB_DATASETS)
    root = Store(where.partition("@")[0] if hub else where.rpartition("/")[0] or "/")
    try:
        server = _Server((HOST, port), _Handler)
    except OSError as error:
        raise ClayPublishError(f"port {port}", f"cannot be used ({error.strerror})", fix="Choose another.") from error
    server.release, server.root, server.name = release.store, root, f"resolve/v{name}" if hub else name
    with server:
        opened(f"http://{HOST}:{server.server_port}/{server.name}/{FOLDER}/index.html")
        server.serve_forever(poll_interval=0.1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    release: Store
    root: Store
    name: str

    def find(self, path: str) -> _Resource | None:
        """What lies at a path of the address; None where nothing is served."""
        path = path.lstrip("/")
        if path.startswith(f"{self.name}/"):
            rest = path.removeprefix(f"{self.name}/")
            return _Resource(self.release, rest) if is_safe(rest) and not rest.startswith(f"{RUN}/") else None
        beside = _ON_HUB.get(path) if self.name.startswith("resolve/") else _BESIDE.fullmatch(path) and path
        return _Resource(self.root, beside) if beside else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Answer without the file."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with the file, or a range of it."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        # A page of another site could name this address by a host name of its own.
        if self.headers.get("Host", "").rpartition(":")[0] not in {HOST, "localhost"}:
            self._refuse(421)
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            self.send_response(302)
            self.send_header("Location", f"/{self.server.name}/{FOLDER}/index.html")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        place = self.server.find(path)
        try:
            if place is None or not place.store.exists(place.path):
                self._refuse(404)
                return
            self._send(place, place.store.size(place.path), body=body)
        except ClayPublishError:
            self._refuse(502)

    def _send(self, place: _Resource, size: int, *, body: bool) -> None:
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, stop = (int(asked[1]), min(int(asked[2] or size) + 1, size)) if asked else (0, size)
        if asked and start >= stop:
            self._refuse(416, f"bytes */{size}")
            return
        with place.store.ranges(place.path) as file:
            self.send_response(206 if asked else 200)
            self.send_header("Content-Type", content_type(posixpath.basename(place.path)))
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Cache-Control", "no-cache")
            self.send_header("X-Content-Type-Options", "nosniff")
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.end_headers()
            if not body:
                return
            file.seek(start)
            while start < stop and (piece := file.read(min(_PIECE, stop - start))):
                self.wfile.write(piece)
                start += len(piece)

    def _refuse(self, status: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def handle_one_request(self) -> None:
        """Handle a request; a browser that leaves early is nothing to report."""
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
