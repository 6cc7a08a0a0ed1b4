"""Timers of cases: through restarts, upgrades, failures, and clocks that jump."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dbos import DBOS
from sqlalchemy import select
from tests.support.desk import BEN
from tests.support.scripted_model import Script, ScriptedModel
from tests.support.shop import Clock
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.life import open_case
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseEvent,
    CaseKind,
    CaseStatus,
    Database,
    OutboxMessage,
    database_url,
)

pytestmark = pytest.mark.process

SCRIPT: Script = {"a human please": ["escalate"], "hello": ["greet"]}
REMIND = load_flows().cases.deadlines["open"].remind


@contextmanager
def open_agent(path: Path, clock: Clock) -> Iterator[Agent]:
    with Agent(AgentConfig(database=str(path)), model=ScriptedModel(SCRIPT), clock=clock) as agent:
        yield agent


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database.open(database_url(str(path)))
    yield database
    database.close()


@pytest.fixture
def waiting(path: Path, clock: Clock) -> Path:
    """Shop with a conversation that waits, without an agent."""
    with open_agent(path, clock) as agent:
        agent.handle("s", "a human please")
    return path


def happened(database: Database) -> list[str]:
    """Return the changes of the only case."""
    with database.transaction() as db:
        return list(db.scalars(select(CaseEvent.change).order_by(CaseEvent.id)))


def staff_messages(database: Database) -> int:
    with database.transaction() as db:
        query = select(OutboxMessage).where(OutboxMessage.audience == Audience.STAFF)
        return len(db.scalars(query).all())


def timers() -> int:
    """Return the number of timers that run; needs an open agent."""
    return len(DBOS.list_workflows(name="advance_case", status=["ENQUEUED", "DELAYED", "PENDING"]))


def test_a_case_that_another_program_opened_is_reminded_of(
    path: Path, clock: Clock, database: Database
) -> None:
    """Such as a storefront, which sets no timers."""
    rules = load_flows().cases
    with open_agent(path, clock):
        with database.transaction() as db:
            case = Case(kind=CaseKind.HAND_OVER, status=CaseStatus.OPEN, created_at=clock.now)
            open_case(db, case, rules)
        clock.forward(minutes=REMIND)
        eventually(lambda: happened(database) == ["opened", "reminded"])
        assert staff_messages(database) == 1


def test_a_case_is_reminded_of_after_a_restart(
    waiting: Path, clock: Clock, database: Database
) -> None:
    """No agent ran when its time came."""
    clock.forward(minutes=REMIND)
    with open_agent(waiting, clock):
        eventually(lambda: happened(database) == ["opened", "reminded"])
    assert staff_messages(database) == 1
    clock.forward(days=31)
    with open_agent(waiting, clock):
        eventually(lambda: happened(database) == ["opened", "reminded", "escalated"])
    assert staff_messages(database) == 2


def test_a_case_is_reminded_of_after_an_upgrade(
    path: Path, clock: Clock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflows of another version do not run under this one."""
    monkeypatch.setattr("gpt2flow.agent.turns.durable._VERSION", "before")
    with open_agent(path, clock) as agent:
        agent.handle("s", "a human please")
    monkeypatch.undo()
    clock.forward(minutes=REMIND)
    with open_agent(path, clock):
        eventually(lambda: happened(database) == ["opened", "reminded"])
    with open_agent(path, clock):
        assert timers() >= 1
    assert happened(database) == ["opened", "reminded"]
    assert staff_messages(database) == 1


def test_a_timer_fires_while_the_agent_runs(path: Path, clock: Clock, database: Database) -> None:
    with open_agent(path, clock) as agent:
        later = Clock(clock.now)
        later.forward(minutes=REMIND, seconds=-1)
        # The delay is computed from a clock at which the reminder is a second away.
        agent._workflows._clock = later
        agent.handle("s", "a human please")
        clock.forward(minutes=REMIND)
        eventually(lambda: happened(database) == ["opened", "reminded"])
        assert timers() >= 1


def test_a_timer_that_fires_before_its_time_is_set_again(
    path: Path, clock: Clock, database: Database
) -> None:
    """The clock was set back after the delay was computed."""
    with open_agent(path, clock) as agent:
        later = Clock(clock.now)
        later.forward(minutes=REMIND)
        agent._workflows._clock = later
        agent.handle("s", "a human please")

        def early() -> bool:
            ran = DBOS.list_workflows(name="advance_case", status="SUCCESS", load_output=False)
            return len(ran) > 2

        # With that clock each timer is due at once, and finds that it is not yet.
        eventually(early)
        assert happened(database) == ["opened"]
        clock.forward(minutes=REMIND)
        eventually(lambda: happened(database) == ["opened", "reminded"])
    assert staff_messages(database) == 1


def test_a_restart_sets_no_second_timer(waiting: Path, clock: Clock) -> None:
    for _ in range(3):
        with open_agent(waiting, clock):
            assert timers() == 1


def test_a_timer_that_was_lost_is_set_at_the_next_start(
    waiting: Path, clock: Clock, database: Database
) -> None:
    with open_agent(waiting, clock):
        [timer] = DBOS.list_workflows(name="advance_case")
        DBOS.cancel_workflow(timer.workflow_id)
        assert timers() == 0
    clock.forward(minutes=REMIND, seconds=-1)
    with open_agent(waiting, clock):
        clock.forward(seconds=1)
        eventually(lambda: happened(database) == ["opened", "reminded"])


def test_a_change_that_the_database_prevents_is_made_later(
    waiting: Path, clock: Clock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2flow.agent.turns.durable._CASE_RETRY_SECONDS", 0.1)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON case_events"
            " BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )
    clock.forward(minutes=REMIND)
    with open_agent(waiting, clock):
        eventually(lambda: len(DBOS.list_workflows(name="advance_case", status="SUCCESS")) > 1)
        assert happened(database) == ["opened"]
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        eventually(lambda: happened(database) == ["opened", "reminded"])
    assert staff_messages(database) == 1


def test_a_case_that_a_person_took_is_left_alone(
    waiting: Path, clock: Clock, database: Database, book: FlowBook
) -> None:
    """Another process makes the decision; the timer finds nothing to do."""
    clock.forward(minutes=REMIND, seconds=-1)
    with open_agent(waiting, clock) as agent:
        Desk(book, database, clock).assign(BEN, "C-1")
        assert agent.handle("s", "hello").attended_by == "ben"
    clock.forward(days=31)
    with open_agent(waiting, clock) as agent:
        agent.handle("t", "hello")
        with database.transaction() as db:
            [case] = db.scalars(select(Case))
        assert (case.status, case.attention_at) == ("open", None)
    assert happened(database) == ["opened", "assigned", "written"]
