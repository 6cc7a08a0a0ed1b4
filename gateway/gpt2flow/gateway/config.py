"""Settings of the gateway."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from gpt2flow.client import Security
from gpt2flow.gateway.errors import GatewayConfigError
from gpt2flow.web.addresses import check_hosts, parse_address
from gpt2flow.web.certificates import check_certificate
from gpt2flow.web.log import LogFormat


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of one gateway.

    Attributes:
        server: Address of the gRPC server, as `host:port`.
        security: TLS of the connection to the server.
        address: Address to listen on, as `host:port`; port 0 picks a free one.
        https_certificate: PEM file of the certificate of the gateway; None serves plain HTTP.
        https_key: PEM file of the private key of `https_certificate`.
        plain_http: Whether plain HTTP may be served on addresses that others can reach.
        allowed_hosts: Names by which requests may address a gateway on a loopback address, besides
            those of this machine.
        chat_templates: Files of chat templates, each as `[MODEL=]FILE`.
        metrics_address: Address of the Prometheus endpoint; None opens none.
        request_timeout: Longest time of a request, in seconds.
        body_seconds: Longest time for the body of a request to arrive.
        max_body_bytes: Largest body of a request.
        max_connections: Most open connections.
        drain_seconds: Time for running requests to end after SIGTERM.
        log_format: Format of the log's lines.
    """

    server: str = "127.0.0.1:50051"
    security: Security = field(default_factory=Security)
    address: str = "127.0.0.1:8000"
    https_certificate: Path | None = None
    https_key: Path | None = None
    plain_http: bool = False
    allowed_hosts: tuple[str, ...] = ()
    chat_templates: tuple[str, ...] = ()
    metrics_address: str | None = None
    request_timeout: float = 600.0
    body_seconds: float = 10.0
    max_body_bytes: int = 4 << 20
    max_connections: int = 1000
    drain_seconds: float = 30.0
    log_format: LogFormat = "json"

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            GatewayConfigError: A setting is invalid.
        """
        for name in ("request_timeout", "body_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise GatewayConfigError(
                    f"{name} is {getattr(self, name)}, must be finite and above 0"
                )
        if not 0 <= self.drain_seconds < math.inf:
            raise GatewayConfigError(
                f"drain_seconds is {self.drain_seconds}, must be finite and not below 0"
            )
        for name in ("max_body_bytes", "max_connections"):
            if getattr(self, name) < 1:
                raise GatewayConfigError(f"{name} is {getattr(self, name)}, must be at least 1")
        check_hosts(self.allowed_hosts, "allowed_host", GatewayConfigError)
        parse_address(self.address, "address", GatewayConfigError)
        if self.metrics_address is not None:
            parse_address(self.metrics_address, "metrics_address", GatewayConfigError)
        self._check_https()

    def _check_https(self) -> None:
        certificate, key = self.https_certificate, self.https_key
        if (certificate is None) != (key is None):
            raise GatewayConfigError("https_certificate and https_key need each other")
        if certificate is None or key is None:
            return
        if self.plain_http:
            raise GatewayConfigError("plain_http excludes https_certificate: give one of them")
        check_certificate(certificate, key, GatewayConfigError)
