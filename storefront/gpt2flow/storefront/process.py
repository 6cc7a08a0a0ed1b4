"""Process of the storefront: port, signals, end."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import structlog

from gpt2flow.agent.cases.staff import People
from gpt2flow.agent.config import Clock, utc_now
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.net.addresses import bind
from gpt2flow.agent.operations import new_code
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.payments.port import open_payments
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns.execution import check_operations
from gpt2flow.storefront.app import build_app
from gpt2flow.storefront.chat import AgentChat
from gpt2flow.storefront.config import StorefrontConfig
from gpt2flow.storefront.counter import Counter, check_actions
from gpt2flow.storefront.disturbances import Disturber
from gpt2flow.storefront.site.rendering import storefront_templates
from gpt2flow.storefront.site.site import Site
from gpt2flow.web.asgi import HttpServer
from gpt2flow.web.log import logging_to_stderr
from gpt2flow.web.website.serving import PLAIN_HTTP, serve_until_signal, website_server
from gpt2flow.web.website.sessions import Sessions


def serve(
    config: StorefrontConfig,
    *,
    on_ready: Callable[[int], None] | None = None,
    clock: Clock = utc_now,
) -> None:
    """Serve the storefront until SIGTERM or SIGINT.

    Args:
        config: Settings of the storefront.
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
        if config.disturb:
            structlog.get_logger().warning("pages_disturbed", ways=list(config.disturb))
        asyncio.run(serve_until_signal(new_server(site), bound, on_ready))
        structlog.get_logger().info("stopped")


@contextmanager
def open_site(
    config: StorefrontConfig, clock: Clock = utc_now, codes: Callable[[], str] = new_code
) -> Iterator[Site]:
    """Open the parts of a storefront until the block ends.

    Args:
        config: Settings of the storefront.
        clock: Source of the current time.
        codes: Generator of verification codes.

    Raises:
        InputError: The database, a flow or the file of tokens is invalid.
        DatabaseError: The database cannot be opened.
    """
    with ExitStack() as resources:
        people = People(config.tokens, clock)
        book = load_flows(config.flows)
        check_operations(book)
        check_actions(book)
        chat = None
        if config.agent:
            chat = AgentChat(config.agent, config.agent_secret_file, config.chat_seconds)
        port = open_payments(config.payments, config.payments_token_file)
        resources.callback(port.close)
        url = database_url(config.database)
        database = Database.open_existing(url)
        resources.callback(database.close)
        reader = ShopReader(url)
        resources.callback(reader.close)
        payer = Payer(port, database, book.cases, clock)
        yield Site(
            config=config,
            people=people,
            sessions=Sessions(config.session_hours * 3600),
            counter=Counter(book, database, clock, payer, codes),
            database=database,
            reader=reader,
            book=book,
            clock=clock,
            templates=storefront_templates(),
            chat=chat,
            disturber=Disturber(config),
        )


def new_server(site: Site) -> HttpServer:
    """Return the server of a storefront."""
    return website_server(build_app(site), site.config)
