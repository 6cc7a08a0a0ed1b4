"""Turns while the model does not answer."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.scripted_model import FailingModel, Script, ScriptedModel
from tests.support.shop import Shop
from tests.support.turns import InlineWorkflow, new_handler

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import ModelUnavailableError
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import (
    Case,
    CaseEvent,
    CaseKind,
    CaseStatus,
    Database,
    Delivery,
    Order,
    OutboxMessage,
    database_url,
)

DOWN = ModelUnavailableError("no server answers at nowhere:1")


@dataclass
class SleepingWorkflow(InlineWorkflow):
    """Workflow whose pauses move the clock of the shop.

    Attributes:
        shop: Shop under test.
        model: Model that answers again after some pauses.
        pauses: Pauses so far, in seconds.
        back_after: Number of pauses after which the model is back.
    """

    shop: Shop = field(kw_only=True)
    model: FailingModel = field(kw_only=True)
    back_after: int = field(default=10**6, kw_only=True)
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.shop.clock.forward(seconds=seconds)
        if len(self.pauses) == self.back_after:
            self.model.answers = 10**6


def handle(
    shop: Shop, text: str, *, answers: int = 0, back_after: int = 10**6, patience: float = 60.0
) -> tuple[TurnReport, list[float]]:
    """Handle a message with a model that fails after some answers.

    Returns:
        The report, and the pauses.
    """
    script: Script = {text: ["confirm_order", "greet"], "order_submitted": ["assign_courier"]}
    model = FailingModel(ScriptedModel(script), answers, DOWN)
    workflow = SleepingWorkflow(shop=shop, model=model, back_after=back_after)
    handler = new_handler(shop, model, patience=patience)
    key = f"m{next(shop.keys)}"
    return handler.handle_message(workflow, key, "s", key, text), workflow.pauses


def test_a_turn_waits_for_the_model(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    report, pauses = handle(shop, "yes", back_after=3)
    assert pauses == [0.5, 1.0, 2.0]
    assert [action.outcome for action in report.actions] == ["submitted", "greeted"]
    assert not shop.rows(Case)


@pytest.mark.parametrize("text,language", [("hello", "en"), ("你好", "zh")])
def test_a_person_takes_over_when_the_patience_is_over(
    shop: Shop, text: str, language: str
) -> None:
    report, pauses = handle(shop, text)
    assert 50 < sum(pauses) <= 60
    assert max(pauses) == 8.0
    assert [(a.action, a.outcome) for a in report.actions] == [("escalate", "model_unavailable")]
    assert [sent.language for sent in report.messages] == [language]
    assert "C-1" in report.messages[0].text
    (case,) = shop.rows(Case)
    assert (case.kind, case.status, case.note) == (CaseKind.HAND_OVER, CaseStatus.OPEN, text)
    assert case.attention_at is not None
    # The report has handed it over, so that the dispatcher leaves it alone.
    assert [row.delivery for row in shop.rows(OutboxMessage)] == [Delivery.ANSWERED]


def test_a_patience_of_many_attempts_is_kept(shop: Shop) -> None:
    _, pauses = handle(shop, "hello", patience=10_000.0)
    assert len(pauses) > 1024
    assert 9_990 < sum(pauses) <= 10_000


def test_the_customer_is_told_once(shop: Shop) -> None:
    handle(shop, "hello")
    report, _ = handle(shop, "is anybody there")
    assert not report.messages
    assert len(shop.rows(Case)) == 1
    written = [event for event in shop.rows(CaseEvent) if event.change == "written"]
    assert [event.text for event in written] == ["is anybody there"]


def test_what_was_done_before_stays_and_its_event_is_handled_later(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    report, _ = handle(shop, "yes", answers=1)
    outcomes = [action.outcome for action in report.actions]
    assert outcomes == ["submitted", "model_unavailable"]
    assert len(shop.rows(Order)) == 1
    assert [event.postponed for event in report.events] == [str(DOWN)]


def test_without_patience_the_error_is_raised_at_once(shop: Shop) -> None:
    with pytest.raises(ModelUnavailableError):
        handle(shop, "hello", patience=0.0)
    assert not shop.rows(Case)


@pytest.mark.process
def test_a_durable_turn_pauses_and_hands_over(path: Path) -> None:
    model = FailingModel(ScriptedModel({}), 0, DOWN)
    config = AgentConfig(database=str(path), patience=1.0)
    with Agent(config, model=model) as agent:
        for _ in range(2):
            report = agent.handle("s", "hello", "1")
            assert [action.outcome for action in report.actions] == ["model_unavailable"]
    database = Database.open(database_url(str(path)))
    with database.transaction() as db:
        assert db.query(Case).count() == db.query(OutboxMessage).count() == 1
    database.close()
