"""Process of the console: port, signals, end."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import structlog

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.config import Clock, utc_now
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.net.addresses import bind
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.console.access.people import People
from gpt2flow.console.access.sessions import Sessions
from gpt2flow.console.app import build_app
from gpt2flow.console.config import ConsoleConfig
from gpt2flow.console.pages.rendering import new_templates
from gpt2flow.console.pages.site import Site
from gpt2flow.web.asgi import HttpServer, server_config
from gpt2flow.web.log import logging_to_stderr

_REMEDY: Final = (
    "customers' data could be read on the way; give --https-certificate and --https-key"
)
_KEEP_ALIVE_SECONDS: Final = 30
# Time for browsers to accept the last answers.
_FLUSH_SECONDS: Final = 5


def serve(
    config: ConsoleConfig,
    *,
    on_ready: Callable[[int], None] | None = None,
    clock: Clock = utc_now,
) -> None:
    """Serve the console until SIGTERM or SIGINT.

    Args:
        config: Settings of the console.
        on_ready: Function that is called with the port once requests are accepted.
        clock: Source of the current time.

    Raises:
        InputError: A setting, the database, a flow or the file of tokens is invalid.
        ListenError: The port cannot be bound.
        DatabaseError: The database cannot be opened.
    """
    with ExitStack() as resources:
        site = resources.enter_context(open_site(config, clock))
        remedy = None if config.is_https else _REMEDY
        bound = bind(config.address, "address", remedy=remedy)
        resources.callback(bound.close)
        resources.enter_context(logging_to_stderr(config.log_format))
        asyncio.run(_run(site, bound, on_ready))
        structlog.get_logger().info("stopped")


@contextmanager
def open_site(config: ConsoleConfig, clock: Clock = utc_now) -> Iterator[Site]:
    """Open the parts of a console until the block ends.

    Args:
        config: Settings of the console.
        clock: Source of the current time.

    Raises:
        InputError: The database, a flow or the file of tokens is invalid.
        DatabaseError: The database cannot be opened.
    """
    with ExitStack() as resources:
        people = People(config.tokens, clock)
        book = load_flows(config.flows)
        url = database_url(config.database)
        database = Database.open_existing(url)
        resources.callback(database.close)
        reader = ShopReader(url)
        resources.callback(reader.close)
        yield Site(
            config=config,
            people=people,
            sessions=Sessions(config.session_hours * 3600),
            desk=Desk(book, database, clock),
            reader=reader,
            book=book,
            clock=clock,
            templates=new_templates(),
        )


async def _run(site: Site, bound: socket.socket, on_ready: Callable[[int], None] | None) -> None:
    """Serve on a bound socket until a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = new_server(site)
    port = await server.start(bound)
    try:
        structlog.get_logger().info("ready", host=bound.getsockname()[0], port=port)
        if on_ready is not None:
            on_ready(port)
        await stop.wait()
    finally:
        await server.stop()


def new_server(site: Site) -> HttpServer:
    """Return the server of a console."""
    config = site.config
    return HttpServer(
        server_config(
            build_app(site),
            max_connections=config.max_connections,
            keep_alive_seconds=_KEEP_ALIVE_SECONDS,
            shutdown_seconds=_FLUSH_SECONDS,
            ssl_certfile=config.https_certificate,
            ssl_keyfile=config.https_key,
        )
    )
