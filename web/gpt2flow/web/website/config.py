"""Settings that every website has."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gpt2flow.web.addresses import check_hosts, parse_address
from gpt2flow.web.certificates import check_certificate
from gpt2flow.web.log import LogFormat

_MAX_SESSION_HOURS = 24 * 7


@dataclass(frozen=True, kw_only=True)
class WebsiteConfig:
    """Settings of one website.

    Attributes:
        error: Class of the errors about settings.
        address: Address to listen on, as `host:port`; port 0 picks a free one.
        https_certificate: PEM file of the website's certificate; None serves plain HTTP, on
            loopback addresses only.
        https_key: PEM file of the private key of `https_certificate`.
        allowed_hosts: Names by which requests may address the website, besides those of this
            machine.
        session_hours: Time after which a person has to sign in again.
        max_body_bytes: Largest body of a request.
        body_seconds: Longest time for the body of a request to arrive.
        max_connections: Most open connections.
        log_format: Format of the log's lines.
    """

    error: ClassVar[type[Exception]]
    address: str
    https_certificate: Path | None = None
    https_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    session_hours: float = 8.0
    max_body_bytes: int = 65_536
    body_seconds: float = 10.0
    max_connections: int = 1000
    log_format: LogFormat = "json"

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            error: A setting is invalid.
        """
        if not 0 < self.session_hours <= _MAX_SESSION_HOURS:
            raise self.error(
                f"session_hours is {self.session_hours}, must be above 0 and at most"
                f" {_MAX_SESSION_HOURS}"
            )
        if not 0 < self.body_seconds < math.inf:
            raise self.error(f"body_seconds is {self.body_seconds}, must be finite and above 0")
        for name in ("max_body_bytes", "max_connections"):
            if getattr(self, name) < 1:
                raise self.error(f"{name} is {getattr(self, name)}, must be at least 1")
        check_hosts(self.allowed_hosts, "allowed_host", self.error)
        parse_address(self.address, "address", self.error)
        if (self.https_certificate is None) != (self.https_key is None):
            raise self.error("https_certificate and https_key need each other")
        if self.https_certificate is not None and self.https_key is not None:
            check_certificate(self.https_certificate, self.https_key, self.error)

    @property
    def is_https(self) -> bool:
        """Whether the website is served over TLS."""
        return self.https_certificate is not None

    def cookie_name(self, plain: str, secure: str) -> str:
        """Return the name of a cookie.

        Over TLS, a prefix keeps it to this host and to TLS.

        Args:
            plain: Name without TLS.
            secure: Name with TLS, without the prefix.
        """
        return f"__Host-{secure}" if self.is_https else plain
