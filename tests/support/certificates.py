"""Certificate authorities and certificates for tests, in memory and in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

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

_DAY = timedelta(days=1)


@dataclass
class KeyedCertificate:
    """Certificate and its private key."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def chain(self) -> bytes:
        """Certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key(self, passphrase: bytes | None = None) -> bytes:
        """Return the private key as PEM, encrypted if there is a passphrase."""
        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            encryption = BestAvailableEncryption(passphrase)
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


class Authority(KeyedCertificate):
    """Self-signed certificate authority."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # TLS libraries identify authorities by name, so that each needs a name of its own.
        name = f"test CA {x509.random_serial_number():x}"
        super().__init__(_certificate(name[:60], key, [], None), key)

    def issue(
        self, common_name: str | None, *names: str, addresses: Sequence[str] = ()
    ) -> KeyedCertificate:
        """Sign a certificate for DNS names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ip_address(address)) for address in addresses]
        return KeyedCertificate(_certificate(common_name, key, alternatives, self), key)


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


class AuthorityFiles:
    """Authority that writes certificates and keys to a folder.

    Attributes:
        ca: File of its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._authority = Authority()
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(self._authority.chain)

    def pair(self, name: str) -> Pair:
        """Sign a certificate for 127.0.0.1 and a name.

        The name is the common name and a DNS name of the certificate.
        """
        issued = self._authority.issue(name, name, addresses=["127.0.0.1"])
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(issued.chain)
        pair.key.write_bytes(issued.key())
        return pair


def _certificate(
    common_name: str | None,
    key: ec.EllipticCurvePrivateKey,
    alternatives: Sequence[x509.GeneralName],
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
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if alternatives:
        names = x509.SubjectAlternativeName(alternatives)
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer.private if issuer else key, hashes.SHA256())
