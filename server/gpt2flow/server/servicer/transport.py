"""Address, credentials and interceptors of a gRPC server, from its settings."""

import contextlib
import os
import socket
import stat
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import grpc

from gpt2flow.server.access.certificates import Certificates, read_certificates
from gpt2flow.server.access.tokens import read_tokens
from gpt2flow.server.access.watched_files import WatchedFiles
from gpt2flow.server.config.settings import SecurityConfig, ServerConfig
from gpt2flow.server.errors import StartupError
from gpt2flow.server.servicer.interceptors import TokenAuthentication

# Time for another server to accept a connection to its Unix socket.
_PROBE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Address that a server listens on.

    Attributes:
        port: The bound port; 0 for a Unix socket.
        path: Path of the Unix socket; None for a port.
        inode: Inode of the Unix socket.
    """

    port: int
    path: Path | None = None
    inode: int = 0

    def remove(self) -> None:
        """Remove the Unix socket, unless it is gone or another server's."""
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                if self.path.lstat().st_ino == self.inode:
                    self.path.unlink()


def listen(
    server: grpc.aio.Server, config: ServerConfig, credentials: grpc.ServerCredentials | None
) -> Listener:
    """Open the port or the Unix socket of a server.

    Raises:
        StartupError: It cannot be opened.
    """
    path = config.socket_path
    try:
        # gRPC reports the reason of a failed bind on standard error only.
        if path is None:
            _check_port(config.host, config.port)
        else:
            _claim_socket(path)
        if credentials is None:
            port = server.add_insecure_port(config.address)
        else:
            port = server.add_secure_port(config.address, credentials)
        return Listener(int(port)) if path is None else Listener(0, path, path.lstat().st_ino)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StartupError(f"cannot listen on {config.address}: {reason}") from error


def _check_port(host: str, port: int) -> None:
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _claim_socket(path: Path) -> None:
    """Remove a dead server's socket, and check that one can be made."""
    with contextlib.suppress(FileNotFoundError):
        # gRPC would replace the socket of a running server without a word.
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "the path exists and is no socket")
        if _is_live(path):
            raise FileExistsError(0, "another process listens there")
        path.unlink()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(os.fspath(path))
    path.unlink()


def _is_live(path: Path) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):  # Its queue of connections is full.
            return True
    return True


@dataclass(frozen=True, slots=True)
class Security:
    """Security of a server.

    Attributes:
        credentials: Credentials of its port; None is plain text.
        interceptors: Interceptors of its RPCs.
    """

    credentials: grpc.ServerCredentials | None = None
    interceptors: list[grpc.aio.ServerInterceptor] = field(default_factory=list)


def make_security(config: SecurityConfig, probes: frozenset[str] = frozenset()) -> Security:
    """Read the files of the settings, which are reloaded when they change.

    Args:
        config: The settings.
        probes: Paths of RPCs, beside health checks, that need no token.

    Raises:
        ConfigError: A file is unusable.
    """
    interceptors: list[grpc.aio.ServerInterceptor] = []
    if config.tokens is not None:
        tokens = WatchedFiles([config.tokens], partial(read_tokens, config.tokens))
        interceptors.append(TokenAuthentication(tokens, probes))
    return Security(_credentials(config), interceptors)


def _credentials(config: SecurityConfig) -> grpc.ServerCredentials | None:
    chain, key, client_ca = config.tls_certificate, config.tls_key, config.tls_client_ca
    if chain is None or key is None:
        return None
    certificates = WatchedFiles(
        [chain, key, *filter(None, [client_ca])],
        partial(read_certificates, chain, key, client_ca),
    )
    # gRPC fetches the configuration before every handshake, in its own threads.
    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificates.get()),
        lambda: _configuration(certificates.get()),
        require_client_authentication=client_ca is not None,
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], certificates.client_ca)
