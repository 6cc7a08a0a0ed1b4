"""A server's certificates, and clients that trust them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from tests.support.certificates import Authority, Certified

from gpt2flow.server import SecurityConfig


@dataclass
class Site:
    """A server's files, in a directory, and what clients need to trust it."""

    directory: Path
    authority: Authority
    server: Certified

    def __post_init__(self) -> None:
        self.chain = self.directory / "server.pem"
        self.key = self.directory / "server.key"
        self.client_ca = self.directory / "ca.pem"
        self.chain.write_bytes(self.server.chain)
        self.key.write_bytes(self.server.key())

    def security(self, client_ca: bytes | None = None, **more: Any) -> SecurityConfig:
        """Return the settings, with or without certificates of clients."""
        if client_ca is not None:
            self.client_ca.write_bytes(client_ca)
            more["tls_client_ca"] = self.client_ca
        return SecurityConfig(tls_certificate=self.chain, tls_key=self.key, **more)

    def connecting(self, client: Certified | None = None) -> Any:
        """Return how to connect, with the certificate of a client or without."""
        return connecting(self.authority, client)


def connecting(authority: Authority, client: Certified | None = None) -> Any:
    """Return how to connect with trust in an authority, always by a connection of its own."""
    pair = (None, None) if client is None else (client.key(), client.chain)
    credentials = grpc.ssl_channel_credentials(authority.chain, *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return partial(grpc.aio.secure_channel, credentials=credentials, options=options)
