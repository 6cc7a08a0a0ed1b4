"""Servers of ASGI applications, and bodies of their requests."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp


class BodyTooLargeError(Exception):
    """Body of a request with more bytes than the limit."""


def server_config(
    app: ASGIApp,
    *,
    max_connections: int,
    keep_alive_seconds: int,
    shutdown_seconds: int,
    **more: Any,
) -> uvicorn.Config:
    """Return the settings of a server without a log of its own.

    Args:
        app: Application to serve.
        max_connections: Most open connections.
        keep_alive_seconds: Time after which an idle connection is closed.
        shutdown_seconds: Time for clients to accept the last answers.
        more: Further settings of uvicorn, such as the files of TLS.
    """
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=shutdown_seconds,
        **more,
    )


class HttpServer(uvicorn.Server):
    """Server that leaves signals to the process, and reports when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then report it."""
        await super().startup(sockets)
        self.listening.set()

    async def start(self, bound: socket.socket) -> int:
        """Listen on a bound socket, and return its port."""
        port: int = bound.getsockname()[1]
        self._serving = asyncio.create_task(self.serve(sockets=[bound]))
        listening = asyncio.create_task(self.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            listening.cancel()
            await self._serving
        return port

    async def stop(self) -> None:
        """Close the port, and wait for the last answers."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the body of a request.

    Args:
        request: Request whose body was not read yet.
        limit: Most bytes.
        seconds: Longest time for the body to arrive.

    Raises:
        BodyTooLargeError: The body has, or announces, more bytes.
        TimeoutError: The body did not arrive in time.
        ClientDisconnect: The client left before that.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise BodyTooLargeError
    body = bytearray()
    async with asyncio.timeout(seconds):
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise BodyTooLargeError
    return bytes(body)
