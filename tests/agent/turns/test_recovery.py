"""Several agent processes on one database, some of which are killed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from tests.support.agent_process import AgentUnderTest
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.shop import (
    AgentProcess,
    CartLine,
    Database,
    ExecutedAction,
    Order,
    OutboxMessage,
    database_url,
)
from gpt2flow.agent.shop import locks as locks_module
from gpt2flow.agent.turns.recovery import Recovery

pytestmark = pytest.mark.process

# Seconds in which the later of two messages could come first.
_TIME_TO_OVERTAKE = 0.3

on_postgresql = pytest.mark.parametrize("shop_url", ["postgresql"], indirect=True)


def query(url: str, statement: Callable[[Database], object]) -> object:
    database = Database.open(database_url(url))
    try:
        return statement(database)
    finally:
        database.close()


def actions(url: str) -> list[str]:
    def read(database: Database) -> list[str]:
        with database.transaction() as db:
            return list(
                db.scalars(select(ExecutedAction.action).order_by(ExecutedAction.created_at))
            )

    result = query(url, read)
    assert isinstance(result, list)
    return result


def count(url: str, table: type[Order | OutboxMessage | CartLine | AgentProcess]) -> int:
    def read(database: Database) -> int:
        with database.transaction() as db:
            return db.scalar(select(func.count()).select_from(table)) or 0

    result = query(url, read)
    assert isinstance(result, int)
    return result


@on_postgresql
def test_processes_have_ids_of_their_own_and_leave_none(shop_url: str) -> None:
    with AgentUnderTest(shop_url) as one, AgentUnderTest(shop_url) as other:
        assert count(shop_url, AgentProcess) == 2
        assert one.handle("s", "1", "hello") == other.handle("t", "1", "hello") == ["greeted"]
    with AgentUnderTest(shop_url):
        # The ended ones are taken over at once; there was nothing to do.
        eventually(lambda: count(shop_url, AgentProcess) == 1)


@on_postgresql
def test_a_process_whose_start_fails_signs_off(shop_url: str) -> None:
    """The database may end between registration and start of the thread."""
    database = Database.open(database_url(shop_url))
    recovery = Recovery(database, "failed", "1", running=set())
    recovery.register()
    assert count(shop_url, AgentProcess) == 1
    recovery.stop()
    assert count(shop_url, AgentProcess) == 0
    database.close()


@on_postgresql
def test_the_turn_of_a_killed_process_ends_elsewhere_before_the_next_message(shop_url: str) -> None:
    with AgentUnderTest(shop_url) as slow, AgentUnderTest(shop_url) as other:
        slow.hold()
        slow.send("s", "1", "a kettle and a lamp")
        eventually(lambda: count(shop_url, CartLine) == 1)
        slow.kill()
        # It would say that there is no kettle if it came before the rest of the first message.
        assert other.handle("s", "2", "no kettle") == ["removed"]
        assert actions(shop_url) == ["add_to_cart", "add_to_cart", "remove_from_cart"]
        # The report of the first message is there too.
        assert other.handle("s", "1", "a kettle and a lamp") == ["added", "added"]
        assert count(shop_url, CartLine) == 1


@on_postgresql
def test_a_session_is_handled_in_order_whoever_takes_its_messages(shop_url: str) -> None:
    with AgentUnderTest(shop_url) as one, AgentUnderTest(shop_url) as other:
        for number in range(4):
            first, second = (one, other) if number % 2 else (other, one)
            first.hold()
            first.send(f"s{number}", "1", "a kettle and a lamp")
            eventually(lambda: count(shop_url, CartLine) == 2 * number + 1)  # noqa: B023
            second.send(f"s{number}", "2", "my cart")
            time.sleep(_TIME_TO_OVERTAKE)
            first.release()
            assert [action["outcome"] for action in first.report()["actions"]] == ["added"] * 2
            shown = second.report()["actions"][0]["messages"][0]["text"]
            assert "kettle" in shown
            assert "lamp" in shown
            assert actions(shop_url)[-3:] == ["add_to_cart", "add_to_cart", "view_cart"]


@on_postgresql
def test_an_order_is_submitted_and_sent_once_by_whoever_goes_on(shop_url: str) -> None:
    with AgentUnderTest(shop_url) as slow, AgentUnderTest(shop_url) as other:
        for number, message in enumerate(
            ["i'm Ann, ann@example.com", "123456", "a kettle to 5 Oak Rd"]
        ):
            other.handle("s", str(number), message)
        slow.hold()
        slow.send("s", "yes", "yes")
        eventually(lambda: count(shop_url, Order) == 1)
        slow.kill()
        assert other.handle("s", "yes", "yes") == ["submitted"]
        assert other.handle("s", "9", "hello") == ["greeted"]
        assert count(shop_url, Order) == 1
        done = actions(shop_url)
        assert done.count("assign_courier") == done.count("send_delivery_details") == 1


@on_postgresql
def test_a_process_of_another_version_starts_unfinished_work_anew(shop_url: str) -> None:
    """Rolling restart: the old version's process ended before its turn."""
    with AgentUnderTest(shop_url) as slow:
        slow.hold()
        slow.send("s", "1", "a kettle and a lamp")
        eventually(lambda: count(shop_url, CartLine) == 1)
        slow.kill()

    def rename(database: Database) -> None:
        with database.engine.begin() as connection:
            connection.execute(text("UPDATE dbos.workflow_status SET application_version = '0'"))
            connection.execute(text("UPDATE agent_processes SET version = '0'"))

    query(shop_url, rename)
    with AgentUnderTest(shop_url) as other:
        eventually(lambda: count(shop_url, CartLine) == 2)
        assert other.handle("s", "1", "a kettle and a lamp") == ["added", "added"]
    assert actions(shop_url) == ["add_to_cart", "add_to_cart"]


def test_an_sqlite_file_is_for_one_agent_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks_module, "_WAIT_SECONDS", 0.2)
    with AgentUnderTest(str(path)) as holder:
        with pytest.raises(DatabaseError, match=r"process id \d+ uses it.* PostgreSQL$"):
            Agent(AgentConfig(database=str(path)))
        holder.kill()
    Agent(AgentConfig(database=str(path))).close()


def test_the_next_agent_waits_for_the_one_before(path: Path) -> None:
    with AgentUnderTest(str(path)) as holder:
        holder.send("s", "1", "hello")
        holder.report()
    with AgentUnderTest(str(path)) as later:
        assert later.handle("s", "1", "hello") == ["greeted"]


def test_an_older_version_s_unfinished_turn_is_started_anew_on_sqlite(path: Path) -> None:
    with AgentUnderTest(str(path)) as slow:
        slow.hold()
        slow.send("s", "1", "a kettle and a lamp")
        eventually(lambda: count(str(path), CartLine) == 1)
        slow.kill()
    engine = Database(database_url(f"{path}-dbos")).engine
    with engine.begin() as connection:
        connection.execute(text("UPDATE workflow_status SET application_version = '0'"))
    engine.dispose()
    with AgentUnderTest(str(path)) as later:
        assert later.handle("s", "2", "my cart") == ["shown"]
    assert actions(str(path)) == ["add_to_cart", "add_to_cart", "view_cart"]
