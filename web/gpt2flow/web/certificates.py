"""Certificates of HTTP services, checked before they are used."""

import ssl
from pathlib import Path
from typing import NoReturn


def check_certificate(
    certificate: Path,
    key: Path,
    error: type[Exception],
    *,
    names: tuple[str, str] = ("https_certificate", "https_key"),
) -> None:
    """Check that a server can use a certificate and its key.

    Args:
        certificate: PEM file of the certificate, then those between it and its CA.
        key: PEM file of the private key, without a passphrase.
        error: Class of the error to raise.
        names: Names of the two settings, for the error.

    Raises:
        error: A file is unreadable or holds something else, or the two differ.
    """
    certificate_name, key_name = names

    def refuse_passphrase() -> NoReturn:
        raise error(f"{key_name} {key}: has a passphrase; give a key without one")

    for name, path in ((certificate_name, certificate), (key_name, key)):
        try:
            path.read_bytes()
        except OSError as cause:
            raise error(f"{name} {path}: {cause.strerror}") from cause
    try:
        # Without a callback, OpenSSL would ask the terminal for the passphrase.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, refuse_passphrase)
    except ssl.SSLError as cause:
        raise error(
            f"{certificate_name} {certificate} and {key_name} {key}: are no certificate and private"
            " key in PEM format that belong together"
        ) from cause
