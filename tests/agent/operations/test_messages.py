"""Reachability and messages of every outcome, in both languages."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import update
from tests.support.shop import Shop
from tests.support.turns import say

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import Courier, OrderStatus, Product
from gpt2flow.agent.turns.execution import Event

BOOK: FlowBook = load_flows()
OUTCOMES = [(action, name) for action, spec in BOOK.actions.items() for name in spec.outcomes]
# `request_exchange` shares the outcomes of the claims, but needs no approval.
UNREACHABLE = {("request_exchange", "needs_approval"), ("request_return", "needs_approval")}
GREETING = {"en": "hello", "zh": "你好"}
INSTEAD = {"en": "this instead please", "zh": "还是改成这个吧"}


def nothing(shop: Shop) -> None:
    del shop


@dataclass
class Setup:
    """Preparation of an outcome, and the arguments of its action."""

    before: Callable[[Shop], object] = nothing
    arguments: dict[str, Any] = field(default_factory=dict)
    event: bool = False
    message: dict[str, str] = field(default_factory=lambda: GREETING)


def registered(shop: Shop) -> None:
    shop.log_in("other")
    shop.clock.forward(hours=2)


def coded(shop: Shop) -> None:
    registered(shop)
    for _ in range(5):
        shop.act("s", "log_in", contact="ann@example.com")


def member(shop: Shop) -> None:
    shop.log_in("s")


def with_order(**order: object) -> Callable[[Shop], None]:
    def before(shop: Shop) -> None:
        shop.log_in("s")
        shop.order(**order)  # type: ignore[arg-type]

    return before


def summarized(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")


def changed(shop: Shop) -> None:
    summarized(shop)
    shop.act("s", "add_to_cart", product="umbrella")


def sold_out(shop: Shop) -> None:
    summarized(shop)
    with shop.database.transaction() as db:
        db.execute(update(Product).values(stock=0))


def claimed(shop: Shop) -> None:
    with_order(delivered_days_ago=1)(shop)
    shop.act("s", "request_return", order="last", reason="late")


def claimed_as(kind: str) -> Callable[[Shop], None]:
    def before(shop: Shop) -> None:
        with_order(delivered_days_ago=1)(shop)
        shop.act("s", f"request_{kind}", order="last", reason="late")

    return before


def unsure(shop: Shop) -> None:
    """Leave the agent's "did you mean …?" open."""
    with_order()(shop)
    assert shop.act("s", "cancel_order", confidence=0.1, order="last").result == "asked"


def unsure_about_two(shop: Shop) -> None:
    """Leave one question open, and another wish waiting for its own."""
    member(shop)
    numbers = shop.order(), shop.order()
    say(shop, "both", *(Choice("cancel_order", {"order": n}, confidence=0.1) for n in numbers))


def with_cart(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="board game")


def submitted(shop: Shop) -> None:
    summarized(shop)
    shop.act("s", "confirm_order")


def without_courier(shop: Shop) -> None:
    submitted(shop)
    with shop.database.transaction() as db:
        db.execute(update(Courier).values(active=False))


def assigned(shop: Shop) -> None:
    submitted(shop)
    shop.event("s", Event("order_submitted", "SO-1001"), "assign_courier")


def expired(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    shop.clock.forward(hours=1)


def logging_in(shop: Shop) -> None:
    registered(shop)
    shop.act("s", "log_in", contact="ann@example.com")


def verifying(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com")


DELIVERED = {"delivered_days_ago": 1}
LAST: dict[str, str | int] = {"order": "last"}
CLAIM: dict[str, str | int] = {"order": "last", "reason": "late"}
UNKNOWN: dict[str, str | int] = {"order": "SO-9999"}
CONTACT: dict[str, str | int] = {"contact": "ann@example.com"}
UNKNOWN_CLAIM = CLAIM | UNKNOWN

CLAIMS = {
    "approved": Setup(with_order(**DELIVERED), CLAIM),
    "needs_approval": Setup(
        with_order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=3), CLAIM
    ),
    "too_late": Setup(with_order(delivered_days_ago=99), CLAIM),
    "not_delivered": Setup(with_order(), CLAIM),
    "already_open": Setup(claimed, CLAIM),
    "unknown_order": Setup(with_order(), UNKNOWN_CLAIM),
    "no_orders": Setup(member, CLAIM),
}
SETUPS: dict[tuple[str, str], Setup] = (
    {
        ("greet", "greeted"): Setup(member),
        ("clarify", "asked_again"): Setup(),
        ("clarify", "handed_over"): Setup(lambda shop: shop.act("s", "clarify")),
        ("escalate", "handed_over"): Setup(),
        ("register", "code_sent"): Setup(arguments=CONTACT | {"name": "Ann {x}"}),
        ("register", "already_registered"): Setup(registered, CONTACT | {"name": "Ann"}),
        ("register", "too_many_codes"): Setup(coded, CONTACT | {"name": "Ann"}),
        ("log_in", "code_sent"): Setup(registered, CONTACT),
        ("log_in", "unknown_contact"): Setup(arguments=CONTACT),
        ("log_in", "too_many_codes"): Setup(coded, CONTACT),
        ("verify", "verified"): Setup(verifying, {"code": "123456"}),
        ("verify", "wrong_code"): Setup(verifying, {"code": "000000"}),
        ("verify", "expired"): Setup(expired, {"code": "123456"}),
        ("resend_code", "code_sent"): Setup(verifying),
        ("resend_code", "too_many_codes"): Setup(coded),
        ("log_out", "logged_out"): Setup(member),
        ("find_product", "found"): Setup(arguments={"product": "tea"}),
        ("find_product", "out_of_stock"): Setup(arguments={"product": "jacket"}),
        ("find_product", "unknown_product"): Setup(arguments={"product": "{drone}"}),
        ("add_to_cart", "added"): Setup(arguments={"product": "tea", "quantity": 2}),
        ("add_to_cart", "out_of_stock"): Setup(arguments={"product": "jacket"}),
        ("add_to_cart", "unknown_product"): Setup(arguments={"product": "drone"}),
        ("add_to_cart", "too_many"): Setup(arguments={"product": "tea", "quantity": 99}),
        ("remove_from_cart", "removed"): Setup(changed, {"product": "kettle"}),
        ("remove_from_cart", "not_in_cart"): Setup(changed, {"product": "{tea"}),
        ("view_cart", "shown"): Setup(changed),
        ("view_cart", "empty"): Setup(),
        ("check_out", "summarised"): Setup(changed, {"address": "1 {High} St"}),
        ("confirm_order", "submitted"): Setup(summarized),
        ("confirm_order", "out_of_stock"): Setup(sold_out),
        ("confirm_order", "changed"): Setup(changed),
        ("decline_order", "declined"): Setup(summarized),
        ("cancel_order", "cancelled"): Setup(with_order(), LAST),
        ("cancel_order", "unknown_order"): Setup(with_order(), UNKNOWN),
        ("cancel_order", "no_orders"): Setup(member, LAST),
        ("cancel_order", "too_late"): Setup(with_order(**DELIVERED), LAST),
        ("assign_courier", "courier_assigned"): Setup(submitted, event=True),
        ("assign_courier", "no_courier"): Setup(without_courier, event=True),
        ("send_delivery_details", "details_sent"): Setup(assigned, event=True),
        ("track_order", "tracked"): Setup(with_order(status=OrderStatus.ASSIGNED), LAST),
        ("track_order", "no_parcel"): Setup(with_order(), LAST),
        ("track_order", "unknown_order"): Setup(with_order(), UNKNOWN),
        ("track_order", "no_orders"): Setup(member, LAST),
        ("change_address", "changed"): Setup(with_order(), LAST | {"address": "1 St"}),
        ("change_address", "too_late"): Setup(with_order(**DELIVERED), LAST | {"address": "1 St"}),
        ("change_address", "unknown_order"): Setup(with_order(), UNKNOWN | {"address": "1 St"}),
        ("change_address", "no_orders"): Setup(member, LAST | {"address": "1 St"}),
        ("confirm_delivery", "delivered"): Setup(with_order(status=OrderStatus.ASSIGNED), LAST),
        ("confirm_delivery", "not_on_its_way"): Setup(with_order(), LAST),
        ("confirm_delivery", "unknown_order"): Setup(with_order(), UNKNOWN),
        ("confirm_delivery", "no_orders"): Setup(member, LAST),
        ("answer_question", "answered"): Setup(arguments={"topic": "opening_hours"}),
        ("schedule_follow_up", "scheduled"): Setup(member, {"time": "tomorrow at 3pm"}),
        ("schedule_follow_up", "unclear_time"): Setup(member, {"time": "{soon}"}),
        ("schedule_follow_up", "not_open"): Setup(member, {"time": "tomorrow at 3am"}),
        ("affirm", "affirmed"): Setup(unsure),
        ("deny", "denied"): Setup(unsure),
        ("deny", "denied_one"): Setup(unsure_about_two),
        ("set_quantity", "changed"): Setup(with_cart, {"product": "board game", "quantity": 2}),
        ("set_quantity", "not_in_cart"): Setup(with_cart, {"product": "{tea", "quantity": 2}),
        ("set_quantity", "out_of_stock"): Setup(
            with_cart, {"product": "board game", "quantity": 9}
        ),
        ("set_quantity", "too_many"): Setup(with_cart, {"product": "board game", "quantity": 99}),
        ("list_orders", "listed"): Setup(with_order()),
        ("list_orders", "none"): Setup(member),
        ("correct_contact", "code_sent"): Setup(verifying, {"contact": "bea@example.com"}),
        ("correct_contact", "unknown_contact"): Setup(logging_in, {"contact": "bea@example.com"}),
        ("correct_contact", "too_many_codes"): Setup(coded, CONTACT),
        ("correct_name", "corrected"): Setup(verifying, {"name": "{Bea}"}),
    }
    | {
        (f"request_{kind}", "changed"): Setup(claimed_as(other), CLAIM, message=INSTEAD)
        for kind, other in (("refund", "return"), ("return", "exchange"), ("exchange", "refund"))
    }
    | {
        (f"request_{kind}", n): w
        for kind in ("refund", "return", "exchange")
        for n, w in CLAIMS.items()
    }
)


def carry_out(shop: Shop, action: str, setup: Setup, language: str) -> Step:
    setup.before(shop)
    if setup.event:
        shop.act("s", "greet", message=GREETING[language])
        return shop.event("s", Event("order_submitted", "SO-1001"), action)
    return shop.act("s", action, message=setup.message[language], **setup.arguments)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("action, outcome", [pair for pair in OUTCOMES if pair not in UNREACHABLE])
def test_outcome_is_reachable_in_both_languages(
    shop: Shop, action: str, outcome: str, language: str
) -> None:
    step = carry_out(shop, action, SETUPS[action, outcome], language)
    spec = BOOK.actions[action].outcomes[outcome]
    assert (step.report.outcome, step.result) == (outcome, spec.result)
    assert len(step.report.messages) == (spec.message is not None)
    for message in step.report.messages:
        assert message.language == language
        assert any("\u4e00" <= c <= "\u9fff" for c in message.text) == (language == "zh")


@pytest.mark.parametrize("topic", BOOK.slots["topic"].values)
def test_every_topic_has_an_answer(shop: Shop, topic: str) -> None:
    for language in ("en", "zh"):
        step = shop.act("s", "answer_question", message=GREETING[language], topic=topic)
        assert "{" not in step.report.messages[0].text


@pytest.mark.parametrize("slot", BOOK.slots)
def test_every_slot_can_be_asked_for(slot: str) -> None:
    assert set(BOOK.slots[slot].ask) == {"en", "zh"}
