"""Settings of the HTTP endpoint."""

import math
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import parse_address
from gpt2flow.web.log import LogFormat


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
