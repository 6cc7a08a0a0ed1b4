"""How a connection is protected: TLS, and the token that says who calls."""

from dataclasses import dataclass, field
from pathlib import Path

from gpt2flow.client.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Encrypts the connection; all files are PEM and are read when the client is made.

    Attributes:
        ca: Certificates that the server's must be signed by; None takes those that come
            with gRPC.
        certificate: The client's own, with its chain, where the server asks for one (mTLS).
        key: The private key of `certificate`.
        server_name: The name that the server's certificate must have instead of the
            address's, for tests and tunnels.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError for half a pair."""
        if (self.certificate is None) != (self.key is None):
            given, lacking = ("key", "certificate") if self.key else ("certificate", "key")
            raise SettingsError(f"{given} is given without {lacking}; mTLS needs both")


@dataclass(frozen=True, kw_only=True)
class Security:
    """Protects the connection of a client; the default is plain text without a token.

    Attributes:
        tls: None is plain text.
        token: Sent with every call as `authorization: Bearer …`. A path is a file with it,
            which is read again whenever it changes, so that tokens can be rotated.
        token_in_plain_text: Whether the token may leave this machine without TLS, where
            everybody on the way can read it.
    """

    tls: Tls | None = None
    token: str | Path | None = field(default=None, repr=False)
    token_in_plain_text: bool = False
