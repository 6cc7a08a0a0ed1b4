"""Serving of a website: its files, its server, and its end."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from gpt2flow.web.asgi import HttpServer, server_config
from gpt2flow.web.website.config import WebsiteConfig
from gpt2flow.web.website.requests import PageNotFound

PLAIN_HTTP: Final = (
    "customers' data could be read on the way; give --https-certificate and --https-key"
)
"""Remedy for an address that other machines can reach, without TLS."""
_TYPES: Final[Mapping[str, str]] = {".css": "text/css", ".js": "text/javascript"}
# A browser asks again after this time, which a new release may wait for.
_FILE_SECONDS: Final = 600
_KEEP_ALIVE_SECONDS: Final = 30
# Time for browsers to accept the last answers.
_FLUSH_SECONDS: Final = 5


def serving_files(folders: Sequence[Path]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of the files that pages load, by `name`.

    Args:
        folders: Folders of style sheets and scripts; the first that has a file counts.
    """

    async def serve_file(request: Request) -> Response:
        name = Path(request.path_params["name"]).name
        for folder in folders:
            path = folder / name
            if path.suffix in _TYPES and path.is_file():
                return FileResponse(
                    path,
                    media_type=_TYPES[path.suffix],
                    headers={"Cache-Control": f"max-age={_FILE_SECONDS}"},
                )
        raise PageNotFound

    return serve_file


async def report_health(_request: Request) -> Response:
    """Answer while the process is alive."""
    return PlainTextResponse("ok\n")


async def report_defect(_request: Request, _error: Exception) -> Response:
    """Answer a request that failed through a defect, which the server logs."""
    return PlainTextResponse("internal error; the log has its traceback\n", 500)


def website_server(app: ASGIApp, config: WebsiteConfig) -> HttpServer:
    """Return the server of a website."""
    return HttpServer(
        server_config(
            app,
            max_connections=config.max_connections,
            keep_alive_seconds=_KEEP_ALIVE_SECONDS,
            shutdown_seconds=_FLUSH_SECONDS,
            ssl_certfile=config.https_certificate,
            ssl_keyfile=config.https_key,
        )
    )


async def serve_until_signal(
    server: HttpServer, bound: socket.socket, on_ready: Callable[[int], None] | None
) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT.

    Args:
        server: Server of the website.
        bound: Bound socket.
        on_ready: Function that is called with the port once requests are accepted.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await server.start(bound)
    try:
        structlog.get_logger().info("ready", host=bound.getsockname()[0], port=port)
        if on_ready is not None:
            on_ready(port)
        await stop.wait()
    finally:
        await server.stop()
