"""A folder over HTTP with range requests, counted; a server that allows other sites to read it, or does not."""

import hashlib
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from loopback_server import LoopbackServer

from clay_publish.release.directory import content_type


@dataclass
class RangeServer(LoopbackServer):
    """Serve `folder`."""

    folder: Path
    cors: bool = False
    ranges: bool = True
    etags: bool = False
    weak: bool = False
    """Whether ETags are weak ones."""
    latency: float = 0.0
    """Seconds before each answer."""
    sent: int = 0
    """Bytes of bodies."""
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""
    most: int = 0
    """Requests at a time, at most."""
    _at_work: int = 0
    _lock: Lock = field(default_factory=Lock)

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self._at_work += 1
            self.most = max(self.most, self._at_work)
        try:
            self._serve(client)
        finally:
            with self._lock:
                self._at_work -= 1

    def _serve(self, client: BaseHTTPRequestHandler) -> None:
        time.sleep(self.latency)
        path = unquote(urlsplit(client.path).path)
        self.asked.append(path)
        file = self.folder / path.lstrip("/")
        if not file.is_file():
            self._answer(client, 404, b"")
            return
        data, status, headers = file.read_bytes(), 200, {"Content-Type": content_type(path)}
        if self.etags:
            mark = "W/" if self.weak else ""
            headers["ETag"] = f'{mark}"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        if self.ranges and (asked := client.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            headers["Content-Range"] = f"bytes {first}-{min(int(last), len(data) - 1)}/{len(data)}"
            data, status = data[int(first) : int(last) + 1], 206
        self._answer(client, status, data, headers)

    def _answer(
        self, client: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None
    ) -> None:
        client.send_response(status)
        for name, value in (headers or {}).items():
            client.send_header(name, value)
        if self.cors:
            client.send_header("Access-Control-Allow-Origin", "*")
            client.send_header("Access-Control-Allow-Headers", "Range")
        client.send_header("Content-Length", str(len(data)))
        client.end_headers()
        if client.command == "GET":
            self.sent += len(data)
        if client.command == "GET":
            client.wfile.write(data)
