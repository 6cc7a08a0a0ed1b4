"""TLS files, validated before a port opens with them."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from gpt2flow.server.access.watched_files import WatchedFiles
from gpt2flow.server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Certificates:
    """Certificates and key of a TLS server, in PEM.

    Attributes:
        chain: Certificate of the server, then those between it and its CA.
        key: Private key of the server.
        client_ca: CAs whose certificates clients must present; None requires none.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


def watched_tls(options: tuple[str, str], chain: Path, key: Path) -> Callable[[], ssl.SSLContext]:
    """Return TLS settings that follow their files, for an HTTPS server.

    Args:
        options: Options that name the two files, for errors.
        chain: Certificate of the server, then those between it and its CA.
        key: Private key of the server.

    Raises:
        ConfigError: A file is unusable.
    """

    def load() -> ssl.SSLContext:
        _check_certificates(options[0], chain, _read(options[0], chain))
        return _check_pair(options[1], chain, key)

    return WatchedFiles([chain, key], load).get


def read_certificates(chain: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Read and validate certificate, key and CA.

    Raises:
        ConfigError: A file is unreadable or invalid, or the key belongs to another certificate.
    """
    content = Certificates(
        _read("--tls-certificate", chain),
        _read("--tls-key", key),
        None if client_ca is None else _read("--tls-client-ca", client_ca),
    )
    _check_certificates("--tls-certificate", chain, content.chain)
    if client_ca and content.client_ca is not None:
        _check_certificates("--tls-client-ca", client_ca, content.client_ca)
    _check_pair("--tls-key", chain, key)
    return content


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from error


def _check_certificates(option: str, path: Path, content: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{option} {path}: holds no certificate in PEM format") from error


def _check_pair(option: str, chain: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS settings of a server with this certificate and key."""

    def refuse_passphrase() -> NoReturn:
        raise ConfigError(f"{option} {key}: has a passphrase; give a key without one")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a callback, OpenSSL would ask the terminal for the passphrase.
        context.load_cert_chain(chain, key, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{option} {key}: is not the key of {chain}") from error
        raise ConfigError(f"{option} {key}: holds no private key in PEM format") from error
    except OSError as error:
        raise ConfigError(f"{option} {key}: {error.strerror}") from error
    return context
