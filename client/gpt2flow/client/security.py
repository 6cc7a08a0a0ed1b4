"""Security settings of a connection: TLS and bearer token."""

from dataclasses import dataclass, field
from pathlib import Path

from gpt2flow.client.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Tls:
    """TLS settings of a connection.

    All files are PEM. The client reads them once, when it is created.

    Attributes:
        ca: File of the CA certificates that may sign the server's certificate. None trusts
            the public ones that come with gRPC.
        certificate: File of the client's certificate chain, for servers that require mutual
            TLS (mTLS). Requires `key`.
        key: File of the private key of `certificate`.
        server_name: Name expected in the server's certificate, instead of the host in the
            address. Intended for tests and tunnels.

    Raises:
        SettingsError: Only one of `certificate` and `key` is given.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if only one of certificate and key is given."""
        if (self.certificate is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.key else ("certificate", "key")
            raise SettingsError(f"{given} is given without {missing}; mTLS needs both")


@dataclass(frozen=True, kw_only=True)
class Security:
    """Security settings of a client, by default plain text without a token.

    Attributes:
        tls: TLS settings; None uses plain text.
        token: Bearer token, sent with every call as `authorization: Bearer …`. A `Path`
            names a file that holds the token. The file is read again when it changes, so
            that tokens can be rotated.
        token_in_plain_text: True to allow the token to leave this machine without TLS, readable
            by anyone on the network path.
    """

    tls: Tls | None = None
    token: str | Path | None = field(default=None, repr=False)
    token_in_plain_text: bool = False
