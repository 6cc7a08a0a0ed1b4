"""Console on PostgreSQL, whose order and comparison of texts differ from SQLite's."""

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update
from tests.support.console import Tokens, plain_text, running_console
from tests.support.desk import hand_over, large_refund
from tests.support.shop import CODE, Clock, Shop

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import Database, ModelCall, database_url
from gpt2flow.agent.shop.tables.records import turn_prefix
from gpt2flow.agent.turns.execution import Executor

if TYPE_CHECKING:
    from tests.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.process


def test_every_page_is_that_of_sqlite(
    postgresql: "PostgresqlServer", book: FlowBook, tokens: Tokens
) -> None:
    clock = Clock()
    with postgresql.database() as url:
        database = Database.open(database_url(url))
        shop = Shop(book, database, clock, Executor(book, database, clock, lambda: CODE, 0.5))
        refund, conversation = large_refund(shop), hand_over(shop)
        with database.transaction() as db:
            for session in ("s", "S", "s0"):
                db.add(new_call(shop, session))
        with running_console(url, tokens, clock) as console, console.person("ben") as ben:
            assert refund in ben.read("/")
            assert 'href="/conversations/s"' in ben.read("/conversations?q=HUMAN")
            page = plain_text(ben.read(f"/cases/{conversation}"))
            assert "call of s" in page
            assert "call of S" not in page
            assert "call of s0" not in page
            assert ben.submit(f"/cases/{refund}", "approve").status_code == 303
            with database.transaction() as db:
                db.execute(update(ModelCall).values(confidence=None))
            assert "approved · ben" in plain_text(ben.read(f"/cases/{refund}"))
            assert "request_refund 1" in plain_text(ben.read("/flows"))
        database.close()


def new_call(shop: Shop, session: str) -> ModelCall:
    """Return the record of a call in a session."""
    return ModelCall(
        key=f"{turn_prefix(session)}m/0",
        prompt="",
        constraint="",
        output=f"call of {session} ",
        milliseconds=1.0,
        prompt_tokens=1,
        completion_tokens=1,
        fingerprint="",
        confidence=1.0,
        created_at=shop.clock(),
    )
