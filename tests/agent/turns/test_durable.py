"""Durability of turns across failures and crashes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.support.project import PROJECT
from tests.support.scripted_model import FailingModel, Script, ScriptedModel
from tests.support.shop import Clock
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import Case, CaseStatus, Database, ExecutedAction, database_url
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
# Longer than this process takes to close the agent that sets the timer.
TIMER_SECONDS = 5


@pytest.fixture
def model() -> FailingModel:
    """Model that fails once a test limits its answers."""
    return FailingModel(ScriptedModel(SCRIPT), 10**6)


@contextmanager
def open_agent(path: Path, model: FailingModel, clock: Clock) -> Iterator[Agent]:
    config = AgentConfig(database=str(path))
    with Agent(config, model=model, clock=clock, codes=lambda: "123456") as agent:
        yield agent


def executed(path: Path) -> list[str]:
    database = Database.open(database_url(str(path)))
    with database.transaction() as db:
        actions = [row.action for row in db.scalars(select(ExecutedAction))]
    database.close()
    return actions


def test_turn_killed_at_any_step_boundary_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL strikes before every step, and between its effect and its record."""
    command = [sys.executable, "-m", "tests.support.agent_crashes", str(tmp_path)]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    results: dict[str, dict[str, Any]] = {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.glob("*.json")
    }
    expected = results.pop("uninterrupted")
    del results["prelude"]
    assert [len(expected["rows"][t]) for t in ("orders", "shipments", "cases")] == [1, 1, 1]
    assert sum(" advance_case DELAYED" in workflow for workflow in expected["workflows"]) == 1
    assert len(results) > 20
    for name, result in results.items():
        assert result["rows"] == expected["rows"], name
        assert result["workflows"] == expected["workflows"], name


def test_repeated_message_is_handled_once(path: Path, model: FailingModel, clock: Clock) -> None:
    with open_agent(path, model, clock) as agent:
        first = agent.handle("s", "a kettle and a lamp", "m1")
        second = agent.handle("s", "a kettle and a lamp", "m1")
        assert second.actions == first.actions
        assert len(model.model.prompts) == 3
        agent.handle("t", "a kettle and a lamp", "m1")
    assert executed(path) == ["add_to_cart"] * 4


def test_repeated_message_resumes_at_the_failed_step(
    path: Path, model: FailingModel, clock: Clock
) -> None:
    with open_agent(path, model, clock) as agent:
        model.answers = 1
        for _ in range(2):
            with pytest.raises(ModelError, match=r"carried out before: add_to_cart\)$"):
                agent.handle("s", "a kettle and a lamp", "m1")
        model.answers = 10
        report = agent.handle("s", "a kettle and a lamp", "m1")
    assert [action.outcome for action in report.actions] == ["added", "added"]
    assert executed(path) == ["add_to_cart"] * 2


def test_a_failed_message_can_be_repeated_after_an_upgrade(
    path: Path, model: FailingModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = "a kettle and a lamp", ["add_to_cart", "add_to_cart"]
    monkeypatch.setattr("gpt2flow.agent.turns.durable._VERSION", "before")
    model.answers = 1
    with open_agent(path, model, clock) as agent, pytest.raises(ModelError):
        agent.handle("ann", text, "1")
    monkeypatch.undo()
    model.answers = 10
    with open_agent(path, model, clock) as agent:
        report = agent.handle("ann", text, "1")
    assert [action.action for action in report.actions] == expected
    # The action of before the upgrade was not carried out twice.
    assert executed(path) == expected


def test_the_delay_of_an_event_doubles_with_each_attempt() -> None:
    """An event whose message failed has had no attempt."""
    assert [retry_seconds(attempts) for attempts in (0, 1, 2, 3, 20)] == [2.5, 5, 10, 20, 600]


def test_event_is_retried_after_a_restart(
    path: Path, model: FailingModel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server fails after the submission and recovers after a restart."""
    monkeypatch.setattr("gpt2flow.agent.turns.durable._MIN_RETRY_SECONDS", 0.1)
    with open_agent(path, model, clock) as agent:
        for message in ("i'm Ann, ann@example.com", "123456", "a kettle to 5 Oak Rd"):
            agent.handle("s", message)
        model.answers = 2
        report = agent.handle("s", "yes")
        assert [event.postponed for event in report.events] == ["no server answers at nowhere:1"]
    assert "assign_courier" not in executed(path)
    model.answers = 10
    with open_agent(path, model, clock):
        eventually(lambda: "send_delivery_details" in executed(path))
    assert executed(path).count("assign_courier") == 1
    assert executed(path).count("send_delivery_details") == 1


def test_follow_up_falls_due_after_a_restart(path: Path, model: FailingModel, clock: Clock) -> None:
    """A timer fires in a later process than it was set in."""
    with open_agent(path, model, clock) as agent:
        agent.handle("s", "i'm Ann, ann@example.com")
        agent.handle("s", "123456")
        later = type(clock)(clock.now)
        later.forward(hours=2, seconds=-TIMER_SECONDS)
        # The delay is computed from a clock at which the call is a few seconds away.
        agent._workflows._clock = later
        report = agent.handle("s", "call me in 2 hours")
        assert report.actions[0].outcome == "scheduled"
    assert status(path) is CaseStatus.SCHEDULED
    clock.forward(hours=2)
    with open_agent(path, model, clock):
        eventually(lambda: status(path) is CaseStatus.DUE)


def status(path: Path) -> CaseStatus:
    database = Database.open(database_url(str(path)))
    with database.transaction() as db:
        (case,) = db.scalars(select(Case))
    database.close()
    return case.status
