"""A web server of images on loopback: byte ranges, ETags, latency; and chosen requests are treated badly."""

import hashlib
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Self

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Request:
    method: str
    name: str
    """Path below the served folder."""
    start: int
    """First byte asked for."""
    sent: int
    """Bytes of the body that went out."""


@dataclass
class Fault:
    """What to do with the requests that match, so many times."""

    action: str
    """`status:503`, `reset`, `truncate`, `slow`, `html`, `redirect:ADDRESS`, `whole` (no ranges), `endless`."""
    name: str = ""
    """Part of the path; any path where empty."""
    method: str = "GET"
    times: float = float("inf")

    def takes(self, method: str, name: str) -> bool:
        return self.times > 0 and self.name in name and method == self.method


@dataclass
class ImageServer:
    """Serves a folder until the block ends."""

    folder: Path
    latency: float = 0.0
    """Seconds before each answer."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # clients that leave early are none of ours

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def of(self, name: str, method: str = "GET") -> list[Request]:
        """The requests for a file."""
        with self._lock:
            return [r for r in self.requests if r.method == method and name in r.name]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.partition("?")[0].lstrip("/")
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            fault = next((f for f in self.faults if f.takes(handler.command, name)), None)
            if fault is not None:
                fault.times -= 1
        start, sent = self._treat(handler, name, fault.action if fault else "")
        with self._lock:
            self.requests.append(Request(handler.command, name, start, sent))

    def _treat(self, handler: BaseHTTPRequestHandler, name: str, action: str) -> tuple[int, int]:
        kind, _, value = action.partition(":")
        if kind == "reset":
            handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return 0, 0
        instead = {
            "status": lambda: (int(value), b"no", {}),
            "redirect": lambda: (302, b"", {"Location": value}),
            "html": lambda: (200, b"<!DOCTYPE html><title>Sign in</title>", {"Content-Type": "text/html"}),
        }
        if kind in instead:
            return 0, self._send(handler, *instead[kind]())
        path = self.folder / name
        if not path.is_file():
            return 0, self._send(handler, 404, b"no such file", {})
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()[:16]}"', "Accept-Ranges": "bytes"}
        if kind == "whole":
            del headers["Accept-Ranges"]
        asked = _RANGE.fullmatch(handler.headers.get("Range", ""))
        if asked is None or kind in {"whole", "endless"}:
            send = self._send_endlessly if kind == "endless" else self._send
            return 0, send(handler, 200, data, headers, kind)
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return start, self._send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return start, self._send(handler, 206, data[start:stop], headers, kind)

    def _send_endlessly(self, handler: BaseHTTPRequestHandler, _: int, data: bytes, *__: Any) -> int:
        """The file as a range of itself, and then blanks until the client leaves."""
        if handler.command == "HEAD":
            return self._send(handler, 200, data, {})
        handler.send_response(206)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        sent, blanks = 0, b" " * (1 << 20)
        try:
            for piece in chain([data], repeat(blanks)):
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += len(piece)
        except OSError:
            handler.close_connection = True
        return sent

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], kind: str = ""
    ) -> int:
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return 0
        if kind == "truncate":
            body = body[: len(body) // 2]
            handler.close_connection = True
        if kind == "slow":
            for at in range(0, len(body), 1 + len(body) // 20):
                handler.wfile.write(body[at : at + 1 + len(body) // 20])
                time.sleep(0.01)
        else:
            handler.wfile.write(body)
        return len(body)
