"""Turns whose conversation a person takes before they have ended."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.desk import BEN, changes, hand_over, new_desk, texts
from tests.support.scripted_model import FailingModel, Script, ScriptedModel
from tests.support.shop import Shop
from tests.support.turns import InlineWorkflow, new_handler

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.config import AgentConfig, utc_now
from gpt2flow.agent.errors import (
    AgentError,
    ModelError,
    ModelUnavailableError,
    UnanswerableError,
)
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import (
    Audience,
    CartLine,
    Case,
    Database,
    ExecutedAction,
    Order,
    OutboxMessage,
    database_url,
)
from gpt2flow.agent.turns.model import ModelAnswer

KETTLE, LAMP = (Choice("add_to_cart", {"product": name}) for name in ("kettle", "lamp"))
TEXT = "a kettle and a lamp"
SCRIPT: Script = {
    TEXT: [KETTLE, LAMP],
    "a person please": ["escalate"],
    "yes": ["confirm_order", "greet"],
    "order_submitted": ["assign_courier", "send_delivery_details"],
}
DOWN = ModelUnavailableError("no server answers at nowhere:1")


class InterruptedModel(ScriptedModel):
    """Model during one answer of which a person acts.

    Args:
        position: Number of that answer, from 0.
        act: What the person does.
        error: Error of that answer; None gives it.
    """

    def __init__(
        self, position: int, act: Callable[[], object], error: AgentError | None = None
    ) -> None:
        super().__init__(SCRIPT)
        self._position = position
        self._act = act
        self._error = error

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        del session
        if len(self.prompts) == self._position:
            self._act()
            if self._error is not None:
                raise self._error
        return super().choose(prompt, grammar)


class TimedWorkflow(InlineWorkflow):
    """Workflow whose pauses move the clock of the shop."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self._shop = shop

    def sleep(self, seconds: float) -> None:
        self._shop.clock.forward(seconds=seconds)


def interrupted(
    shop: Shop, text: str, position: int, error: AgentError | None = None, *, patience: float = 0
) -> TurnReport:
    """Handle a message during which Ben takes the conversation."""
    number, desk = hand_over(shop), new_desk(shop)
    model = InterruptedModel(position, lambda: desk.assign(BEN, number), error)
    handler = new_handler(shop, model, patience=patience)
    return handler.handle_message(TimedWorkflow(shop), "m1", "s", "1", text)


def test_the_agent_does_nothing_more_once_a_person_has_taken_the_conversation(shop: Shop) -> None:
    shop.log_in("s")
    report = interrupted(shop, TEXT, position=1)
    assert (report.attended_by, report.result) == ("ben", "attended")
    assert [action.outcome for action in report.actions] == ["added"]
    assert [line.sku for line in shop.rows(CartLine)] == ["electric-kettle"]
    assert "m1/1" not in {row.key for row in shop.rows(ExecutedAction)}


def test_the_person_gets_the_message(shop: Shop) -> None:
    interrupted(shop, TEXT, position=0)
    view = new_desk(shop).show("C-1")
    assert TEXT in [said.text for said in view.conversation if said.by == "customer"]
    assert (view.history[-1].change, view.history[-1].text) == ("written", TEXT)
    assert texts(shop, Audience.STAFF) == [f"The customer of case C-1 writes: {TEXT}"]


def test_a_message_is_passed_on_once_whatever_is_replayed(shop: Shop) -> None:
    """A step may run again whose transaction committed before a crash."""
    interrupted(shop, TEXT, position=0)
    before = changes(shop), texts(shop, Audience.STAFF)
    assert shop.executor.cases.attend("m1", "s") == "ben"
    assert shop.executor.begin_turn("m1", "s", TEXT).attended_by == "ben"
    again = new_handler(shop, ScriptedModel({})).handle_message(
        InlineWorkflow(), "m1", "s", "1", TEXT
    )
    assert again.attended_by == "ben"
    assert (changes(shop), texts(shop, Audience.STAFF)) == before


def test_what_was_done_before_is_finished(shop: Shop) -> None:
    """An order that was submitted is shipped, whoever answers the customer."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    report = interrupted(shop, "yes", position=1)
    assert report.attended_by == "ben"
    assert [action.outcome for action in report.actions] == ["submitted"]
    (event,) = report.events
    assert [action.outcome for action in event.actions] == ["courier_assigned", "details_sent"]
    assert len(shop.rows(Order)) == 1


@pytest.mark.parametrize(
    "error, patience",
    [(DOWN, 60.0), (DOWN, 0.0), (ModelError("broken"), 0.0), (UnanswerableError("long"), 0.0)],
)
@pytest.mark.parametrize("position", [0, 1])
def test_a_failure_of_the_model_is_the_persons_matter(
    shop: Shop, error: AgentError, patience: float, position: int
) -> None:
    """No second case is opened, and the customer gets no error."""
    report = interrupted(shop, TEXT, position, error, patience=patience)
    assert report.attended_by == "ben"
    assert len(report.actions) == position
    assert [case.number for case in shop.rows(Case)] == ["C-1"]
    assert new_desk(shop).show("C-1").history[-1].text == TEXT


def test_the_agent_goes_on_after_the_conversation_was_given_back(shop: Shop) -> None:
    interrupted(shop, TEXT, position=1)
    new_desk(shop).assign(BEN, "C-1", to="agent")
    handler = new_handler(shop, ScriptedModel(SCRIPT))
    report = handler.handle_message(InlineWorkflow(), "m2", "s", "2", TEXT)
    assert report.attended_by is None
    assert [action.outcome for action in report.actions] == ["added", "added"]


@pytest.fixture
def desk(path: Path, book: FlowBook) -> Iterator[Desk]:
    with closing(Database(database_url(str(path)))) as database:
        yield Desk(book, database, utc_now)


@pytest.mark.process
@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize("is_back", [True, False])
def test_a_failed_turn_that_is_sent_again_goes_to_the_person(
    path: Path, desk: Desk, *, answers: int, is_back: bool
) -> None:
    model = FailingModel(ScriptedModel(SCRIPT), 2)
    with Agent(AgentConfig(database=str(path)), model=model) as agent:
        agent.handle("s", "a person please", "1")
        model.answers = answers
        with pytest.raises(ModelError):
            agent.handle("s", TEXT, "2")
        desk.assign(BEN, "C-1")
        model.answers = 9 if is_back else 0
        reports = [agent.handle("s", TEXT, "2") for _ in range(2)]
    assert [report.attended_by for report in reports] == ["ben", "ben"]
    assert [len(report.actions) for report in reports] == [answers, answers]
    view = desk.show("C-1")
    assert TEXT in [said.text for said in view.conversation if said.by == "customer"]
    written = [change.text for change in view.history if change.change == "written"]
    assert written == [TEXT]
    with closing(Database(database_url(str(path)))) as database, database.transaction() as db:
        assert db.query(CartLine).count() == answers
        staff = db.query(OutboxMessage).filter(OutboxMessage.audience == Audience.STAFF)
        assert [row.text for row in staff] == [f"The customer of case C-1 writes: {TEXT}"]
