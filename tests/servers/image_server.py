"""A web server of images on loopback: byte ranges, ETags, latency; and chosen requests are treated badly."""

import functools
import hashlib
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import chain, repeat
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from loopback_server import LoopbackServer

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
    """`status:503`, `reset`, `truncate`, `slow`, `html`, `redirect:ADDRESS`, `whole` (no ranges), `endless`,
    `changed` (another ETag)."""
    name: str = ""
    """Part of the path; any path where empty."""
    method: str = "GET"
    times: float = float("inf")

    def takes(self, method: str, name: str) -> bool:
        return self.times > 0 and self.name in name and method == self.method


@functools.lru_cache(maxsize=16)
def _content(path: Path, changed: int) -> tuple[bytes, str]:  # noqa: ARG001 - a changed file is read again
    """Bytes of a file, and their hash."""
    data = path.read_bytes()
    return data, hashlib.sha256(data).hexdigest()


@dataclass
class ImageServer(LoopbackServer):
    """Serves a folder until the block ends."""

    folder: Path
    latency: float = 0.0
    """Seconds before each answer."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _answering: int = 0

    @property
    def url(self) -> str:
        return self.address

    def of(self, name: str, method: str = "GET") -> list[Request]:
        """The requests for a file, those included whose answers have just been sent."""
        with self._lock:
            self._lock.wait_for(lambda: not self._answering, 10)
            return [r for r in self.requests if r.method == method and name in r.name]

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        name = client.path.partition("?")[0].lstrip("/")
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self._answering += 1
            fault = next((f for f in self.faults if f.takes(client.command, client.path)), None)
            if fault is not None:
                fault.times -= 1
        start = sent = 0
        try:
            start, sent = self._treat(client, name, fault.action if fault else "")
        finally:
            with self._lock:
                self.requests.append(Request(client.command, name, start, sent))
                self._answering -= 1
                self._lock.notify_all()

    def _treat(self, client: BaseHTTPRequestHandler, name: str, action: str) -> tuple[int, int]:
        kind, _, value = action.partition(":")
        if kind == "reset":
            client.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            client.close_connection = True
            client.connection.close()
            return 0, 0
        instead = {
            "status": lambda: (int(value), b"no", {}),
            "redirect": lambda: (302, b"", {"Location": value}),
            "html": lambda: (200, b"<!DOCTYPE html><title>Sign in</title>", {"Content-Type": "text/html"}),
        }
        if kind in instead:
            return 0, self._send(client, *instead[kind]())
        path = self.folder / name
        if not path.is_file():
            return 0, self._send(client, 404, b"no such file", {})
        data, digest = _content(path, path.stat().st_mtime_ns)
        headers = {"ETag": f'"{digest[:16]}"', "Accept-Ranges": "bytes"}
        if kind == "changed":
            headers["ETag"] = '"another"'
        if kind == "whole":
            del headers["Accept-Ranges"]
        asked = _RANGE.fullmatch(client.headers.get("Range", ""))
        if asked is None or kind in {"whole", "endless"}:
            send = self._send_endlessly if kind == "endless" else self._send
            return 0, send(client, 200, data, headers, kind)
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return start, self._send(client, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return start, self._send(client, 206, data[start:stop], headers, kind)

    def _send_endlessly(self, client: BaseHTTPRequestHandler, _: int, data: bytes, *__: Any) -> int:
        """The file as a range of itself, and then blanks until the client leaves."""
        if client.command == "HEAD":
            return self._send(client, 200, data, {})
        client.send_response(206)
        client.send_header("Transfer-Encoding", "chunked")
        client.end_headers()
        sent, blanks = 0, b" " * (1 << 20)
        try:
            for piece in chain([data], repeat(blanks)):
                client.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += len(piece)
        except OSError:
            client.close_connection = True
        return sent

    def _send(
        self, client: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], kind: str = ""
    ) -> int:
        client.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            client.send_header(key, value)
        client.end_headers()
        if client.command == "HEAD":
            return 0
        if kind == "truncate":
            body = body[: len(body) // 2]
            client.close_connection = True
        if kind == "slow":
            for at in range(0, len(body), 1 + len(body) // 20):
                client.wfile.write(body[at : at + 1 + len(body) // 20])
                time.sleep(0.01)
        else:
            client.wfile.write(body)
        return len(body)
