"""HTTP endpoint as a server of one event loop: start, drain, end."""

import asyncio
import socket

import structlog

from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.routes import Services, build_app
from gpt2flow.web.asgi import HttpServer, server_config

# Time for callers to accept the last answers.
_FLUSH_SECONDS = 5
_KEEP_ALIVE_SECONDS = 30


class Endpoint:
    """HTTP endpoint of an agent, for one event loop.

    Args:
        config: Settings of the endpoint.
        services: Parts that the routes call.
    """

    def __init__(self, config: HttpConfig, services: Services) -> None:
        self._config = config
        self._turns = services.turns
        services.metrics.observe_queue(lambda: self._turns.running, lambda: self._turns.waiting)
        self._server = HttpServer(
            server_config(
                build_app(config, services),
                max_connections=config.max_connections,
                keep_alive_seconds=_KEEP_ALIVE_SECONDS,
                shutdown_seconds=_FLUSH_SECONDS,
            )
        )

    async def start(self, bound: socket.socket) -> int:
        """Listen on a bound socket, and return its port."""
        return await self._server.start(bound)

    async def drain(self, abort: asyncio.Event) -> None:
        """Refuse new messages, and wait for the accepted ones.

        Args:
            abort: Event that ends the wait.
        """
        self._turns.close()
        log = structlog.get_logger()
        log.info("draining", seconds=self._config.drain_seconds, turns=len(self._turns))
        finished = asyncio.create_task(self._turns.finished())
        aborted = asyncio.create_task(abort.wait())
        await asyncio.wait(
            {finished, aborted},
            timeout=self._config.drain_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        finished.cancel()
        aborted.cancel()
        if abandoned := self._turns.abandon():
            log.warning("turns_abandoned", turns=abandoned)

    async def close(self) -> None:
        """Answer the requests that still wait, and close the port."""
        self._turns.close()
        self._turns.abandon()
        await self._server.stop()
