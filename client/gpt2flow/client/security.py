"""Security settings of a connection: TLS and bearer token."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from gpt2flow.client import validation
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
        SettingsError: Only one of `certificate` and `key` is given, or a value is no path.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if a value is invalid."""
        for name in ("ca", "certificate", "key"):
            if (path := getattr(self, name)) is not None:
                validation.check_type(name, path, (str, PathLike), "a path or None")
                object.__setattr__(self, name, Path(path))
        if self.server_name is not None:
            validation.text("server_name", self.server_name)
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

    Raises:
        SettingsError: A value is of another type.
    """

    tls: Tls | None = None
    token: str | Path | None = field(default=None, repr=False)
    token_in_plain_text: bool = False

    def __post_init__(self) -> None:
        """Raise SettingsError if a value is of another type."""
        if self.tls is not None:
            validation.check_type("tls", self.tls, (Tls,), "Tls or None")
        if self.token is not None and not isinstance(self.token, str | Path):
            # The message does not show the value, which may be a secret.
            kind = type(self.token).__name__
            raise SettingsError(f"token is of type {kind}, must be text, a Path or None")
        validation.boolean("token_in_plain_text", self.token_in_plain_text)
