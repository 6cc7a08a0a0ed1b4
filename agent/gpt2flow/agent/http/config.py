"""Settings of the HTTP endpoint, and the ports that it listens on."""

import ipaddress
import math
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt2flow.agent.errors import AgentError, InputError

LogFormat = Literal["json", "console"]


class ListenError(AgentError):
    """Address that cannot be listened on."""


@dataclass(frozen=True)
class HttpConfig:
    """Settings of one HTTP endpoint.

    Attributes:
        address: Address to listen on, as `host:port`; port 0 picks a free one.
        metrics_address: Address of the Prometheus endpoint; None opens none.
        secret_file: File of the webhook secrets, one a line; None accepts unsigned requests,
            which only a loopback address may do.
        request_timeout: Longest wait of a request for its turn, in seconds.
        heartbeat_seconds: Time between two comments of an event stream that waits.
        body_seconds: Longest time for the body of a request to arrive.
        max_body_bytes: Largest body of a request.
        max_turns: Most turns at a time.
        max_queued: Most turns that wait for others to end.
        max_per_minute: Most requests of a session in a minute, for each of the two routes.
        max_connections: Most open connections.
        drain_seconds: Time for accepted turns to end after SIGTERM.
        log_messages: Whether the log holds the texts of customers and replies.
        log_format: Format of the log's lines.
    """

    address: str = "127.0.0.1:8080"
    metrics_address: str | None = None
    secret_file: Path | None = None
    request_timeout: float = 90.0
    heartbeat_seconds: float = 5.0
    body_seconds: float = 10.0
    max_body_bytes: int = 65_536
    max_turns: int = 16
    max_queued: int = 64
    max_per_minute: int = 60
    max_connections: int = 1000
    drain_seconds: float = 30.0
    log_messages: bool = False
    log_format: LogFormat = "json"

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: A setting is invalid.
        """
        for name in ("request_timeout", "heartbeat_seconds", "body_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, must be finite and above 0")
        if not 0 <= self.drain_seconds < math.inf:
            raise InputError(
                f"drain_seconds is {self.drain_seconds}, must be finite and not below 0"
            )
        for name in ("max_body_bytes", "max_turns", "max_per_minute", "max_connections"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.max_queued < 0:
            raise InputError(f"max_queued is {self.max_queued}, must be at least 0")
        parse_address(self.address, "address")
        if self.metrics_address is not None:
            parse_address(self.metrics_address, "metrics_address")


def parse_address(address: str, field: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets.

    Args:
        address: Text of a user.
        field: Name of the setting, for the error.

    Raises:
        InputError: The text has another form.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InputError(f"{field} is {address!r}, must be host:port with a port up to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(address: str, *, loopback_only: bool) -> socket.socket:
    """Bind a socket, which refuses connections until somebody listens on it.

    Args:
        address: Address, as `host:port`.
        loopback_only: Whether only an address that other machines cannot reach is allowed.

    Raises:
        InputError: Other machines can reach the address, and must not.
        ListenError: The address cannot be bound.
    """
    host, port = parse_address(address, "address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, resolved = found[0]
        if loopback_only and not is_loopback(str(resolved[0])):
            raise InputError(
                f"address is {address!r}, which other machines can reach: name the secrets of"
                " signed requests with --secret-file, or listen on 127.0.0.1"
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


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host.

    Of names, only `localhost` counts.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
