"""Connections of urllib3: only to addresses that are allowed, and only while the server makes progress.

Addresses are checked when a connection is made, after the name is resolved: a name that a check has found to be public
may be private a moment later (DNS rebinding).
"""

import functools
import ipaddress
import socket
import ssl
import time
from threading import Lock
from typing import Any

import certifi
import urllib3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from clay_publish.errors import AccessError
from clay_publish.storage.retry import limits

_FIRST: dict[str, frozenset[str]] = {}
"""What each name meant when it was first used, by whomever: it cannot become private afterwards."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddressError(AccessError):
    """An address in a private network, which only the user may name."""


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, including an IPv4 address embedded in an IPv6 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if parsed in _NAT64:
            embedded = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        if embedded is not None:
            return embedded.is_global and not embedded.is_multicast
    return parsed.is_global and not parsed.is_multicast


def resolve(host: str, port: int, trusted: tuple[str, int] | None) -> list[str]:
    """The addresses of a host, each of which may be connected to.

    Args:
        host: name or IP address.
        port: TCP port.
        trusted: host and port that may be in a private network, because the user named them. Only the addresses count
            that its name had when it was first looked up.

    Raises:
        ForbiddenAddressError: one of the addresses is in a private network.
        OSError: the name cannot be resolved.
    """
    host = host.strip("[]")
    found = _lookup(host, port)
    first = _FIRST.setdefault(host, frozenset(found))
    known = first if (host, port) == trusted else frozenset()
    for address in found:
        if address not in known and not is_public(address):
            raise ForbiddenAddressError(
                f"{host}:{port}", f"is the private address {address}", "a public address, or the server that was named"
            )
    return found


def _lookup(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


CONNECT_SECONDS = 10.0
_SLOWEST = 1_000
"""Bytes per second that count as progress."""


class _WatchedSocket:
    """A socket whose reads have to make progress: enough bytes within each time, however they are spread over it."""

    _seconds: float | None = None

    def watch(self, seconds: float) -> None:
        """Begin to measure: an answer is expected from now on."""
        self._seconds, self._got, self._end = seconds, 0, time.monotonic() + seconds

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        size: int = super().recv_into(*arguments, **options)  # type: ignore[misc]  # of the socket
        if self._seconds is not None:
            self._count(size, self._seconds)
        return size

    def _count(self, size: int, seconds: float) -> None:
        self._got += size
        now = time.monotonic()
        if size and now > self._end:
            if self._got < _SLOWEST * seconds:
                raise TimeoutError(f"sent {self._got} bytes in {seconds:g} s")
            self._got, self._end = 0, now + seconds


class _Socket(_WatchedSocket, socket.socket):
    pass


class _TlsSocket(_WatchedSocket, ssl.SSLSocket):
    pass


class Watched:
    """Connections of urllib3 to servers that have to make progress, which urllib3 asks of single packets alone."""

    ssl_context: ssl.SSLContext | None = None

    def connect(self) -> None:
        """Connect, and secure the connection, by sockets that measure."""
        if self.ssl_context is not None:
            self.ssl_context.sslsocket_class = _TlsSocket
        super().connect()  # type: ignore[misc]  # of urllib3

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()  # type: ignore[misc]  # of urllib3
        seconds = plain.gettimeout()
        made = _Socket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        made.settimeout(seconds)
        return made

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        """Begin a request: a server may answer before all of a large body is sent."""
        self._watch()
        super().putrequest(*arguments, **options)  # type: ignore[misc]  # of urllib3

    def getresponse(self) -> Any:
        """Wait for the answer."""
        self._watch()
        return super().getresponse()  # type: ignore[misc]  # of urllib3

    def _watch(self: Any) -> None:
        if isinstance(self.sock, _WatchedSocket):  # not before it is connected, nor TLS within the TLS of a proxy
            self.sock.watch(limits().stall)


class _Guarded(Watched):
    """Connections to addresses that the guard allows."""

    trusted: tuple[str, int] | None = None

    def _new_conn(self: Any) -> socket.socket:
        named = self._dns_host
        try:
            addresses = resolve(named, self.port, self.trusted)
        except OSError as error:
            raise NewConnectionError(self, f"{named} cannot be resolved ({error})") from error
        failure: Exception | None = None
        for address in addresses:
            self._dns_host = address
            try:
                return super()._new_conn()
            except (NewConnectionError, ConnectTimeoutError) as error:
                failure = error
            finally:
                self._dns_host = named
        raise failure or NewConnectionError(self, f"{named} has no address")


def pools(plain: type, tls: type) -> dict[str, Any]:
    """Classes of pools by scheme, whose connections are of these classes."""
    return {
        "http": type("_HttpPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("_HttpsPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
    }


_MAKING = Lock()
"""Ten threads that begin at once would each read the certificates, 40 ms of a processor."""


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def pool(trusted: tuple[str, int] | None) -> urllib3.PoolManager:
    """Connections to public addresses, and to one host and port that may be in a private network."""
    with _MAKING:
        return _pool(trusted)


@functools.lru_cache(maxsize=256)
def _pool(trusted: tuple[str, int] | None) -> urllib3.PoolManager:
    made = urllib3.PoolManager(maxsize=16, ssl_context=_tls())
    guard = {"trusted": trusted}
    plain = type("_GuardedHttp", (_Guarded, HTTPConnection), guard)
    tls = type("_GuardedHttps", (_Guarded, HTTPSConnection), guard)
    made.pool_classes_by_scheme = pools(plain, tls)
    return made
