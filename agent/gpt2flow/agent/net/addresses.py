"""Addresses to listen on, and addresses and URLs to connect to."""

import socket
from urllib.parse import urlsplit

import httpx

from gpt2flow.agent.errors import AgentError, InputError
from gpt2flow.web import addresses


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
    return addresses.parse_address(text, field, InputError, lowest_port=lowest_port)


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
        # Some texts are read by one parser only, or have a host that is no name.
        _ = urlsplit(text).port, url.host
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError(f"{field} is {text!r}, which is no URL: {error}") from error
    if url.userinfo:
        raise InputError(f"{field} has a user or a password, which a URL must not show")
    if url.scheme not in {"https", "http"} or not url.host:
        raise InputError(f"{field} is {text!r}, must be an https URL")
    if url.scheme == "http" and not addresses.is_loopback(url.host):
        raise InputError(f"{field} is {text!r}, must be https except on this machine")
    return url


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
    return addresses.bind(address, field, bad_input=InputError, failure=ListenError, remedy=remedy)
