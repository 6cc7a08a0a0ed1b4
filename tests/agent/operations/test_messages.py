"""Every outcome of every action can be reached, and is told in both languages."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import Courier, OrderStatus, Product
from gpt2flow.agent.turns.execution import Event

if TYPE_CHECKING:
    from tests.agent.conftest import Desk

BOOK: FlowBook = load_flows()
OUTCOMES = [(action, name) for action, spec in BOOK.actions.items() for name in spec.outcomes]
# `request_exchange` shares the outcomes of the claims, but needs no approval.
UNREACHED = {("request_exchange", "needs_approval"), ("request_return", "needs_approval")}
GREETING = {"en": "hello", "zh": "你好"}


def nothing(desk: "Desk") -> None:
    del desk


@dataclass
class Way:
    """How an outcome comes about: what happens before, and the action's arguments."""

    before: Callable[["Desk"], object] = nothing
    arguments: dict[str, str | int] = field(default_factory=dict)
    event: bool = False


def registered(desk: "Desk") -> None:
    desk.log_in("other")
    desk.clock.forward(hours=2)


def coded(desk: "Desk") -> None:
    registered(desk)
    for _ in range(5):
        desk.act("s", "log_in", contact="ann@example.com")


def member(desk: "Desk") -> None:
    desk.log_in("s")


def with_order(**order: object) -> Callable[["Desk"], None]:
    def before(desk: "Desk") -> None:
        desk.log_in("s")
        desk.order(**order)  # type: ignore[arg-type]

    return before


def summarised(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")


def changed(desk: "Desk") -> None:
    summarised(desk)
    desk.act("s", "add_to_cart", product="umbrella")


def sold_out(desk: "Desk") -> None:
    summarised(desk)
    with desk.database.transaction() as db:
        db.execute(update(Product).values(stock=0))


def claimed(desk: "Desk") -> None:
    with_order(delivered_days_ago=1)(desk)
    desk.act("s", "request_return", order="last", reason="late")


def submitted(desk: "Desk") -> None:
    summarised(desk)
    desk.act("s", "confirm_order")


def without_courier(desk: "Desk") -> None:
    submitted(desk)
    with desk.database.transaction() as db:
        db.execute(update(Courier).values(active=False))


def assigned(desk: "Desk") -> None:
    submitted(desk)
    desk.event("s", Event("order_submitted", "SO-1001"), "assign_courier")


def expired(desk: "Desk") -> None:
    desk.act("s", "register", name="Ann", contact="ann@example.com")
    desk.clock.forward(hours=1)


def verifying(desk: "Desk") -> None:
    desk.act("s", "register", name="Ann", contact="ann@example.com")


DELIVERED = {"delivered_days_ago": 1}
LAST: dict[str, str | int] = {"order": "last"}
CLAIM: dict[str, str | int] = {"order": "last", "reason": "late"}
UNKNOWN: dict[str, str | int] = {"order": "SO-9999"}
CONTACT: dict[str, str | int] = {"contact": "ann@example.com"}
UNKNOWN_CLAIM = CLAIM | UNKNOWN

CLAIMS = {
    "approved": Way(with_order(**DELIVERED), CLAIM),
    "needs_approval": Way(
        with_order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=3), CLAIM
    ),
    "too_late": Way(with_order(delivered_days_ago=99), CLAIM),
    "not_delivered": Way(with_order(), CLAIM),
    "already_open": Way(claimed, CLAIM),
    "unknown_order": Way(with_order(), UNKNOWN_CLAIM),
    "no_orders": Way(member, CLAIM),
}
WAYS: dict[tuple[str, str], Way] = {
    ("greet", "greeted"): Way(member),
    ("clarify", "asked_again"): Way(),
    ("clarify", "handed_over"): Way(lambda desk: desk.act("s", "clarify")),
    ("escalate", "handed_over"): Way(),
    ("register", "code_sent"): Way(arguments=CONTACT | {"name": "Ann {0}"}),
    ("register", "already_registered"): Way(registered, CONTACT | {"name": "Ann"}),
    ("register", "too_many_codes"): Way(coded, CONTACT | {"name": "Ann"}),
    ("log_in", "code_sent"): Way(registered, CONTACT),
    ("log_in", "unknown_contact"): Way(arguments=CONTACT),
    ("log_in", "too_many_codes"): Way(coded, CONTACT),
    ("verify", "verified"): Way(verifying, {"code": "123456"}),
    ("verify", "wrong_code"): Way(verifying, {"code": "000000"}),
    ("verify", "expired"): Way(expired, {"code": "123456"}),
    ("resend_code", "code_sent"): Way(verifying),
    ("resend_code", "too_many_codes"): Way(coded),
    ("log_out", "logged_out"): Way(member),
    ("find_product", "found"): Way(arguments={"product": "tea"}),
    ("find_product", "out_of_stock"): Way(arguments={"product": "jacket"}),
    ("find_product", "unknown_product"): Way(arguments={"product": "{drone}"}),
    ("add_to_cart", "added"): Way(arguments={"product": "tea", "quantity": 2}),
    ("add_to_cart", "out_of_stock"): Way(arguments={"product": "jacket"}),
    ("add_to_cart", "unknown_product"): Way(arguments={"product": "drone"}),
    ("add_to_cart", "too_many"): Way(arguments={"product": "tea", "quantity": 99}),
    ("remove_from_cart", "removed"): Way(changed, {"product": "kettle"}),
    ("remove_from_cart", "not_in_cart"): Way(changed, {"product": "{tea"}),
    ("view_cart", "shown"): Way(changed),
    ("view_cart", "empty"): Way(),
    ("check_out", "summarised"): Way(changed, {"address": "1 {High} St"}),
    ("confirm_order", "submitted"): Way(summarised),
    ("confirm_order", "out_of_stock"): Way(sold_out),
    ("confirm_order", "changed"): Way(changed),
    ("decline_order", "declined"): Way(summarised),
    ("cancel_order", "cancelled"): Way(with_order(), LAST),
    ("cancel_order", "unknown_order"): Way(with_order(), UNKNOWN),
    ("cancel_order", "no_orders"): Way(member, LAST),
    ("cancel_order", "too_late"): Way(with_order(**DELIVERED), LAST),
    ("assign_courier", "courier_assigned"): Way(submitted, event=True),
    ("assign_courier", "no_courier"): Way(without_courier, event=True),
    ("send_delivery_details", "details_sent"): Way(assigned, event=True),
    ("track_order", "tracked"): Way(with_order(status=OrderStatus.ASSIGNED), LAST),
    ("track_order", "no_parcel"): Way(with_order(), LAST),
    ("track_order", "unknown_order"): Way(with_order(), UNKNOWN),
    ("track_order", "no_orders"): Way(member, LAST),
    ("change_address", "changed"): Way(with_order(), LAST | {"address": "1 St"}),
    ("change_address", "too_late"): Way(with_order(**DELIVERED), LAST | {"address": "1 St"}),
    ("change_address", "unknown_order"): Way(with_order(), UNKNOWN | {"address": "1 St"}),
    ("change_address", "no_orders"): Way(member, LAST | {"address": "1 St"}),
    ("confirm_delivery", "delivered"): Way(with_order(status=OrderStatus.ASSIGNED), LAST),
    ("confirm_delivery", "not_on_its_way"): Way(with_order(), LAST),
    ("confirm_delivery", "unknown_order"): Way(with_order(), UNKNOWN),
    ("confirm_delivery", "no_orders"): Way(member, LAST),
    ("answer_question", "answered"): Way(arguments={"topic": "opening_hours"}),
    ("schedule_follow_up", "scheduled"): Way(member, {"time": "tomorrow at 3pm"}),
    ("schedule_follow_up", "unclear_time"): Way(member, {"time": "{soon}"}),
    ("schedule_follow_up", "not_open"): Way(member, {"time": "tomorrow at 3am"}),
} | {
    (f"request_{kind}", n): w
    for kind in ("refund", "return", "exchange")
    for n, w in CLAIMS.items()
}


def carry_out(desk: "Desk", action: str, way: Way, language: str) -> Step:
    way.before(desk)
    if way.event:
        desk.act("s", "greet", message=GREETING[language])
        return desk.event("s", Event("order_submitted", "SO-1001"), action)
    return desk.act("s", action, message=GREETING[language], **way.arguments)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("action, outcome", [pair for pair in OUTCOMES if pair not in UNREACHED])
def test_outcome_is_reached_and_told(
    desk: "Desk", action: str, outcome: str, language: str
) -> None:
    step = carry_out(desk, action, WAYS[action, outcome], language)
    spec = BOOK.actions[action].outcomes[outcome]
    assert (step.report.outcome, step.result) == (outcome, spec.result)
    assert len(step.report.messages) == (spec.message is not None)
    for message in step.report.messages:
        assert message.language == language
        assert any("\u4e00" <= c <= "\u9fff" for c in message.text) == (language == "zh")


@pytest.mark.parametrize("topic", BOOK.slots["topic"].values)
def test_every_topic_has_an_answer(desk: "Desk", topic: str) -> None:
    for language in ("en", "zh"):
        step = desk.act("s", "answer_question", message=GREETING[language], topic=topic)
        assert "{" not in step.report.messages[0].text


@pytest.mark.parametrize("slot", BOOK.slots)
def test_every_slot_can_be_asked_for(slot: str) -> None:
    assert set(BOOK.slots[slot].ask) == {"en", "zh"}
