"""Certificates for tests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from gpt2flow.server import SecurityConfig


@dataclass
class Certified:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def chain(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key(self, passphrase: bytes | None = None) -> bytes:
        how: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            how = BestAvailableEncryption(passphrase)
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


class Authority(Certified):
    """A CA of its own."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # Two of the same name would be taken for one.
        name = f"test CA {x509.random_serial_number():x}"
        super().__init__(_certificate(name[:60], key, [], None), key)

    def issue(self, common_name: str | None, *names: str) -> Certified:
        key = ec.generate_private_key(ec.SECP256R1())
        return Certified(_certificate(common_name, key, names, self), key)


def _certificate(
    common_name: str | None,
    key: ec.EllipticCurvePrivateKey,
    names: Any,
    issuer: Authority | None,
) -> x509.Certificate:
    parts = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    subject, now = x509.Name(parts), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(issuer.private if issuer else key, hashes.SHA256())


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
        """Returns the settings, with or without certificates of clients."""
        if client_ca is not None:
            self.client_ca.write_bytes(client_ca)
            more["tls_client_ca"] = self.client_ca
        return SecurityConfig(tls_certificate=self.chain, tls_key=self.key, **more)

    def connecting(self, client: Certified | None = None) -> Any:
        """Returns how to connect, with the certificate of a client or without."""
        return connecting(self.authority, client)


def connecting(authority: Authority, client: Certified | None = None) -> Any:
    """Returns how to connect with trust in an authority, always by a connection of its own."""
    pair = (None, None) if client is None else (client.key(), client.chain)
    credentials = grpc.ssl_channel_credentials(authority.chain, *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return partial(grpc.aio.secure_channel, credentials=credentials, options=options)
