"""HTTP endpoint as a server of one event loop: start, drain, end."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.routes import Services, build_app
from gpt2flow.agent.net.asgi import server_config

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
        self._server = _HttpServer(
            server_config(
                build_app(config, services),
                max_connections=config.max_connections,
                keep_alive_seconds=_KEEP_ALIVE_SECONDS,
                shutdown_seconds=_FLUSH_SECONDS,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self, bound: socket.socket) -> int:
        """Listen on a bound socket, and return its port."""
        port: int = bound.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            listening.cancel()
            await self._serving
        return port

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
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


class _HttpServer(uvicorn.Server):
    """Server that leaves signals to the process, and reports when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then report it."""
        await super().startup(sockets)
        self.listening.set()
