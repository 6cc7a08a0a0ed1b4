"""Inference server for model bundles over gRPC.

`serve` runs a server until a signal ends it; `Server` runs inside an event loop.
"""

from typing import TYPE_CHECKING, Any

from gpt2flow.server.config.base import parse_address, parse_bytes, parse_endpoint
from gpt2flow.server.config.file import ConfigSource
from gpt2flow.server.config.settings import (
    ConnectionConfig,
    EngineConfig,
    ModelConfig,
    RequestLimits,
    SecurityConfig,
    ServerConfig,
    TelemetryConfig,
)
from gpt2flow.server.errors import BundleError, ConfigError, ServerError, StartupError

if TYPE_CHECKING:
    from gpt2flow.server.app import Server, serve

__all__ = [
    "BundleError",
    "ConfigError",
    "ConfigSource",
    "ConnectionConfig",
    "EngineConfig",
    "ModelConfig",
    "RequestLimits",
    "SecurityConfig",
    "Server",
    "ServerConfig",
    "ServerError",
    "StartupError",
    "TelemetryConfig",
    "parse_address",
    "parse_bytes",
    "parse_endpoint",
    "serve",
]


def __getattr__(name: str) -> Any:
    # The settings import without onnxruntime and gRPC.
    if name in {"Server", "serve"}:
        from gpt2flow.server import app  # noqa: PLC0415 - as above

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
