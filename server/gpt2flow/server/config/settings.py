"""The server's settings: one frozen object, made at the edge and handed down."""

import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from gpt2flow.server.errors import ConfigError
from gpt2flow.server.limits import RequestLimits

MAX_SEQUENCES = 1024

_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_LOG_FORMATS: Final = ("json", "console")
_ENDPOINT: Final = re.compile(r"https?://[^\s/]+:[0-9]{1,5}/?")

_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How one model is run.

    Attributes:
        threads: Threads that one run of the model uses.
        max_sequences: Slots of the KV cache: sequences that run at the same time.
        kv_cache_memory: Bytes that the KV cache may take; as many slots as fit
            are made, at most `max_sequences`. None is no limit but that.
        max_queued: Requests that may wait for slots; more are refused.
        prefill_chunk: Tokens of a prompt that are run at once. It bounds how
            long a running stream waits for others: one chunk of a prompt, and
            one of what a constraint forced or a preempted request lost.
        speculation: Whether a single stream guesses its next tokens from those before, and has
            the model check them in one run.
        default_max_new_tokens: For requests that do not say.
        max_top_logprobs: Alternatives per position that a request may ask for.
        requests: What else a request may ask for at most.
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_sequences: int = 16
    kv_cache_memory: int | None = field(default=None, metadata={"unit": "bytes"})
    max_queued: int = 256
    prefill_chunk: int = 128
    speculation: bool = True
    default_max_new_tokens: int = 256
    max_top_logprobs: int = 20
    requests: RequestLimits = field(default_factory=RequestLimits)

    def __post_init__(self) -> None:
        """Raise ConfigError when a value is out of its range."""
        _check_range("threads", self.threads, 1, 1024)
        _check_range("max_sequences", self.max_sequences, 1, MAX_SEQUENCES)
        if self.kv_cache_memory is not None:
            _check_range("kv_cache_memory", self.kv_cache_memory, 1, 2**63 - 1)
        _check_range("max_queued", self.max_queued, 0, 1_000_000)
        _check_range("prefill_chunk", self.prefill_chunk, 1, 1_000_000)
        _check_range("default_max_new_tokens", self.default_max_new_tokens, 1, 1_000_000)
        _check_range("max_top_logprobs", self.max_top_logprobs, 0, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model: its bundle, and how it is run.

    Attributes:
        path: Directory of the bundle.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal; another bundle is
            refused. None admits any.
        engine: How it is run.
    """

    path: Path
    fingerprint: str | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        """Raise ConfigError when a value is out of its range."""
        if self.fingerprint is not None and not re.fullmatch("[0-9a-f]{64}", self.fingerprint):
            raise ConfigError(
                f"fingerprint is {self.fingerprint!r}, must be 64 lower-case hexadecimal digits"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """What the server tells about its work, and whom.

    Attributes:
        log_level: The least that is logged: debug, info, warning or error.
        log_format: json, one object a line, or console, for people.
        metrics_address: Host and port where Prometheus may ask; port 0 lets the
            system choose. None is nowhere.
        otlp_endpoint: Where traces go, as `http://host:port`, or https. None is nowhere.
    """

    log_level: str = "info"
    log_format: str = "json"
    metrics_address: tuple[str, int] | None = field(default=None, metadata={"unit": "address"})
    otlp_endpoint: str | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError when a value is not one of those allowed."""
        _check_choice("log_level", self.log_level, _LOG_LEVELS)
        _check_choice("log_format", self.log_format, _LOG_FORMATS)
        if self.metrics_address is not None:
            _check_range("metrics_address port", self.metrics_address[1], 0, 65535)
        if self.otlp_endpoint is not None and not _ENDPOINT.fullmatch(self.otlp_endpoint):
            raise ConfigError(
                f"otlp_endpoint is {self.otlp_endpoint!r}, must be of the form http://host:port "
                "or https://host:port"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """Who may talk to the server, and how.

    Attributes:
        tls_certificate: PEM file: the server's certificate, then those between it and its CA.
        tls_key: PEM file: its private key, without a passphrase.
        tls_client_ca: PEM file: a client must show a certificate that one of these signed.
        tokens: TOML file: a client must show one of these tokens.
        insecure: Whether plain text is served on addresses that others can reach.
    """

    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError when one setting lacks another or contradicts it."""
        if self.tls_certificate and not self.tls_key:
            raise ConfigError("--tls-certificate needs --tls-key")
        if self.tls_key and not self.tls_certificate:
            raise ConfigError("--tls-key needs --tls-certificate")
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigError("--tls-client-ca needs --tls-certificate and --tls-key")
        if self.insecure and self.tls_certificate:
            raise ConfigError(
                "--insecure is plain text, --tls-certificate is TLS: give one of them"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """How long connections live, and how those are found whose client is gone without a word.

    Attributes:
        keepalive_seconds: Without traffic for so long, the client is asked whether it is there.
        keepalive_timeout_seconds: A client that has not answered by then is gone, and so
            is a new one that has not begun.
        max_age_seconds: Older connections are told to begin anew, so that a load balancer can
            spread them; what runs on them goes on. None lets them live.
    """

    keepalive_seconds: float = 30.0
    keepalive_timeout_seconds: float = 10.0
    max_age_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError when a value is out of its range."""
        _check_range("keepalive_seconds", self.keepalive_seconds, 0.1, 86400)
        _check_range("keepalive_timeout_seconds", self.keepalive_timeout_seconds, 0.1, 3600)
        if self.max_age_seconds is not None:
            _check_range("max_age_seconds", self.max_age_seconds, 1, 30 * 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What is served, and where.

    Attributes:
        models: Bundles by the model's name; the first is the default. A path alone is run as
            `engine` says.
        host: Name or address to listen on.
        port: 0 lets the system choose.
        engine: How models are run that do not say; each gets an engine of its own.
        drain_seconds: How long running requests may go on after SIGTERM, and on a model that is
            replaced or unloaded.
        connections: How long connections live.
        telemetry: What is logged, counted and traced.
        security: Who may talk to the server, and how.
    """

    models: Mapping[str, Path | ModelConfig]
    host: str = "127.0.0.1"
    port: int = 50051
    engine: EngineConfig = field(default_factory=EngineConfig)
    drain_seconds: float = 30.0
    connections: ConnectionConfig = field(default_factory=ConnectionConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)

    def __post_init__(self) -> None:
        """Raise ConfigError when a value is out of its range."""
        if not self.models:
            raise ConfigError("no model given")
        if "" in self.models:
            raise ConfigError("a model needs a name")
        _check_range("port", self.port, 0, 65535)
        _check_range("drain_seconds", self.drain_seconds, 0, 86400)
        plain = self.security.tls_certificate is None and not self.security.insecure
        if plain and not is_loopback(self.host):
            raise ConfigError(
                f"plain text on {self.host!r} can be read and changed by others: give "
                "--tls-certificate and --tls-key, listen on 127.0.0.1, or say --insecure"
            )

    @property
    def model_configs(self) -> dict[str, ModelConfig]:
        """The models by name, each with all of its settings."""
        return {
            name: ModelConfig(path=model, engine=self.engine) if isinstance(model, Path) else model
            for name, model in self.models.items()
        }

    @property
    def address(self) -> str:
        """Host and port as gRPC takes them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host; of names, only `localhost` is known."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(address: str, field: str = "address") -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets.

    Args:
        address: What a user gave.
        field: What they gave it for.

    Raises:
        ConfigError: It has another form.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ConfigError(f"{field} {address!r} is not of the form host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_bytes(field: str, text: str) -> int:
    """Read an amount of memory: `1000000`, `512MB` (10^6), `1.5 GiB` (2^30).

    Raises:
        ConfigError: It has another form.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ConfigError(
            f"{field} is {text!r}, must be a number of bytes or of KB, MB, GB, KiB, MiB or GiB"
        )
    return int(Decimal(match[1]) * _UNITS[match[2]])


def _check_choice(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, must be one of {', '.join(allowed)}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}, must be in [{low}, {high}]")
