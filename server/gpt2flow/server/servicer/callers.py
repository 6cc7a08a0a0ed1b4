"""Tells who sends a request."""

import ipaddress
from contextvars import ContextVar
from urllib.parse import unquote

from gpt2flow.server.caller import Caller
from gpt2flow.server.servicer.status import Context

# Of the call that this task answers: set by the interceptor that checks tokens, or when it is
# first asked for.
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)

# gRPC fills these in from a certificate that it has checked, and from no other.
_CERTIFIED_NAMES = ("x509_common_name", "x509_subject_alternative_name")


def caller_of(context: Context) -> Caller:
    """Returns who sends this request: whom its credentials name, else the connection's peer.

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
