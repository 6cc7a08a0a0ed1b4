"""Servers and request bodies of the HTTP services."""

import asyncio

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp


class BodyTooLargeError(Exception):
    """Body of a request with more bytes than the limit."""


def server_config(
    app: ASGIApp, *, max_connections: int, keep_alive_seconds: int, shutdown_seconds: int
) -> uvicorn.Config:
    """Return the settings of a server without a log of its own.

    Args:
        app: Application to serve.
        max_connections: Most open connections.
        keep_alive_seconds: Time after which an idle connection is closed.
        shutdown_seconds: Time for clients to accept the last answers.
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
    )


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
