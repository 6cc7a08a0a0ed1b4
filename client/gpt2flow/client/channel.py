"""gRPC channels with the client's security and keepalive settings."""

from ipaddress import ip_address
from pathlib import Path

import grpc

from gpt2flow.client import validation
from gpt2flow.client.addresses import is_one_target
from gpt2flow.client.errors import SettingsError
from gpt2flow.client.keepalive import Keepalive
from gpt2flow.client.security import Security, Tls

_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", 64 << 20),
    # With gRPC's default of two, keepalive pings would stop on a stream that is silent for long.
    ("grpc.http2.max_pings_without_data", 0),
    # The channel reconnects before a call's next attempt. With gRPC's default of one second,
    # several attempts would fail without a new connection. The minimum backoff keeps its
    # default, because it also limits the time to establish a connection.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def open_channel(
    address: str, security: Security, keepalive: Keepalive = Keepalive()
) -> grpc.Channel:
    """Return a synchronous channel to `address`.

    Raises:
        SettingsError: A setting is invalid, a file cannot be read, or the token would be sent in
            plain text.
    """
    credentials, options = _channel_settings(address, security, keepalive)
    if credentials is None:
        return grpc.insecure_channel(_target(address), options=options)
    return grpc.secure_channel(_target(address), credentials, options=options)


def open_async_channel(
    address: str, security: Security, keepalive: Keepalive = Keepalive()
) -> grpc.aio.Channel:
    """Return an asyncio channel to `address`.

    Raises:
        SettingsError: A setting is invalid, a file cannot be read, or the token would be sent in
            plain text.
    """
    credentials, options = _channel_settings(address, security, keepalive)
    if credentials is None:
        return grpc.aio.insecure_channel(_target(address), options=options)
    return grpc.aio.secure_channel(_target(address), credentials, options=options)


def _target(address: str) -> str:
    """Return an address as gRPC takes it."""
    # gRPC decodes percent signs in paths.
    return address.replace("%", "%25") if address.startswith("unix:") else address


def _channel_settings(
    address: str, security: Security, keepalive: Keepalive
) -> tuple[grpc.ChannelCredentials | None, list[tuple[str, int | str]]]:
    """Return the credentials (None for plain text) and the channel options."""
    _check_settings(address, security, keepalive)
    timeout_ms = int(keepalive.timeout * 1000)
    options = [
        *_CHANNEL_OPTIONS,
        ("grpc.keepalive_time_ms", int(keepalive.seconds * 1000)),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        # The default is one minute if the server still sends data but acknowledges no ping.
        ("grpc.http2.ping_timeout_ms", timeout_ms),
    ]
    local = _is_local(address)
    if local:
        # A proxy from the environment would carry local traffic off this machine.
        options.append(("grpc.enable_http_proxy", 0))
    if security.tls is None:
        if security.token is not None and not (local or security.token_in_plain_text):
            raise SettingsError(
                f"the token would be sent to {address} in plain text, readable on the network; "
                "use TLS, or allow it with token_in_plain_text (--insecure)"
            )
        return None, options
    if security.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", security.tls.server_name))
    return _tls_credentials(security.tls), options


def _check_settings(address: object, security: object, keepalive: object) -> None:
    text = validation.text("address", address)
    if not (text and text.isprintable() and is_one_target(text)):
        raise validation.invalid("address", address, "host:port or unix:PATH")
    validation.check_type("security", security, (Security,), "Security")
    validation.check_type("keepalive", keepalive, (Keepalive,), "Keepalive")


def _tls_credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read_pem("ca", tls.ca, "CERTIFICATE"),
        private_key=_read_pem("key", tls.key, "PRIVATE KEY"),
        certificate_chain=_read_pem("certificate", tls.certificate, "CERTIFICATE"),
    )


def _read_pem(field: str, path: Path | None, content: str) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{field}: cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # A path with a null character.
        raise SettingsError(f"{field}: cannot read {str(path)!r}: {error}") from error
    # gRPC would report a wrong file on standard error only, and fail every call.
    if f"{content}-----".encode() not in data:
        raise SettingsError(f"{field}: {path} holds no {content.lower()} in PEM")
    return data


def _is_local(address: str) -> bool:
    """Return whether traffic to `address` stays on this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    target = address.rpartition("/")[2]
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    host = target.rpartition(":")[0] or target
    host = host.removeprefix("[").removesuffix("]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
