"""Questions before risky actions that the model is unsure of."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.shop import CODE, Shop
from tests.support.turns import say, snapshot

from gpt2flow.agent.flows.prompt import CONFIRMATION, Choice
from gpt2flow.agent.flows.schema import Confirm
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import (
    Case,
    CaseKind,
    Checkout,
    Order,
    OrderStatus,
    Verification,
)
from gpt2flow.agent.turns.execution import Executor

UNSURE = 0.1
GREETING = {"en": "hello", "zh": "你好"}
SUBMITTED, DELIVERED, ON_ITS_WAY = "SO-1001", "SO-1002", "SO-1003"
# Tables of the conversation itself.
RECORDS = ("executed_actions", "model_calls", "outbox", "sessions")

# Risky actions of Ann with their questions and outcomes.
RISKY: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "confirm_order": (
        {},
        "Shall I submit your order: 1 × electric kettle (29.90), total 29.90?",
        "提交订单: 1 × 电热水壶 (29.90), 合计 29.90, 对吗?",
        "submitted",
    ),
    "cancel_order": (
        {"order": SUBMITTED},
        "Shall I cancel order SO-1001 (12.90)?",
        "取消订单 SO-1001 (12.90), 对吗?",
        "cancelled",
    ),
    "change_address": (
        {"order": SUBMITTED, "address": "7 Elm St"},
        "Shall I send order SO-1001 to 7 Elm St?",
        "订单 SO-1001 改寄到 7 Elm St, 对吗?",
        "changed",
    ),
    "confirm_delivery": (
        {"order": ON_ITS_WAY},
        "Has order SO-1003 arrived?",
        "订单 SO-1003 已经收到了, 对吗?",
        "delivered",
    ),
    "request_refund": (
        {"order": DELIVERED, "reason": "damaged"},
        "Shall I open a refund for order SO-1002 (12.90): it came damaged?",
        "为订单 SO-1002 (12.90) 申请退款, 原因是收到时破损, 对吗?",
        "approved",
    ),
    "correct_name": (
        {"name": "Bea"},
        "Shall I change your name to Bea?",
        "把您的名字改成 Bea, 对吗?",
        "corrected",
    ),
}


def member(shop: Shop) -> None:
    """Log in Ann, who has three orders and a summary to confirm."""
    shop.log_in("s")
    shop.order()
    shop.order(delivered_days_ago=1)
    shop.order(status=OrderStatus.ASSIGNED, collected=True)
    shop.check_out("s", "kettle")


def doubt_cancellation(shop: Shop) -> Step:
    return shop.act("s", "cancel_order", confidence=UNSURE, order=SUBMITTED)


def status(shop: Shop, number: str) -> OrderStatus:
    return next(order.status for order in shop.rows(Order) if order.number == number)


def shop_records(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of all tables, except those of the conversation itself."""
    return {name: rows for name, rows in snapshot(shop).items() if name not in RECORDS}


def with_rules(shop: Shop, confirm_below: float, confirm: Confirm = "unsure") -> Shop:
    """Return the shop with another threshold, and another rule for `cancel_order`."""
    flow = shop.book.flows["order"]
    spec = flow.actions["cancel_order"].model_copy(update={"confirm": confirm})
    flow = flow.model_copy(update={"actions": {**flow.actions, "cancel_order": spec}})
    book = replace(shop.book, flows={**shop.book.flows, "order": flow})
    executor = Executor(book, shop.database, shop.clock, lambda: CODE, confirm_below)
    return replace(shop, book=book, executor=executor)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("action", RISKY)
def test_doubtful_action_is_asked_about_and_not_carried_out(
    shop: Shop, action: str, language: str
) -> None:
    member(shop)
    shop.act("s", "greet", message=GREETING[language])
    arguments, english, chinese, _ = RISKY[action]
    before, records = shop_records(shop), snapshot(shop)
    step = shop.act("s", action, message=GREETING[language], confidence=UNSURE, **arguments)
    assert (step.result, step.report.asked, step.report.outcome) == ("asked", CONFIRMATION, None)
    assert step.report.used == arguments
    assert [m.text for m in step.report.messages] == [english if language == "en" else chinese]
    assert step.raised is None
    assert shop_records(shop) == before
    assert {change.table for change in step.report.changes} == {"sessions"}
    for table in ("executed_actions", "outbox"):
        assert len(snapshot(shop)[table]) == len(records[table]) + 1


@pytest.mark.parametrize("action", RISKY)
def test_yes_carries_out_what_was_meant(shop: Shop, action: str) -> None:
    member(shop)
    arguments, *_, outcome = RISKY[action]
    shop.act("s", action, confidence=UNSURE, **arguments)
    assert "unsure" in shop.facts("s")
    report = say(shop, "yes", "affirm")
    yes, meant = report.actions
    assert (yes.outcome, yes.messages) == ("affirmed", [])
    assert (meant.action, meant.outcome, meant.resumed) == (action, outcome, True)
    assert meant.used == arguments
    assert "unsure" not in shop.facts("s")
    assert say(shop, "thanks", "greet").actions[0].outcome == "greeted"


def test_confirmed_order_is_shipped(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    report = say(shop, "ok", Choice("confirm_order", confidence=UNSURE))
    assert (report.actions[0].asked, report.events) == (CONFIRMATION, [])
    report = say(shop, "yes", "affirm")
    assert [action.outcome for action in report.events[0].actions] == [
        "courier_assigned",
        "details_sent",
    ]


def test_registration_in_doubt_sends_no_code(shop: Shop) -> None:
    contact = {"name": "Ann", "contact": "ann@example.com"}
    step = shop.act("s", "register", confidence=UNSURE, **contact)
    (sent,) = step.report.messages
    assert (sent.to, sent.text) == (None, "Shall I open an account for Ann with ann@example.com?")
    assert shop.rows(Verification) == []
    say(shop, "yes", "affirm")
    assert shop.rows(Verification)[0].contact == "ann@example.com"


def test_no_discards_what_was_meant(shop: Shop) -> None:
    member(shop)
    before = shop_records(shop)
    doubt_cancellation(shop)
    report = say(shop, "no", "deny")
    assert [action.outcome for action in report.actions] == ["denied"]
    assert "I have not done that" in report.messages[0].text
    assert shop_records(shop) == before
    assert shop.facts("s") == {"member", "cart", "confirming"}
    assert say(shop, "yes", "affirm").actions[0].action == "confirm_order"


@pytest.mark.parametrize("between", [[], ["deny"], ["clarify"]])
def test_second_doubt_about_an_action_goes_to_a_person(shop: Shop, between: list[str]) -> None:
    member(shop)
    doubt_cancellation(shop)
    for action in between:
        shop.act("s", action)
    before = shop.rows(Order)
    step = shop.act("s", "cancel_order", message="hmm", confidence=UNSURE, order=SUBMITTED)
    assert (step.report.action, step.report.outcome) == ("escalate", "handed_over")
    (case,) = shop.rows(Case)
    assert (case.kind, case.note) == (CaseKind.HAND_OVER, "hmm")
    assert [order.status for order in shop.rows(Order)] == [order.status for order in before]
    assert "unsure" not in shop.facts("s")
    assert doubt_cancellation(shop).report.asked == CONFIRMATION


def test_other_action_in_between_resets_the_doubt(shop: Shop) -> None:
    member(shop)
    doubt_cancellation(shop)
    shop.act("s", "view_cart")
    assert "unsure" not in shop.facts("s")
    assert doubt_cancellation(shop).report.asked == CONFIRMATION
    step = shop.act("s", "correct_name", confidence=UNSURE, name="Bea")
    assert step.report.asked == CONFIRMATION
    assert shop.rows(Case) == []


def test_refused_action_needs_no_question(shop: Shop) -> None:
    member(shop)
    step = shop.act("s", "cancel_order", confidence=UNSURE, order=DELIVERED)
    assert (step.result, step.report.outcome) == ("refused", "too_late")
    assert shop.state("s", "x").prompt_state.awaiting is None


def test_refused_action_keeps_what_it_recorded(shop: Shop) -> None:
    """A changed cart gets a new summary, a delivery report a case."""
    member(shop)
    shop.act("s", "add_to_cart", product="umbrella")
    assert shop.act("s", "confirm_order", confidence=UNSURE).report.outcome == "changed"
    assert len(shop.rows(Checkout)[0].lines) == 2
    step = shop.act("s", "confirm_delivery", confidence=UNSURE, order=SUBMITTED)
    assert step.report.outcome == "not_on_its_way"
    assert [case.kind for case in shop.rows(Case)] == [CaseKind.DELIVERY_REPORT]
    assert ("cases", "insert") in [(c.table, c.change) for c in step.report.changes]


def test_missing_slot_is_asked_for_before_the_doubt(shop: Shop) -> None:
    member(shop)
    step = shop.act("s", "request_refund", confidence=UNSURE, order=DELIVERED)
    assert step.report.asked == "reason"
    step = shop.act("s", "request_refund", confidence=UNSURE, reason="damaged")
    assert (step.report.asked, step.report.used["order"]) == (CONFIRMATION, DELIVERED)


@pytest.mark.parametrize(
    "confirm, confirm_below, confidence, asks",
    [
        ("unsure", 0.5, 0.49, True),
        ("unsure", 0.5, 0.5, False),
        ("unsure", 0.0, 0.0, False),
        ("never", 1.0, 0.0, False),
        ("always", 0.0, 1.0, True),
    ],
)
def test_confidence_and_rule_decide_about_the_question(
    shop: Shop, confirm: Confirm, confirm_below: float, confidence: float, *, asks: bool
) -> None:
    member(shop)
    shop = with_rules(shop, confirm_below, confirm)
    step = shop.act("s", "cancel_order", confidence=confidence, order=SUBMITTED)
    assert step.report.asked == (CONFIRMATION if asks else None)
    assert (status(shop, SUBMITTED) is OrderStatus.CANCELLED) != asks


def test_action_that_always_asks_takes_one_yes(shop: Shop) -> None:
    member(shop)
    shop = with_rules(shop, 0.0, "always")
    report = say(shop, "cancel it", Choice("cancel_order", {"order": SUBMITTED}))
    assert report.actions[0].asked == CONFIRMATION
    assert say(shop, "yes", "affirm").actions[1].outcome == "cancelled"


def test_wish_of_a_guest_that_always_asks_is_asked_about_after_the_login(shop: Shop) -> None:
    shop.log_in("other")
    number = shop.order()
    shop = with_rules(shop, 0.0, "always")
    cancel = Choice("cancel_order", {"order": number})
    assert say(shop, "cancel it, ann@example.com", cancel).actions[0].outcome == "code_sent"
    assert say(shop, CODE, Choice("verify", {"code": CODE})).actions[1].asked == CONFIRMATION
    assert say(shop, "yes", "affirm").actions[1].outcome == "cancelled"


def test_correction_takes_the_other_arguments_along(shop: Shop) -> None:
    member(shop)
    other = shop.order(delivered_days_ago=3)
    shop.act("s", "request_refund", confidence=UNSURE, order=DELIVERED, reason="wrong_size")
    step = shop.act("s", "request_refund", message=f"no, {other}", order=other)
    assert step.report.used == {"order": other, "reason": "wrong_size"}
    assert step.report.outcome == "approved"
    assert len(shop.rows(Case)) == 1


@pytest.mark.parametrize("wish, instead", [("affirm", "confirm_order"), ("deny", "decline_order")])
def test_answer_without_a_question_is_about_the_order_summary(
    shop: Shop, wish: str, instead: str
) -> None:
    step = shop.act("s", wish)
    assert (step.report.action, step.report.wish, step.result) == ("clarify", wish, "blocked")
    shop.log_in("s")
    shop.check_out("s", "kettle")
    step = shop.act("s", wish)
    assert (step.report.action, step.report.wish, step.report.outcome) == (
        instead,
        wish,
        "submitted" if wish == "affirm" else "declined",
    )


def test_answer_without_a_question_is_ignored_beside_an_action(shop: Shop) -> None:
    report = say(shop, "yes, tea", Choice("add_to_cart", {"product": "tea"}), "affirm")
    assert [action.result for action in report.actions] == ["ok", "blocked"]
    assert len(report.messages) == 1


@pytest.mark.parametrize("text", ["no, where is my order", "Nope! where is it", "不是, 我问在哪"])
def test_a_no_is_never_taken_for_the_action_that_was_asked_about(shop: Shop, text: str) -> None:
    """A person sees what the customer means, however sure the model is."""
    shop.log_in("s")
    order = shop.order(status=OrderStatus.ASSIGNED)
    shop.act("s", "confirm_delivery", message="my parcel", order=order, confidence=0.1)
    step = shop.act("s", "confirm_delivery", message=text, order=order)
    assert step.report.outcome == "handed_over"
    assert shop.rows(Order)[0].status is OrderStatus.ASSIGNED


def test_a_no_with_another_order_is_a_new_wish(shop: Shop) -> None:
    shop.log_in("s")
    one, other = shop.order(), shop.order()
    shop.act("s", "cancel_order", message=f"cancel {one}", order=one, confidence=0.1)
    step = shop.act("s", "cancel_order", message=f"no, {other}", order=other)
    assert step.report.outcome == "cancelled"
    assert [row.status for row in shop.rows(Order)] == [
        OrderStatus.SUBMITTED,
        OrderStatus.CANCELLED,
    ]


def test_a_greeting_does_not_end_a_doubt(shop: Shop) -> None:
    """An angry customer gets a person, not the question again."""
    member(shop)
    wish = Choice("cancel_order", {"order": SUBMITTED}, UNSURE)
    assert say(shop, "SO-1001 !!", wish).actions[-1].asked == CONFIRMATION
    assert say(shop, "hello?!", Choice("greet")).actions[-1].outcome == "greeted"
    report = say(shop, "no! SO-1001 !!", wish)
    assert [action.outcome for action in report.actions] == ["denied_one", "handed_over"]
    assert [case.kind for case in shop.rows(Case)] == [CaseKind.HAND_OVER]


@pytest.mark.parametrize("confidence, is_asked", [(0.45, True), (0.55, False)])
def test_a_guessed_topic_is_asked_about(shop: Shop, confidence: float, *, is_asked: bool) -> None:
    """A wrong answer costs nothing, so the limit is lower."""
    shop = with_rules(shop, 0.8)
    wish = Choice("answer_question", {"topic": "privacy"}, confidence)
    (action,) = say(shop, "which details do couriers get", wish).actions
    assert (action.asked == CONFIRMATION) is is_asked
    if is_asked:
        assert action.messages[0].text == "Is your question about privacy?"
        report = say(shop, "no, the couriers", wish)
        assert [action.outcome for action in report.actions] == ["denied_one", "handed_over"]
