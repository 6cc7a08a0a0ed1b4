"""Durability of turns across failures and crashes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dbos import DBOS
from sqlalchemy import select
from tests.support.agent_process import AgentUnderTest
from tests.support.postgresql import DATABASES, PostgresqlServer, postgresql_server
from tests.support.project import PROJECT
from tests.support.scripted_model import FailingModel, Script, ScriptedModel
from tests.support.shop import Clock
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import Case, CaseStatus, Database, ExecutedAction, Product, database_url
from gpt2flow.agent.shop.database import SCHEMA_REVISION, SchemaRevision
from gpt2flow.agent.shop.tables.records import turn_id
from gpt2flow.agent.turns.durable import retry_seconds

pytestmark = pytest.mark.process

SCRIPT: Script = {
    "a kettle and a lamp": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("add_to_cart", {"product": "lamp"}),
    ],
    "i'm Ann, ann@example.com": [Choice("register", {"name": "Ann", "contact": "ann@example.com"})],
    "123456": [Choice("verify", {"code": "123456"})],
    "a kettle to 5 Oak Rd": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("check_out", {"address": "5 Oak Rd"}),
    ],
    "yes": ["confirm_order"],
    "order_submitted": ["assign_courier", "send_delivery_details"],
    "call me in 2 hours": [Choice("schedule_follow_up", {"time": "in 2 hours"})],
}
ON_BOTH = pytest.mark.parametrize("shop_url", DATABASES, indirect=True)
# Longer than this process takes to close the agent that sets the timer.
TIMER_SECONDS = 5
# Longer than a repeated turn takes; a test that fails waits for so long.
_HANG_SECONDS = 15.0


@pytest.fixture
def model() -> FailingModel:
    """Model that fails once a test limits its answers."""
    return FailingModel(ScriptedModel(SCRIPT), 10**6)


@contextmanager
def open_agent(url: str, model: FailingModel, clock: Clock) -> Iterator[Agent]:
    config = AgentConfig(database=url)
    with Agent(config, model=model, clock=clock, codes=lambda: "123456") as agent:
        yield agent


def executed(url: str) -> list[str]:
    database = Database.open(database_url(url))
    with database.transaction() as db:
        actions = [row.action for row in db.scalars(select(ExecutedAction))]
    database.close()
    return actions


def crash_at_boundaries(folder: Path, *arguments: str) -> int:
    """Run the crash driver, and return the number of its results."""
    command = [sys.executable, "-m", "tests.support.agent_crashes", str(folder), *arguments]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    results: dict[str, dict[str, Any]] = {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")
    }
    expected = results.pop("uninterrupted")
    del results["prelude"]
    assert [len(expected["rows"][t]) for t in ("orders", "shipments", "cases")] == [1, 1, 1]
    assert sum(" advance_case DELAYED" in workflow for workflow in expected["workflows"]) == 1
    for name, result in results.items():
        assert result["rows"] == expected["rows"], name
        assert result["workflows"] == expected["workflows"], name
    return len(results)


def test_turn_killed_at_any_step_boundary_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL strikes before every step, and between its effect and its record."""
    assert crash_at_boundaries(tmp_path, "1") > 20


def test_turn_killed_on_postgresql_ends_the_same_in_another_process(
    tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    """SIGKILL strikes at every sixth boundary."""
    assert crash_at_boundaries(tmp_path, "6", postgresql.url("postgres")) > 5


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_two_processes_that_open_a_new_database_at_once_create_it_once(empty_url: str) -> None:
    with ThreadPoolExecutor() as threads:
        one, other = threads.map(AgentUnderTest, [empty_url] * 2)
    with one, other:
        for session, agent in (("s", one), ("t", other)):
            assert agent.handle(session, "1", "hello") == ["greeted"]
    database = Database.open(database_url(empty_url))
    with database.transaction() as db:
        assert db.scalars(select(SchemaRevision.version_num)).all() == [SCHEMA_REVISION]
        assert len(db.scalars(select(Product)).all()) == 24
    database.close()


def test_a_turn_can_be_repeated_after_postgresql_was_killed(postgresql: PostgresqlServer) -> None:
    del postgresql  # Skips this test where there is no server.
    with postgresql_server() as server, server.database(server.shop) as url:
        with AgentUnderTest(url) as agent:
            agent.hold()
            agent.send("s", "1", "a kettle and a lamp")
            eventually(lambda: executed(url) == ["add_to_cart"])
            server.stop(signal.SIGKILL)
            agent.release()
            assert "Connection refused" in agent.report()["error"]
            server.start()
            outcomes = list[str]()

            def repeat() -> None:
                with suppress(ValueError):  # The process was killed before its report.
                    outcomes.extend(agent.handle("s", "1", "a kettle and a lamp"))

            thread = Thread(target=repeat)
            thread.start()
            thread.join(_HANG_SECONDS)
            agent.kill()
        assert outcomes == ["added", "added"]
        assert executed(url) == ["add_to_cart"] * 2


@ON_BOTH
def test_repeated_message_is_handled_once(shop_url: str, model: FailingModel, clock: Clock) -> None:
    with open_agent(shop_url, model, clock) as agent:
        first = agent.handle("s", "a kettle and a lamp", "m1")
        second = agent.handle("s", "a kettle and a lamp", "m1")
        assert second.actions == first.actions
        assert len(model.model.prompts) == 3
        agent.handle("t", "a kettle and a lamp", "m1")
    assert executed(shop_url) == ["add_to_cart"] * 4


@ON_BOTH
def test_repeated_message_resumes_at_the_failed_step(
    shop_url: str, model: FailingModel, clock: Clock
) -> None:
    with open_agent(shop_url, model, clock) as agent:
        model.answers = 1
        for _ in range(2):
            with pytest.raises(ModelError, match=r"carried out before: add_to_cart\)$"):
                agent.handle("s", "a kettle and a lamp", "m1")
        model.answers = 10
        report = agent.handle("s", "a kettle and a lamp", "m1")
    assert [action.outcome for action in report.actions] == ["added", "added"]
    assert executed(shop_url) == ["add_to_cart"] * 2


@ON_BOTH
def test_a_failed_turn_that_another_process_resumes_first_is_not_resumed_twice(
    shop_url: str, model: FailingModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_agent(shop_url, model, clock) as agent:
        model.answers = 1
        with pytest.raises(ModelError):
            agent.handle("s", "a kettle and a lamp", "m1")
        model.answers = 10
        locks, hold, resumed = agent._workflows._locks, agent._workflows._locks.hold, list[str]()

        @contextmanager
        def hold_after_another_process(session: str) -> Iterator[None]:
            if not resumed:
                resumed.append(session)
                DBOS.rewind_workflow(turn_id(session, "m1"), start_step=1)
            with hold(session):
                yield

        monkeypatch.setattr(locks, "hold", hold_after_another_process)
        report = agent.handle("s", "a kettle and a lamp", "m1")
    assert resumed
    assert [action.outcome for action in report.actions] == ["added", "added"]
    assert executed(shop_url) == ["add_to_cart"] * 2


@ON_BOTH
def test_a_failed_message_can_be_repeated_after_an_upgrade(
    shop_url: str, model: FailingModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = "a kettle and a lamp", ["add_to_cart", "add_to_cart"]
    monkeypatch.setattr("gpt2flow.agent.turns.durable._VERSION", "before")
    model.answers = 1
    with open_agent(shop_url, model, clock) as agent, pytest.raises(ModelError):
        agent.handle("ann", text, "1")
    monkeypatch.undo()
    model.answers = 10
    with open_agent(shop_url, model, clock) as agent:
        report = agent.handle("ann", text, "1")
    assert [action.action for action in report.actions] == expected
    # The action of before the upgrade was not carried out twice.
    assert executed(shop_url) == expected


def test_the_delay_of_an_event_doubles_with_each_attempt() -> None:
    """An event whose message failed has had no attempt."""
    assert [retry_seconds(attempts) for attempts in (0, 1, 2, 3, 20)] == [2.5, 5, 10, 20, 600]


@ON_BOTH
def test_event_is_retried_after_a_restart(
    shop_url: str, model: FailingModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server fails after the submission and recovers after a restart."""
    monkeypatch.setattr("gpt2flow.agent.turns.durable._MIN_RETRY_SECONDS", 0.1)
    with open_agent(shop_url, model, clock) as agent:
        for message in ("i'm Ann, ann@example.com", "123456", "a kettle to 5 Oak Rd"):
            agent.handle("s", message)
        model.answers = 2
        report = agent.handle("s", "yes")
        assert [event.postponed for event in report.events] == ["no server answers at nowhere:1"]
    assert "assign_courier" not in executed(shop_url)
    model.answers = 10
    with open_agent(shop_url, model, clock):
        eventually(lambda: "send_delivery_details" in executed(shop_url))
    assert executed(shop_url).count("assign_courier") == 1
    assert executed(shop_url).count("send_delivery_details") == 1


@ON_BOTH
def test_follow_up_falls_due_after_a_restart(
    shop_url: str, model: FailingModel, clock: Clock
) -> None:
    """A timer fires in a later process than it was set in."""
    with open_agent(shop_url, model, clock) as agent:
        agent.handle("s", "i'm Ann, ann@example.com")
        agent.handle("s", "123456")
        later = type(clock)(clock.now)
        later.forward(hours=2, seconds=-TIMER_SECONDS)
        # The delay is computed from a clock at which the call is a few seconds away.
        agent._workflows._clock = later
        report = agent.handle("s", "call me in 2 hours")
        assert report.actions[0].outcome == "scheduled"
    assert status(shop_url) is CaseStatus.SCHEDULED
    clock.forward(hours=2)
    with open_agent(shop_url, model, clock):
        eventually(lambda: status(shop_url) is CaseStatus.DUE)


def status(url: str) -> CaseStatus:
    database = Database.open(database_url(url))
    with database.transaction() as db:
        (case,) = db.scalars(select(Case))
    database.close()
    return case.status
