"""Tells who sends a request."""

import ipaddress
from contextvars import ContextVar
from urllib.parse import unquote

from gpt2flow.server.caller import Caller
from gpt2flow.server.servicer.status import Context

# Set for one call by the interceptor that checks credentials.
AUTHENTICATED: ContextVar[Caller | None] = ContextVar("authenticated", default=None)


def caller_of(context: Context) -> Caller:
    """Returns who sends this request: whom its credentials name, else the connection's peer."""
    return AUTHENTICATED.get() or Caller(peer_name(context.peer()))


def peer_name(peer: str) -> str:
    """Returns what tells a peer of gRPC from others: its host.

    Clients of this machine are told apart by their ports, since they share the host. Peers
    that are no internet addresses, such as those of a Unix socket, stay as they are.
    """
    family, _, address = unquote(peer).partition(":")
    if family not in {"ipv4", "ipv6"}:
        return peer
    host = address.rpartition(":")[0].strip("[]")
    local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
    return address if local else host
