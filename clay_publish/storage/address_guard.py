"""Which addresses may be connected to, checked on the resolved address of each connection (DNS rebinding)."""

import ipaddress
import socket

from clay_publish.errors import AccessError

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
