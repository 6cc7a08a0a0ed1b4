"""TLS files of a server, and clients that trust them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from tests.support.certificates import Authority, KeyedCertificate

from gpt2flow.server import SecurityConfig


@dataclass
class TlsSite:
    """Directory of a server's certificate and key, signed by an authority."""

    directory: Path
    authority: Authority
    server: KeyedCertificate

    def __post_init__(self) -> None:
        self.chain = self.directory / "server.pem"
        self.key = self.directory / "server.key"
        self.client_ca = self.directory / "ca.pem"
        self.chain.write_bytes(self.server.chain)
        self.key.write_bytes(self.server.key())

    def security(self, client_ca: bytes | None = None, **more: Any) -> SecurityConfig:
        """Return the settings; with `client_ca`, clients must show a certificate."""
        if client_ca is not None:
            self.client_ca.write_bytes(client_ca)
            more["tls_client_ca"] = self.client_ca
        return SecurityConfig(tls_certificate=self.chain, tls_key=self.key, **more)

    def connector(self, client: KeyedCertificate | None = None) -> Any:
        """Return a function that opens a channel to the server."""
        return connector(self.authority, client)


def connector(authority: Authority, client: KeyedCertificate | None = None) -> Any:
    """Return a function that opens a channel to an address.

    The channel trusts the authority, shows the client's certificate if there is one, and shares
    no connection with other channels.
    """
    pair = (None, None) if client is None else (client.key(), client.chain)
    credentials = grpc.ssl_channel_credentials(authority.chain, *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return partial(grpc.aio.secure_channel, credentials=credentials, options=options)
