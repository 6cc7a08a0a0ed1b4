"""Process of the console: port, signals, end."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import structlog

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.staff import People
from gpt2flow.agent.config import Clock, utc_now
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.net.addresses import bind
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.console.app import build_app
from gpt2flow.console.config import ConsoleConfig
from gpt2flow.console.pages.rendering import console_templates
from gpt2flow.console.pages.site import Site
from gpt2flow.web.asgi import HttpServer
from gpt2flow.web.log import logging_to_stderr
from gpt2flow.web.website.serving import PLAIN_HTTP, serve_until_signal, website_server
from gpt2flow.web.website.sessions import Sessions


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
        remedy = None if config.is_https else PLAIN_HTTP
        bound = bind(config.address, "address", remedy=remedy)
        resources.callback(bound.close)
        resources.enter_context(logging_to_stderr(config.log_format))
        asyncio.run(serve_until_signal(new_server(site), bound, on_ready))
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
            templates=console_templates(),
        )


def new_server(site: Site) -> HttpServer:
    """Return the server of a console."""
    return website_server(build_app(site), site.config)
