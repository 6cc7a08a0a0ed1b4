"""Tells who sends a request."""

import functools
import ipaddress
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from gpt2flow.server.access.permissions import Caller, UnfinishedRequests
from gpt2flow.server.servicer.status import Context

# Of the call that this task answers: set by the interceptor that checks tokens, or when it is
# first asked for.
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)

# gRPC fills these in from a certificate that it has checked, and from no other.
_CERTIFIED_NAMES = ("x509_common_name", "x509_subject_alternative_name")

# Of an IPv6 address, so many bits at its start are a network; the others are the host's to choose.
_NETWORK_BITS = 64


def caller_of(context: Context) -> Caller:
    """Return who sends this request: whom its credentials name, else the connection's peer.

    Credentials are a token, or else the client's certificate: its common name or, without
    one, its first alternative name.
    """
    caller = CALLER.get()
    if caller is None:
        caller = Caller(_certified_name(context) or peer_name(context.peer()))
        CALLER.set(caller)
    return caller


def _certified_name(context: Context) -> str | None:
    known = context.auth_context()
    for key in _CERTIFIED_NAMES:
        # A subject without a common name has an empty one here.
        for value in filter(None, known.get(key, ())):
            return value.decode("utf-8", "replace")
    return None


def peer_name(peer: str) -> str:
    """Return what tells a peer of gRPC from others: its host.

    Of IPv6 that is the network of 64 bits, in which a host may take any address; one that
    stands for an IPv4 address is that. Clients of this machine are told apart by their ports,
    since they share the host. Peers that are no internet addresses, such as those of a Unix
    socket, stay as they are.
    """
    family, _, address = unquote(peer).partition(":")
    if family not in {"ipv4", "ipv6"}:
        return peer
    host, _, port = address.rpartition(":")
    ip = ipaddress.ip_address(host.strip("[]"))
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_loopback:
        return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    network = str(ipaddress.IPv6Network((int(ip), _NETWORK_BITS), strict=False))
    # The same link-local network is another one on another link.
    return f"{network}%{ip.scope_id}" if ip.scope_id else network


class _Counting(Protocol):
    unfinished: UnfinishedRequests


_Servicer = TypeVar("_Servicer", bound=_Counting)
_Response = TypeVar("_Response")
_Method = Callable[[_Servicer, Any, Context], Awaitable[_Response]]


def counts_requests(method: _Method[_Servicer, _Response]) -> _Method[_Servicer, _Response]:
    """Make a method of the servicer one that a caller may have unfinished only so often.

    Each prompt of a message counts.
    """

    @functools.wraps(method)
    async def counting(servicer: _Servicer, request: Any, context: Context) -> _Response:
        count = max(len(getattr(request, "prompts", ())), 1)
        with servicer.unfinished.hold(caller_of(context), count):
            return await method(servicer, request, context)

    return counting
