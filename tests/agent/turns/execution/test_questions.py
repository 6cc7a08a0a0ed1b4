"""Questions come one at a time, and a summary is a question."""

from typing import Any

from tests.support.shop import CODE, Shop
from tests.support.turns import LOG_IN, VERIFY, refund, say, sign_up

from gpt2flow.agent.flows.prompt import CONFIRMATION, Choice
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import Checkout, Order, OrderStatus


def unsure(action: str, **arguments: Any) -> Choice:
    return Choice(action, arguments, confidence=0.1)


def outcomes(report: TurnReport) -> list[tuple[str, str | None]]:
    """Return what each action did or asked for."""
    return [(action.action, action.asked or action.outcome) for action in report.actions]


def test_questions_of_one_message_are_asked_one_at_a_time(shop: Shop) -> None:
    shop.log_in("s")
    first, second = shop.order(), shop.order()
    unsure = [Choice("cancel_order", {"order": n}, confidence=0.1) for n in (first, second)]
    report = say(shop, "cancel both", *unsure, "view_cart")
    assert [(a.action, a.result, a.asked) for a in report.actions] == [
        ("cancel_order", "asked", CONFIRMATION),
        ("cancel_order", "blocked", None),
        ("view_cart", "ok", None),
    ]
    assert [len(action.messages) for action in report.actions] == [1, 0, 1]
    report = say(shop, "yes", "affirm")
    assert [(a.action, a.used.get("order"), a.result) for a in report.actions[1:]] == [
        ("cancel_order", first, "ok"),
        ("cancel_order", second, "asked"),
    ]
    report = say(shop, "yes", "affirm")
    assert outcomes(report)[-1] == ("cancel_order", "cancelled")
    assert {order.status for order in shop.rows(Order)} == {OrderStatus.CANCELLED}


def test_question_for_a_value_waits_for_the_one_before(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1)
    change = Choice("change_address", {"order": number})
    report = say(shop, "refund it and send it elsewhere", refund(number), change)
    assert [(a.asked, a.result) for a in report.actions] == [("reason", "asked"), (None, "blocked")]
    report = say(shop, "broken", refund(number, reason="damaged"))
    assert [(a.action, a.asked) for a in report.actions] == [
        ("request_refund", None),
        ("change_address", "address"),
    ]


def test_postponed_wish_is_asked_after_a_no_too(shop: Shop) -> None:
    shop.log_in("s")
    numbers = shop.order(), shop.order()
    say(shop, "both", *(Choice("cancel_order", {"order": n}, confidence=0.1) for n in numbers))
    report = say(shop, "no", "deny")
    assert [(a.action, a.asked) for a in report.actions] == [
        ("deny", None),
        ("cancel_order", CONFIRMATION),
    ]
    assert report.actions[1].used == {"order": numbers[1]}


def test_another_address_for_a_summary_changes_the_summary(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle", address="12 Elm St, Leeds")
    step = shop.act("s", "change_address", address="5 Oak Rd, York")
    assert (step.report.wish, step.report.outcome) == ("change_address", "summarised")
    assert step.report.used == {"address": "5 Oak Rd, York"}
    assert "confirming" in shop.facts("s")


def test_cancelling_before_an_order_is_submitted_declines_it(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    step = shop.act("s", "cancel_order")
    assert (step.report.wish, step.report.outcome) == ("cancel_order", "declined")
    assert shop.rows(Order) == []


def test_wish_that_names_its_order_is_about_that_order(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order()
    shop.check_out("s", "kettle")
    assert shop.act("s", "cancel_order", order=number).report.outcome == "cancelled"
    assert "confirming" in shop.facts("s")


def test_message_that_answers_its_own_question_closes_it(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order()
    say(shop, "ann@example.com", LOG_IN)
    track = Choice("track_order", {"order": number})
    report = say(shop, f"where is {number}? my code is {CODE}", track, VERIFY)
    assert outcomes(report) == [
        ("verify", "code"),
        ("verify", "verified"),
        ("track_order", "no_parcel"),
    ]


def test_wish_that_another_makes_impossible_is_not_resumed(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    say(shop, "submit it, and change the quantity", unsure("confirm_order"), "set_quantity")
    report = say(shop, "yes", "affirm")
    assert outcomes(report) == [("affirm", "affirmed"), ("confirm_order", "submitted")]
    assert len(report.events) == 1


def test_summary_is_a_question(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order()
    shop.act("s", "add_to_cart", product="kettle")
    check_out = Choice("check_out", {"address": "5 Oak Rd"})
    cancelling = unsure("cancel_order", order=number)
    report = say(shop, "cancel it and check out to 5 Oak Rd", cancelling, check_out)
    assert [action.asked for action in report.actions] == [CONFIRMATION, None]
    report = say(shop, "yes", "affirm")
    assert outcomes(report)[1:] == [("cancel_order", "cancelled"), ("check_out", "summarised")]


def test_doubt_after_a_summary_waits_for_the_answer_to_it(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order()
    shop.act("s", "add_to_cart", product="kettle")
    check_out = Choice("check_out", {"address": "5 Oak Rd"})
    report = say(
        shop, "check out, cancel the other", check_out, unsure("cancel_order", order=number)
    )
    assert [action.asked for action in report.actions] == [None, None]
    report = say(shop, "yes", "confirm_order")
    assert outcomes(report) == [("confirm_order", "submitted"), ("cancel_order", CONFIRMATION)]


def test_new_address_of_a_summary_is_asked_for(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle", address="1 First St")
    shop.act("s", "confirm_order")
    shop.check_out("s", "kettle", address="2 Second St")
    step = shop.act("s", "change_address", message="I want to change the address")
    assert (step.report.wish, step.report.asked) == ("change_address", "address")


def test_order_that_the_message_names_is_meant_though_the_model_left_it_out(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order()
    shop.check_out("s", "kettle")
    step = shop.act("s", "cancel_order", message=f"cancel {number}")
    assert (step.report.used, step.report.outcome) == ({"order": number}, "cancelled")


def test_later_address_of_a_message_counts(shop: Shop) -> None:
    shop.log_in("s")
    shop.act("s", "add_to_cart", product="kettle")
    check_out = Choice("check_out", {"address": "12 Elm St"})
    say(
        shop,
        "to 12 Elm St, no, 5 Oak Rd",
        check_out,
        Choice("change_address", {"address": "5 Oak Rd"}),
    )
    assert [row.address for row in shop.rows(Checkout)] == ["5 Oak Rd"]


def test_many_postponed_wishes_are_all_asked_about(shop: Shop) -> None:
    shop.log_in("s")
    numbers = [shop.order() for _ in range(5)]
    say(shop, "cancel all", *(unsure("cancel_order", order=number) for number in numbers))
    for _ in numbers:
        say(shop, "yes", "affirm")
    assert {order.status for order in shop.rows(Order)} == {OrderStatus.CANCELLED}


def test_postponed_wish_that_is_named_again_is_asked_once(shop: Shop) -> None:
    shop.log_in("s")
    first, second = shop.order(), shop.order()
    say(shop, "both", unsure("cancel_order", order=first), unsure("cancel_order", order=second))
    report = say(shop, "the second too", unsure("cancel_order", order=second))
    assert outcomes(report) == [("cancel_order", CONFIRMATION)]
    assert outcomes(say(shop, "yes", "affirm"))[1:] == [("cancel_order", "cancelled")]


def test_person_takes_over_what_is_in_doubt(shop: Shop) -> None:
    shop.log_in("s")
    numbers = shop.order(), shop.order()
    say(shop, "both", *(unsure("cancel_order", order=number) for number in numbers))
    report = say(shop, "let me talk to a person", "escalate")
    assert outcomes(report) == [("escalate", "handed_over")]
    assert outcomes(say(shop, "thanks", "greet")) == [("greet", "greeted")]


def test_no_asks_what_else_only_if_nothing_waits(shop: Shop) -> None:
    shop.log_in("s")
    numbers = shop.order(), shop.order()
    say(shop, "both", *(unsure("cancel_order", order=number) for number in numbers))
    assert outcomes(say(shop, "no", "deny"))[0] == ("deny", "denied_one")
    assert outcomes(say(shop, "no", "deny")) == [("deny", "denied")]


def test_login_that_waits_is_no_wish_of_its_own(shop: Shop) -> None:
    report = say(shop, "an account please, and where is my order", "register", "track_order")
    assert [action.asked for action in report.actions] == ["name", None]
    say(shop, "Bob", Choice("register", {"name": "Bob"}))
    report = say(shop, "bob@example.com", Choice("register", {"contact": "bob@example.com"}))
    assert outcomes(report) == [("register", "code_sent")]
    assert outcomes(say(shop, CODE, VERIFY)) == [
        ("verify", "verified"),
        ("track_order", "no_orders"),
    ]
