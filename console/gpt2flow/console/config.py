"""Settings of the console."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from gpt2flow.client import Security
from gpt2flow.console.errors import ConsoleConfigError
from gpt2flow.console.reading.server_metrics import check_metrics_url
from gpt2flow.web.addresses import check_hosts, parse_address
from gpt2flow.web.certificates import check_certificate
from gpt2flow.web.log import LogFormat

_MAX_SESSION_HOURS = 24 * 7


@dataclass(frozen=True)
class ConsoleConfig:
    """Settings of one console.

    Attributes:
        tokens: TOML file of tokens, which names the people and what each may do.
        database: URL of the shop database, or path of an SQLite file.
        flows: Folder of the flows; None selects the built-in ones.
        server: Address of the model server, as `host:port`, for live figures and the playground.
        security: TLS and token of the connection to the server.
        address: Address to listen on, as `host:port`; port 0 picks a free one.
        https_certificate: PEM file of the certificate of the console; None serves plain HTTP, on
            loopback addresses only.
        https_key: PEM file of the private key of `https_certificate`.
        allowed_hosts: Names by which requests may address the console, besides those of this
            machine.
        reports: Folder of evaluation reports; None shows none.
        metrics: URL of the server's Prometheus endpoint; empty shows no live figures.
        session_hours: Time after which a person has to sign in again.
        max_body_bytes: Largest body of a request.
        body_seconds: Longest time for the body of a request to arrive.
        max_connections: Most open connections.
        log_format: Format of the log's lines.
    """

    tokens: Path
    database: str = "gpt2flow.sqlite"
    flows: Path | None = None
    server: str = "127.0.0.1:50051"
    security: Security = field(default_factory=Security)
    address: str = "127.0.0.1:8090"
    https_certificate: Path | None = None
    https_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    reports: Path | None = None
    metrics: str = ""
    session_hours: float = 8.0
    max_body_bytes: int = 65_536
    body_seconds: float = 10.0
    max_connections: int = 1000
    log_format: LogFormat = "json"

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            ConsoleConfigError: A setting is invalid.
        """
        if not 0 < self.session_hours <= _MAX_SESSION_HOURS:
            raise ConsoleConfigError(
                f"session_hours is {self.session_hours}, must be above 0 and at most"
                f" {_MAX_SESSION_HOURS}"
            )
        if not 0 < self.body_seconds < math.inf:
            raise ConsoleConfigError(
                f"body_seconds is {self.body_seconds}, must be finite and above 0"
            )
        for name in ("max_body_bytes", "max_connections"):
            if getattr(self, name) < 1:
                raise ConsoleConfigError(f"{name} is {getattr(self, name)}, must be at least 1")
        check_hosts(self.allowed_hosts, "allowed_host", ConsoleConfigError)
        if self.reports is not None and not self.reports.is_dir():
            raise ConsoleConfigError(f"reports {self.reports}: there is no such folder")
        parse_address(self.address, "address", ConsoleConfigError)
        if self.metrics:
            check_metrics_url(self.metrics)
        self._check_https()

    def _check_https(self) -> None:
        if (self.https_certificate is None) != (self.https_key is None):
            raise ConsoleConfigError("https_certificate and https_key need each other")
        if self.https_certificate is not None and self.https_key is not None:
            check_certificate(self.https_certificate, self.https_key, ConsoleConfigError)

    @property
    def is_https(self) -> bool:
        """Whether the console is served over TLS."""
        return self.https_certificate is not None
