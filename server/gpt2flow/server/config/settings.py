"""Settings of the server, one frozen object that is passed down."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from gpt2flow.server.config.base import (
    UNIX,
    Address,
    ByteCount,
    ChoiceFiles,
    FilePath,
    Settings,
    conflict,
    setting,
)
from gpt2flow.server.config.cpu_limit import cpu_limit

MAX_SEQUENCES: Final = 1024

_MOST: Final = 2**31 - 1
_MAX_THREADS: Final = 1024
_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")
_ENDPOINT: Final = re.compile(r"https?://[^\s/]+:[0-9]{1,5}/?")


def _check_fingerprint(value: str | None) -> str | None:
    if value is not None and not _FINGERPRINT.fullmatch(value):
        raise PydanticCustomError("format", "must be 64 lower-case hexadecimal digits")
    return value


def _check_endpoint(value: str | None) -> str | None:
    if value is not None and not _ENDPOINT.fullmatch(value):
        raise PydanticCustomError(
            "format", "must be of the form http://host:port or https://host:port"
        )
    return value


class RequestLimits(Settings):
    """Limits of a request; sizes of text are bytes of UTF-8."""

    message_bytes: ByteCount = setting(
        4 * 2**20,
        "Largest request message, in bytes or text such as 4MiB.",
        low=1,
        high=_MOST,
        option="--max-message-size",
    )
    tokenize_bytes: ByteCount = setting(
        128 * 2**10,
        "Largest text of a Tokenize call, and of a prompt to truncate, in bytes or text such as "
        "128KiB; most ids of a Detokenize call.",
        low=1,
        high=_MOST,
        option="--max-tokenize-size",
    )
    prompts: int = setting(256, "Most prompts per unary call.", low=1, high=_MOST)
    continuations: int = setting(1024, "Most continuations per Score call.", low=1, high=_MOST)
    beams: int = setting(
        1024, "Most beams per request; never more than max_sequences.", low=1, high=_MOST
    )
    candidates: int = setting(
        1024, "Most candidates (n) per request; never more than max_sequences.", low=1, high=_MOST
    )
    stop_strings: int = setting(32, "Most stop strings per request.", low=1, high=_MOST)
    stop_string_bytes: int = setting(1024, "Longest stop string, in bytes.", low=1, high=_MOST)
    stop_token_ids: int = setting(1024, "Most stop token ids per request.", low=1, high=_MOST)
    bad_words: int = setting(256, "Most bad words per request.", low=1, high=_MOST)
    bad_word_bytes: int = setting(1024, "Longest bad word, in bytes.", low=1, high=_MOST)
    logit_biases: int = setting(1024, "Most logit biases per request.", low=1, high=_MOST)
    choices: int = setting(4096, "Most choices of a constraint.", low=1, high=_MOST)
    constraint_bytes: ByteCount = setting(
        256 * 2**10,
        "Largest constraint source, in bytes or text such as 256KiB; choices count together.",
        low=1,
        high=_MOST,
        option="--max-constraint-size",
    )
    grammar_seconds: float = setting(
        2.0,
        "Most processor time to compile a constraint, in seconds.",
        low=0.01,
        high=3600,
        option="--grammar-seconds",
    )


class EngineConfig(Settings):
    """Settings of one model's engine."""

    threads: int = setting(
        lambda: min(cpu_limit().threads, _MAX_THREADS),
        "Threads per run of the model.",
        low=1,
        high=_MAX_THREADS,
        shown="the processors of the affinity and the cgroup's quota",
    )
    kernels: str | None = setting(
        None,
        "Kernels of the operators, such as avx512 or onnxruntime.",
        shown="the fastest",
    )
    max_sequences: int = setting(
        16, "Slots of the KV cache: sequences that run at once.", low=1, high=MAX_SEQUENCES
    )
    context_length: int | None = setting(
        None,
        "Most tokens of prompt and output together; fewer than the model's context save memory.",
        low=4,
        high=_MOST,
        shown="the model's context",
    )
    kv_cache_memory: ByteCount | None = setting(
        None,
        "Memory of the KV cache, in bytes or text such as 512MB; fewer slots are made to fit.",
        low=1,
        high=2**63 - 1,
    )
    max_queued: int = setting(
        256, "Queue capacity: requests that may wait for slots.", low=0, high=1_000_000
    )
    prefill_chunk: int = setting(
        128,
        "Tokens of prompts, forced tokens and drafts per run, beside one token of each stream.",
        low=1,
        high=1_000_000,
    )
    speculation: bool = setting(
        True,  # noqa: FBT003 - the value of a setting
        "Speculative decoding by prompt lookup, where it pays.",
    )
    default_max_new_tokens: int = setting(
        256,
        "max_new_tokens of requests that set none.",
        low=1,
        high=1_000_000,
        option="--max-new-tokens",
    )
    max_top_logprobs: int = setting(
        20, "Most alternatives (top_logprobs) per position.", low=0, high=1000
    )
    choices: ChoiceFiles = setting(
        dict,
        "NAME=FILE of a list of choices, one a line, for constraints by its name; may repeat.",
    )
    requests: RequestLimits = setting(RequestLimits, "Limits of one request.")


class ModelConfig(Settings):
    """One model: its bundle, and how it is run."""

    path: FilePath = setting(..., "Directory of the bundle.")
    fingerprint: Annotated[str | None, AfterValidator(_check_fingerprint)] = setting(
        None, "SHA-256 of the bundle's manifest.json; any other bundle is refused."
    )
    engine: EngineConfig = setting(EngineConfig, "How the model is run.")


class ConnectionConfig(Settings):
    """Lifetime of connections, and the detection of clients that vanished."""

    keepalive_seconds: float = setting(
        30.0, "Idle time after which the server pings a client, in seconds.", low=0.1, high=86400
    )
    keepalive_timeout_seconds: float = setting(
        10.0,
        "Time for a client to answer a ping, or to finish connecting, in seconds.",
        low=0.1,
        high=3600,
    )
    max_age_seconds: float | None = setting(
        None,
        "Age at which a connection is asked to reconnect, in seconds; its calls go on.",
        low=1,
        high=30 * 86400,
        option="--max-connection-age-seconds",
    )


class TelemetryConfig(Settings):
    """Logs, metrics and traces."""

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least severe level that is logged: debug, info, warning or error."
    )
    log_format: Literal["json", "console"] = setting(
        "json", "json (one object a line) or console (for people)."
    )
    metrics_address: Address | None = setting(
        None,
        "host:port of the Prometheus endpoint, without access control; port 0 picks a free one.",
    )
    metrics_tls: bool = setting(
        False,  # noqa: FBT003 - the value of a setting
        "Serve the metrics by HTTPS, with the certificate of the server.",
    )
    metrics_tls_certificate: FilePath | None = setting(
        None, "PEM file: certificate of the Prometheus endpoint, if it has one of its own."
    )
    metrics_tls_key: FilePath | None = setting(
        None, "PEM file: private key of that certificate, without a passphrase."
    )
    otlp_endpoint: Annotated[str | None, AfterValidator(_check_endpoint)] = setting(
        None, "OpenTelemetry collector of traces: an http:// or https:// URL."
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        certificate, key = self.metrics_tls_certificate, self.metrics_tls_key
        if certificate and not key:
            raise conflict("--metrics-tls-certificate needs --metrics-tls-key")
        if key and not certificate:
            raise conflict("--metrics-tls-key needs --metrics-tls-certificate")
        if self.metrics_tls and certificate:
            raise conflict(
                "--metrics-tls uses --tls-certificate, --metrics-tls-certificate is another one: "
                "give one of them"
            )
        if certificate and self.metrics_address is None:
            raise conflict("--metrics-tls-certificate needs --metrics-address")
        if self.metrics_tls and self.metrics_address is None:
            raise conflict("--metrics-tls needs --metrics-address")
        return self


class SecurityConfig(Settings):
    """Transport security and authentication."""

    tls_certificate: FilePath | None = setting(
        None, "PEM file: certificate of the server, then those between it and its CA."
    )
    tls_key: FilePath | None = setting(
        None, "PEM file: private key of the server, without a passphrase."
    )
    tls_client_ca: FilePath | None = setting(
        None, "PEM file: CAs whose client certificates are accepted; clients must present one."
    )
    tokens: FilePath | None = setting(
        None, "TOML file: bearer tokens that are accepted; clients must send one."
    )
    model_control: bool = setting(
        False,  # noqa: FBT003 - the value of a setting
        "Let clients without a token load and unload models; tokens need manage_models.",
    )
    insecure: bool = setting(
        False,  # noqa: FBT003 - the value of a setting
        "Serve plain text on addresses that others can reach.",
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.tls_certificate and not self.tls_key:
            raise conflict("--tls-certificate needs --tls-key")
        if self.tls_key and not self.tls_certificate:
            raise conflict("--tls-key needs --tls-certificate")
        if self.tls_client_ca and not self.tls_certificate:
            raise conflict("--tls-client-ca needs --tls-certificate and --tls-key")
        if self.insecure and self.tls_certificate:
            raise conflict("--insecure is plain text, --tls-certificate is TLS: give one of them")
        return self


class ServerConfig(Settings):
    """Settings of the whole server.

    A model given by its path alone is run as `engine` says; each model has an engine of its own.
    """

    models: Mapping[str, Path | ModelConfig] = setting(
        ..., "Bundles by the name of the model; the first is the default."
    )
    host: str = setting("127.0.0.1", "Name or address to listen on, or unix:PATH.")
    port: int = setting(
        50051, "Port to listen on; 0 picks a free one. Unix sockets have none.", low=0, high=65535
    )
    engine: EngineConfig = setting(EngineConfig, "How models are run that set nothing else.")
    drain_seconds: float = setting(
        30.0,
        "Time for running requests after SIGTERM, or on a replaced model, in seconds.",
        low=0,
        high=86400,
    )
    connections: ConnectionConfig = setting(ConnectionConfig, "Lifetime of connections.")
    telemetry: TelemetryConfig = setting(TelemetryConfig, "Logs, metrics and traces.")
    security: SecurityConfig = setting(SecurityConfig, "Transport security and authentication.")

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if not self.models:
            raise conflict("no model given")
        if "" in self.models:
            raise conflict("a model needs a name")
        if self.host == UNIX:
            raise conflict(f"the address {UNIX!r} has no path, must be {UNIX}PATH")
        if self.telemetry.metrics_tls and self.security.tls_certificate is None:
            raise conflict("--metrics-tls needs --tls-certificate and --tls-key")
        plain = self.security.tls_certificate is None and not self.security.insecure
        if plain and self.socket_path is None and not is_loopback(self.host):
            raise conflict(
                f"plain text on {self.host!r} can be read and changed by others: give "
                "--tls-certificate and --tls-key, listen on 127.0.0.1, or say --insecure"
            )
        return self

    @property
    def model_configs(self) -> dict[str, ModelConfig]:
        """Models by name, each with all of its settings."""
        return {
            name: ModelConfig(path=model, engine=self.engine) if isinstance(model, Path) else model
            for name, model in self.models.items()
        }

    @property
    def socket_path(self) -> Path | None:
        """Path of the Unix socket to listen on; None for a port."""
        if not self.host.startswith(UNIX):
            return None
        path = self.host.removeprefix(UNIX)
        # gRPC's other form is a URI without an authority.
        return Path(path.removeprefix("//") if path.startswith("///") else path)

    @property
    def address(self) -> str:
        """Host and port, or the Unix socket, as gRPC takes them."""
        if self.socket_path is not None:
            return f"{UNIX}{self.socket_path}".replace("%", "%25")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host.

    Of names, only `localhost` counts.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
