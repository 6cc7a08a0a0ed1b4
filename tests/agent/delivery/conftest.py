"""Outbox on both databases, and receivers of its messages."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from tests.support.mail_server import MailServer, mail_server
from tests.support.outbox import Outbox
from tests.support.postgresql import DATABASES
from tests.support.shop import Clock
from tests.support.webhook_receiver import WebhookReceiver, webhook_receiver

from gpt2flow.agent.shop import Database


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    """Newly opened shop."""
    shop: Database = request.getfixturevalue(f"{request.param}_shop")
    return shop


@pytest.fixture
def outbox(database: Database, clock: Clock) -> Iterator[Outbox]:
    with capture_logs() as events:
        yield Outbox(database, clock, events)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as receiver:
        yield receiver
        assert not receiver.failures


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server
