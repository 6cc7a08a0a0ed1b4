"""Connection to the gRPC server, and the caller of each call."""

import time
from contextvars import ContextVar
from dataclasses import replace
from typing import Final

import grpc
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from gpt2flow.client import AsyncClient, SettingsError
from gpt2flow.client.call import Metadata
from gpt2flow.client.channel import open_async_channel, open_channel
from gpt2flow.gateway.config import GatewayConfig
from gpt2flow.gateway.errors import GatewayConfigError

# Probes come without a key, so their number must not become load.
_CACHE_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 3.0

_ANY_TOKEN: Final = "of-a-caller"  # noqa: S105 - it is never sent

# What the current request adds to its calls: the caller's token and trace.
CALLER: ContextVar[Metadata] = ContextVar("caller", default=())


class Backend:
    """Connection to the server, for one event loop.

    Args:
        config: Settings of the gateway.

    Raises:
        GatewayConfigError: A setting of the connection is invalid, or the keys of callers would
            travel in plain text.

    Attributes:
        client: Client whose calls are made for the caller of the current request.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._address = config.server
        try:
            # The client gets no token of its own, so it cannot refuse to send one in plain text.
            token_sender = replace(config.security, token=_ANY_TOKEN)
            open_channel(config.server, token_sender).close()
            self.client = AsyncClient(
                config.server,
                timeout=config.request_timeout,
                security=config.security,
                # Whoever called decides whether to try again.
                retry=None,
                metadata=CALLER.get,
            )
            self._channel = open_async_channel(config.server, config.security)
        except SettingsError as error:
            raise GatewayConfigError(str(error)) from error
        self._health = HealthStub(self._channel)
        self._checked_at = float("-inf")
        self._serves = False

    async def aclose(self) -> None:
        """Close the connection, and cancel the calls in flight."""
        await self.client.close()
        await self._channel.close()

    async def serves(self) -> bool:
        """Return whether the server takes requests, checked at most once a second."""
        if time.monotonic() - self._checked_at >= _CACHE_SECONDS:
            # Set first, so that one of several probes at a time asks.
            self._checked_at = time.monotonic()
            serves = await self._check()
            if serves != self._serves:
                structlog.get_logger().info("readiness_changed", serves=serves)
            self._serves = serves
        return self._serves

    async def _check(self) -> bool:
        try:
            answer = await self._health.Check(HealthCheckRequest(), timeout=_CHECK_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)
