"""Serves model bundles over gRPC.

`serve` runs a server until it is told to end; `Server` is the same for use in
an event loop.
"""

from typing import TYPE_CHECKING, Any

from gpt2flow.server.config.settings import (
    ConnectionConfig,
    EngineConfig,
    ModelConfig,
    SecurityConfig,
    ServerConfig,
    TelemetryConfig,
    parse_address,
    parse_bytes,
)
from gpt2flow.server.errors import BundleError, ConfigError, ServerError, StartupError
from gpt2flow.server.limits import RequestLimits

if TYPE_CHECKING:
    from gpt2flow.server.app import Server, serve
    from gpt2flow.server.config.file import ConfigSource

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
    "serve",
]


def __getattr__(name: str) -> Any:
    # onnxruntime and gRPC load when they are needed, not with the settings.
    if name in {"Server", "serve"}:
        from gpt2flow.server import app  # noqa: PLC0415 - as above

        return getattr(app, name)
    if name == "ConfigSource":
        from gpt2flow.server.config.file import ConfigSource  # noqa: PLC0415 - so does pydantic

        return ConfigSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
