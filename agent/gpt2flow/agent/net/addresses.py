"""Addresses to listen on, and addresses and URLs to connect to."""

import ipaddress
import socket
from urllib.parse import urlsplit

import httpx

from gpt2flow.agent.errors import AgentError, InputError

_MAX_PORT = 65_535


class ListenError(AgentError):
    """Address that cannot be listened on."""


def parse_address(text: str, field: str, *, lowest_port: int = 0) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets.

    Args:
        text: Text of a user.
        field: Name of the setting, for the error.
        lowest_port: Lowest port; 0 lets the system pick one to listen on.

    Raises:
        InputError: The text has another form.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    is_bare = host is not None and parts.netloc == text and parts.username is None
    if not is_bare or host is None or port is None or port < lowest_port:
        raise InputError(
            f"{field} is {text!r}, must be host:port with a port from {lowest_port} to {_MAX_PORT}"
        )
    return host, port


def parse_url(text: str, field: str) -> httpx.URL:
    """Parse the URL of a service: https, or http on this machine.

    Args:
        text: Text of a user.
        field: Name of the setting, for the error.

    Raises:
        InputError: The text is no such URL, or would show a password.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise InputError(f"{field} is {text!r}, which is no URL: {error}") from error
    if url.userinfo:
        raise InputError(f"{field} has a user or a password, which a URL must not show")
    if url.scheme not in {"https", "http"} or not url.host or (url.port or 0) > _MAX_PORT:
        raise InputError(f"{field} is {text!r}, must be an https URL")
    if url.scheme == "http" and not is_loopback(url.host):
        raise InputError(f"{field} is {text!r}, must be https except on this machine")
    return url


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host.

    Of names, only `localhost` counts.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(address: str, field: str, *, remedy: str | None = None) -> socket.socket:
    """Bind a socket, which refuses connections until somebody listens on it.

    Args:
        address: Address, as `host:port`.
        field: Name of the setting, for the error.
        remedy: What to do if other machines can reach the address, which is refused then. None
            allows every address.

    Raises:
        InputError: The address has another form, or other machines can reach it and must not.
        ListenError: The address cannot be bound.
    """
    host, port = parse_address(address, field)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, resolved = found[0]
        if remedy is not None and not is_loopback(str(resolved[0])):
            raise InputError(
                f"{field} is {address!r}, which other machines can reach: {remedy}, or listen on"
                " 127.0.0.1"
            )
        bound = socket.socket(family, kind)
        # A restarted process may bind while connections of the earlier one are closing.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(resolved)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ListenError(f"cannot listen on {address}: {reason}") from error
    return bound
