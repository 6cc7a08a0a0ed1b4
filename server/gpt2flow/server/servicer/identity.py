"""Identity of the caller of an RPC, and its quota of requests."""

import functools
import ipaddress
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from gpt2flow.server.access.permissions import Caller, UnfinishedRequests
from gpt2flow.server.servicer.status import Context

# Caller of the current RPC; set by the interceptor that checks tokens, or at the first access.
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)

# gRPC sets these from verified certificates only.
_CERTIFIED_NAMES = ("x509_common_name", "x509_subject_alternative_name")

# Leading bits of an IPv6 address that identify the network; a host may choose the others.
_NETWORK_BITS = 64


def caller_of(context: Context) -> Caller:
    """Return the caller of the current RPC.

    It is named by its token; without one, by the common name of its certificate, or by the
    certificate's first alternative name. Without credentials, the connection's peer names it.
    """
    caller = CALLER.get()
    if caller is None:
        caller = Caller(_certified_name(context) or peer_name(context.peer()))
        CALLER.set(caller)
    return caller


def _certified_name(context: Context) -> str | None:
    verified = context.auth_context()
    for key in _CERTIFIED_NAMES:
        # A subject without a common name has an empty one here.
        for value in filter(None, verified.get(key, ())):
            return value.decode("utf-8", "replace")
    return None


def peer_name(peer: str) -> str:
    """Return the name of a gRPC peer, from its address.

    - IPv4: the address.
    - IPv6: the /64 network, in which a host may take any address; a mapped IPv4 address is IPv4.
    - Loopback: address and port, since all local clients share the host.
    - Others, such as Unix sockets: the peer as it is.
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
    # Link-local networks are distinct per link.
    return f"{network}%{ip.scope_id}" if ip.scope_id else network


class _Counting(Protocol):
    unfinished: UnfinishedRequests


_Servicer = TypeVar("_Servicer", bound=_Counting)
_Response = TypeVar("_Response")
_Method = Callable[[_Servicer, Any, Context], Awaitable[_Response]]


def counts_requests(method: _Method[_Servicer, _Response]) -> _Method[_Servicer, _Response]:
    """Apply the caller's quota of unfinished requests to a servicer's method.

    Each prompt of a message counts.
    """

    @functools.wraps(method)
    async def counting(servicer: _Servicer, request: Any, context: Context) -> _Response:
        count = max(len(getattr(request, "prompts", ())), 1)
        with servicer.unfinished.hold(caller_of(context), count):
            return await method(servicer, request, context)

    return counting
