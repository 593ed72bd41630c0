"""A proxy on loopback that treats chosen requests badly, and remembers all of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from threading import Event, Lock
from urllib.parse import urlsplit

from loopback_server import LoopbackServer

_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """With its query."""
    size: int

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.path

    @property
    def is_completion(self) -> bool:
        return self.method == "POST" and "uploadId=" in self.path


@dataclass
class Fault:
    """What to do with the requests that match, so many times."""

    matches: Callable[[Request], bool]
    action: str
    """`status:503`, `error:400:ExpiredToken`, `reset`, `lose the answer`, `flip a bit`, `flip a bit
    unseen`, `slow:0.5`, `hold`; `confirm` repeats the checksum in the answer, as AWS does."""
    times: int = 1


@dataclass
class FaultProxy(LoopbackServer):
    server: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    held: Event = field(default_factory=Event)
    """Set when a request is held."""
    _lock: Lock = field(default_factory=Lock)
    _release: Event = field(default_factory=Event)

    def __exit__(self, *reason: object) -> None:
        self._release.set()
        super().__exit__(*reason)

    def fail(self, matches: Callable[[Request], bool], action: str, times: int = 1) -> None:
        self.faults.append(Fault(matches, action, times))

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        if client.headers.get("Expect", "").lower() == "100-continue":
            client.send_response_only(100)
            client.end_headers()
        body = self._body(client)
        request = Request(client.command, client.path, len(body))
        action = self._action(request)
        kind, _, rest = action.partition(":")
        if kind == "reset":
            client.connection.close()
            client.close_connection = True
            return
        if kind in {"status", "error"}:
            status, _, code = rest.partition(":")
            self._answer(client, int(status), {}, f"<Error><Code>{code}</Code><Message>x</Message></Error>".encode())
            return
        if kind.startswith("flip a bit"):
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if kind == "slow":
            time.sleep(float(rest))
        if kind == "hold":
            self.held.set()
            self._release.wait(60)
        status, headers, data = self._forward(client, body, unseen=kind.endswith("unseen"))
        if kind == "confirm":
            headers |= {k: v for k, v in client.headers.items() if k.lower().startswith("x-amz-checksum-")}
        if kind == "lose the answer":
            client.connection.close()
            client.close_connection = True
            return
        self._answer(client, status, headers, data)

    def _action(self, request: Request) -> str:
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and fault.matches(request):
                    fault.times -= 1
                    return fault.action
        return ""

    def _body(self, client: BaseHTTPRequestHandler) -> bytes:
        if client.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(client.rfile.readline().split(b";")[0], 16):
                data += client.rfile.read(size)
                client.rfile.readline()
            client.rfile.readline()
            return data
        return client.rfile.read(int(client.headers.get("Content-Length") or 0))

    def _forward(
        self, client: BaseHTTPRequestHandler, body: bytes, *, unseen: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(urlsplit(self.server).netloc, timeout=60)
        try:
            headers = {k: v for k, v in client.headers.items() if k.lower() not in {*_HOP, "expect"}}
            if unseen:  # as a proxy that drops checksums
                headers = {k: v for k, v in headers.items() if "checksum" not in k.lower()}
                headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
            connection.request(client.command, client.path, body or None, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, client: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes) -> None:
        client.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {*_HOP, "content-length"}:
                client.send_header(name, value)
        length = headers.get("Content-Length") or headers.get("content-length") if client.command == "HEAD" else None
        client.send_header("Content-Length", length or str(len(data)))
        client.end_headers()
        if client.command != "HEAD":
            client.wfile.write(data)
