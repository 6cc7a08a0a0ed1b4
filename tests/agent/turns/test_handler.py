"""What a message sets off: turns, events, compensation, timers, and another attempt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest
from sqlalchemy import update

from gpt2flow.agent.errors import AgentError, ModelError, UnanswerableError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.report import Timer
from gpt2flow.agent.shop import (
    Case,
    CaseKind,
    CaseStatus,
    Courier,
    ExecutedAction,
    ModelCall,
    Order,
    OrderStatus,
    OutboxMessage,
    Product,
)
from gpt2flow.agent.turns.execution import Event
from gpt2flow.agent.turns.handler import Handling
from gpt2flow.agent.turns.model import ModelAnswer, ModelOnRecord

if TYPE_CHECKING:
    from tests.agent.conftest import Desk, ScriptedModel

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

SCRIPT: dict[str, Sequence[Choice | str]] = {
    "yes": ["confirm_order"],
    "kettle, check out to 5 Oak Rd, yes": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("check_out", {"address": "5 Oak Rd"}),
        "confirm_order",
    ],
    "call me tomorrow at 3pm": [Choice("schedule_follow_up", {"time": "tomorrow at 3pm"})],
    "order_submitted": ["assign_courier", "send_delivery_details"],
    "is my cart empty?": ["view_cart", "cheat"],
    "give me a discount": ["cheat"],
}


@dataclass
class Plainly:
    """Durability without a database: steps are calls, what is later is noted."""

    timers: list[Timer] = field(default_factory=list)
    later: list[tuple[str, Event, int]] = field(default_factory=list)

    def step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        return function(*args, **kwargs)

    def set_timer(self, timer: Timer) -> None:
        self.timers.append(timer)

    def try_again(self, session: str, event: Event, attempt: int) -> None:
        self.later.append((session, event, attempt))


class Failing:
    """A model that fails from its n-th answer on."""

    def __init__(
        self, model: "ScriptedModel", answers: int, error: AgentError | None = None
    ) -> None:
        self.model = model
        self.answers = answers
        self.error = error or ModelError("no server answers at nowhere:1")

    def choose(self, prompt: str, grammar: str) -> ModelAnswer:
        if not self.answers:
            raise self.error
        self.answers -= 1
        return self.model.choose(prompt, grammar)


@pytest.fixture
def model(scripted_model: "type[ScriptedModel]") -> "ScriptedModel":
    return scripted_model(SCRIPT)


def handling(desk: "Desk", model: "ScriptedModel | Failing") -> Handling:
    on_record = ModelOnRecord(model, desk.database, desk.clock)
    return Handling(desk.book, on_record, desk.executor)


def test_order_is_shipped_in_a_turn_of_its_own(desk: "Desk", model: "ScriptedModel") -> None:
    desk.log_in("s")
    report = handling(desk, model).message(
        Plainly(), "m1", "s", "1", "kettle, check out to 5 Oak Rd, yes"
    )
    assert [action.outcome for action in report.actions] == ["added", "summarised", "submitted"]
    (event,) = report.events
    assert (event.event, event.subject, event.postponed) == ("order_submitted", "SO-1001", None)
    assert [action.outcome for action in event.actions] == ["courier_assigned", "details_sent"]
    assert all(action.used == {"order": "SO-1001"} for action in event.actions)
    assert len(report.calls) == 6
    assert "<|state|>submitted<|event|>order_submitted SO-1001<|act|>" in model.prompts
    assert [m.to for m in report.messages] == [None, None, None, "ann@example.com"]


def test_every_call_is_on_record(desk: "Desk", model: "ScriptedModel") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    report = handling(desk, model).message(Plainly(), "m1", "s", "1", "yes")
    calls = {call.key: call for call in desk.rows(ModelCall)}
    assert len(calls) == len(report.calls)
    first = calls["m1/0"]
    assert first.prompt == "<|state|>member cart confirming<|user|>yes<|act|>"
    assert first.output == '{"action":"confirm_order"}'
    assert first.constraint.startswith("start: ")
    assert (first.fingerprint, first.prompt_tokens) == ("scripted", 20)


def test_order_that_nobody_can_carry_is_undone(desk: "Desk", model: "ScriptedModel") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    with desk.database.transaction() as db:
        db.execute(update(Courier).values(active=False))
    report = handling(desk, model).message(Plainly(), "m1", "s", "1", "yes")
    outcomes = [action.outcome for action in report.events[0].actions]
    assert outcomes == ["no_courier", "cancelled"]
    assert desk.rows(Order)[0].status is OrderStatus.CANCELLED
    stock = {product.sku: product.stock for product in desk.rows(Product)}
    assert stock["electric-kettle"] == 40
    assert [case.kind for case in desk.rows(Case)] == [CaseKind.NO_COURIER]
    told = desk.rows(OutboxMessage)[-1]
    assert told.contact == "ann@example.com"
    assert told.text == "Order SO-1001 is cancelled; 29.90 will be paid back."


@pytest.mark.parametrize("answers", [2, 3])
def test_event_is_tried_again_when_the_model_failed(
    desk: "Desk", model: "ScriptedModel", answers: int
) -> None:
    """The order stays submitted, and the second attempt goes on where the first ended."""
    desk.log_in("s")
    desk.check_out("s", "kettle")
    durably = Plainly()
    report = handling(desk, Failing(model, answers)).message(durably, "m1", "s", "1", "yes")
    assert report.events[0].postponed == "no server answers at nowhere:1"
    event = Event("order_submitted", "SO-1001")
    assert durably.later == [("s", event, 1)]
    desk.act("s", "log_out")
    model.script = SCRIPT | {"order_submitted": SCRIPT["order_submitted"][answers - 2 :]}
    again = handling(desk, model).event(durably, "s", event, 2, [])
    done = [*report.events[0].actions, *again.actions]
    assert [action.outcome for action in done] == ["courier_assigned", "details_sent"]
    assert len(durably.later) == 1


def test_timer_is_set_for_a_follow_up(desk: "Desk", model: "ScriptedModel") -> None:
    desk.log_in("s")
    durably = Plainly()
    handling(desk, model).message(durably, "m1", "s", "1", "call me tomorrow at 3pm")
    (case,) = desk.rows(Case)
    assert case.status is CaseStatus.SCHEDULED
    assert [(timer.case, timer.due) for timer in durably.timers] == [(case.id, case.due_at)]


def test_event_cannot_do_what_a_customer_may(desk: "Desk", model: "ScriptedModel") -> None:
    """A model that answers an event with another action is not obeyed."""
    desk.log_in("s")
    desk.check_out("s", "kettle")
    model.script = SCRIPT | {"order_submitted": ["cancel_order"]}
    report = handling(desk, model).message(Plainly(), "m1", "s", "1", "yes")
    assert report.events[0].actions == []
    assert "'cancel_order', which is not allowed" in str(report.events[0].postponed)
    assert desk.rows(Order)[0].status is OrderStatus.SUBMITTED


def test_order_of_a_turn_that_failed_later_is_not_forgotten(
    desk: "Desk", model: "ScriptedModel"
) -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    durably = Plainly()
    with pytest.raises(ModelError, match=r"\(carried out before: confirm_order\)$"):
        handling(desk, Failing(model, 1)).message(durably, "m1", "s", "1", "yes")
    assert durably.later == [("s", Event("order_submitted", "SO-1001"), 0)]


def test_person_takes_over_where_the_model_cannot_go_on(
    desk: "Desk", model: "ScriptedModel"
) -> None:
    desk.log_in("s")
    full = Failing(model, 1, UnanswerableError("prompt over the context"))
    text = "kettle, check out to 5 Oak Rd, yes"
    report = handling(desk, full).message(Plainly(), "m1", "s", "1", text)
    assert [action.outcome for action in report.actions] == ["added", "handed_over"]
    (case,) = desk.rows(Case)
    assert (case.kind, case.note) == (CaseKind.HAND_OVER, text)
    full.answers = 0
    with pytest.raises(UnanswerableError):
        handling(desk, full).message(Plainly(), "m2", "s", "2", text)


@pytest.mark.parametrize(
    "message, text, executed",
    [
        ("give me a discount", "the model chose 'cheat', which is not allowed now", 0),
        (
            "is my cart empty?",
            "the model chose 'cheat', which is not allowed now (carried out before: view_cart)",
            1,
        ),
    ],
)
def test_illegal_choice_is_not_carried_out(
    desk: "Desk", model: "ScriptedModel", message: str, text: str, executed: int
) -> None:
    """Even if a server ignored the grammar."""
    with pytest.raises(ModelError) as caught:
        handling(desk, model).message(Plainly(), "m1", "s", "1", message)
    assert str(caught.value) == text
    assert len(desk.rows(ExecutedAction)) == executed


def test_the_same_task_is_carried_out_once(desk: "Desk", model: "ScriptedModel") -> None:
    desk.log_in("s")
    text = "kettle, check out to 5 Oak Rd, yes"
    first = handling(desk, model).message(Plainly(), "m1", "s", "1", text)
    second = handling(desk, model).message(Plainly(), "m1", "s", "1", text)
    assert len(desk.rows(Order)) == 1
    assert first.actions[0] == second.actions[0]
