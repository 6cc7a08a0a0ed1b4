"""Credentials and interceptors of a gRPC server, from its security settings."""

from dataclasses import dataclass, field
from functools import partial

import grpc

from gpt2flow.server.access.certificates import Certificates, read_certificates
from gpt2flow.server.access.tokens import read_tokens
from gpt2flow.server.access.watched_files import WatchedFiles
from gpt2flow.server.config.settings import SecurityConfig
from gpt2flow.server.servicer.interceptors import TokenAuthentication


@dataclass(frozen=True, slots=True)
class Security:
    """Security of a server.

    Attributes:
        credentials: Credentials of its port; None is plain text.
        interceptors: Interceptors of its RPCs.
    """

    credentials: grpc.ServerCredentials | None = None
    interceptors: list[grpc.aio.ServerInterceptor] = field(default_factory=list)


def make_security(config: SecurityConfig) -> Security:
    """Read the files of the settings, which are reloaded when they change.

    Raises:
        ConfigError: A file is unusable.
    """
    interceptors: list[grpc.aio.ServerInterceptor] = []
    if config.tokens is not None:
        tokens = WatchedFiles([config.tokens], partial(read_tokens, config.tokens))
        interceptors.append(TokenAuthentication(tokens))
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
