"""Addresses to listen on."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

MAX_PORT = 65_535
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def parse_address(
    text: str, field: str, error: type[Exception], *, lowest_port: int = 0
) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets.

    Args:
        text: Text of a user.
        field: Name of the setting, for the error.
        error: Class of the error to raise.
        lowest_port: Lowest port; 0 lets the system pick one to listen on.

    Raises:
        error: The text has another form.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    is_bare = host is not None and parts.netloc == text and parts.username is None
    if not is_bare or host is None or port is None or port < lowest_port:
        raise error(
            f"{field} is {text!r}, must be host:port with a port from {lowest_port} to {MAX_PORT}"
        )
    return host, port


def check_hosts(hosts: Iterable[str], field: str, error: type[Exception]) -> None:
    """Check names by which requests may address a service.

    Args:
        hosts: Names of a user.
        field: Name of the setting, for the error.
        error: Class of the error to raise.

    Raises:
        error: One is no name or address, or has a port.
    """
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise error(f"{field} is {host!r}, must be a name or address without port")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host.

    Of names, only `localhost` counts.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(
    address: str,
    field: str,
    *,
    bad_input: type[Exception],
    failure: type[Exception],
    remedy: str | None = None,
) -> socket.socket:
    """Bind a socket, which refuses connections until somebody listens on it.

    Args:
        address: Address, as `host:port`.
        field: Name of the setting, for the error.
        bad_input: Class of the error about the address itself.
        failure: Class of the error about an address that cannot be bound.
        remedy: What to do if other machines can reach the address, which is refused then. None
            allows every address.

    Raises:
        bad_input: The address has another form, or other machines can reach it and must not.
        failure: The address cannot be bound.
    """
    host, port = parse_address(address, field, bad_input)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, resolved = found[0]
        if remedy is not None and not is_loopback(str(resolved[0])):
            raise bad_input(
                f"{field} is {address!r}, which other machines can reach: {remedy}, or listen on"
                " 127.0.0.1"
            )
        # asyncio sends small answers at once only on a socket that names its protocol.
        bound = socket.socket(family, kind, protocol)
        # A restarted process may bind while connections of the earlier one are closing.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(resolved)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise failure(f"cannot listen on {address}: {reason}") from error
    return bound
