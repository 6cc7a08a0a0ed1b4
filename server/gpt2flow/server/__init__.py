"""Serves model bundles over gRPC.

`serve` runs a server until it is told to end; `Server` is the same for use in
an event loop.
"""

from typing import TYPE_CHECKING, Any

from gpt2flow.server.config import (
    EngineConfig,
    ModelConfig,
    SecurityConfig,
    ServerConfig,
    TelemetryConfig,
    parse_address,
    parse_bytes,
)
from gpt2flow.server.errors import BundleError, ConfigError, ServerError, StartupError

if TYPE_CHECKING:
    from gpt2flow.server.app import Server, serve

__all__ = [
    "BundleError",
    "ConfigError",
    "EngineConfig",
    "ModelConfig",
    "SecurityConfig",
    "Server",
    "ServerConfig",
    "ServerError",
    "StartupError",
    "TelemetryConfig",
    "parse_address",
    "parse_bytes",
    "serve",
]


def __getattr__(name: str) -> Any:
    # onnxruntime and gRPC load when they are needed, not with the settings.
    if name in {"Server", "serve"}:
        from gpt2flow.server import app  # noqa: PLC0415 - as above

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
