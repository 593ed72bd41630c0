"""A web server may send its readers elsewhere, but not into the network behind their own door."""

import asyncio
import ipaddress
import socket
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from clay_publish.errors import StoreError


async def guarded_client(**options: Any) -> aiohttp.ClientSession:
    """A session that follows a redirect to its own host or to a public address, and to nowhere else."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check)
    return aiohttp.ClientSession(trace_configs=[trace], **options)


async def _check(_: aiohttp.ClientSession, __: SimpleNamespace, step: aiohttp.TraceRequestRedirectParams) -> None:
    target = step.url.join(URL(step.response.headers.get("Location", "")))
    if (target.host, target.port) == (step.url.host, step.url.port) and target.scheme == step.url.scheme:
        return
    if target.scheme not in {"http", "https"} or not await _is_public(target):
        raise StoreError(str(step.url), f"sends its readers to {target}", "a public address, or the same server")


async def _is_public(target: URL) -> bool:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(target.host or "", target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StoreError(str(target), f"cannot be found ({error})") from error
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)
