"""Wishes that are not legal yet, and how they go on."""

from dataclasses import replace

import pytest
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import CODE, Shop
from tests.support.turns import (
    LOG_IN,
    VERIFY,
    InlineWorkflow,
    new_handler,
    refund,
    say,
    sign_up,
    snapshot,
)

from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.flows.schema import Fallback
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import CartLine, Case, ExecutedAction, Order, Verification
from gpt2flow.agent.turns.execution import Event, Executor


def log_in(shop: Shop, *choices: Choice | str) -> TurnReport:
    """Log in Ann; the choices follow the verification of her code."""
    say(shop, "ann@example.com", LOG_IN)
    return say(shop, CODE, VERIFY, *choices)


def cancel(number: str) -> Choice:
    return Choice("cancel_order", {"order": number})


def actions(report: TurnReport) -> list[tuple[str, str | None]]:
    return [(action.action, action.outcome) for action in report.actions]


def test_refund_of_a_guest_asks_for_the_login(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order(delivered_days_ago=1)
    step = shop.act("s", "request_refund", order=number, reason="damaged")
    assert (step.report.action, step.report.wish) == ("log_in", "request_refund")
    assert (step.report.asked, step.result) == ("contact", "blocked")
    assert step.resumable == []
    assert shop.rows(Case) == []
    assert shop.state("s", "x").prompt_state.awaiting == ("log_in", "contact")


def test_wish_goes_on_after_the_login(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order(delivered_days_ago=1)
    shop.order(delivered_days_ago=2)
    say(shop, f"{number} came broken", refund(number, reason="damaged"))
    report = log_in(shop)
    assert actions(report) == [("verify", "verified"), ("request_refund", "approved")]
    assert [action.resumed for action in report.actions] == [False, True]
    assert report.actions[1].used == {"order": number, "reason": "damaged"}
    (case,) = shop.rows(Case)
    assert (case.reason, case.note) == ("damaged", f"{number} came broken")


def test_fulfilled_wish_does_not_go_on_again(shop: Shop) -> None:
    sign_up(shop)
    say(shop, "my orders", "list_orders")
    log_in(shop)
    assert actions(say(shop, "hello", "greet")) == [("greet", "greeted")]


def test_wishes_of_one_message_ask_for_one_login(shop: Shop) -> None:
    sign_up(shop)
    delivered, submitted = shop.order(delivered_days_ago=1), shop.order()
    text = f"refund {delivered}, it is broken, and cancel {submitted}"
    report = say(shop, text, refund(delivered, reason="damaged"), cancel(submitted))
    assert actions(report) == [("log_in", None), ("cancel_order", None)]
    assert [action.result for action in report.actions] == ["asked", "blocked"]
    assert len(report.messages) == 1
    report = log_in(shop)
    assert actions(report)[1:] == [("request_refund", "approved"), ("cancel_order", "cancelled")]
    assert [action.used["order"] for action in report.actions[1:]] == [delivered, submitted]


def test_contact_in_the_message_is_used_for_the_login(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order(delivered_days_ago=1)
    text = f"I am ann@example.com and {number} came broken"
    report = say(shop, text, refund(number, reason="damaged"))
    assert actions(report) == [("log_in", "code_sent")]
    assert report.messages[0].to == "ann@example.com"
    report = say(shop, CODE, VERIFY)
    assert actions(report) == [("verify", "verified"), ("request_refund", "approved")]


def test_one_of_two_contacts_in_the_message_is_asked_for(shop: Shop) -> None:
    sign_up(shop)
    report = say(shop, "my orders, ann@example.com or bob@example.com", "list_orders")
    assert report.actions[0].asked == "contact"


def test_login_that_the_message_asks_for_as_well_sends_one_code(shop: Shop) -> None:
    sign_up(shop)
    report = say(shop, "log in ann@example.com, then my orders", "list_orders", LOG_IN)
    assert actions(report) == [("log_in", "code_sent")]


def test_wishes_go_on_in_order_and_each_once(shop: Shop) -> None:
    sign_up(shop)
    shop.order()
    for wish in ("list_orders", "track_order", "list_orders", "cancel_order"):
        shop.act("s", wish)
    report = log_in(shop)
    assert [action.action for action in report.actions[1:]] == [
        "track_order",
        "list_orders",
        "cancel_order",
    ]


def test_the_latest_eight_wishes_are_kept(shop: Shop) -> None:
    sign_up(shop)
    for number in range(1, 11):
        shop.act("s", "track_order", order=f"SO-{number}")
    report = log_in(shop)
    tracked = [action.arguments["order"] for action in report.actions[1:]]
    assert tracked == [f"SO-{number}" for number in range(3, 11)]


def test_wish_waits_until_it_is_legal(shop: Shop) -> None:
    """A guest with an empty cart wants to check out."""
    sign_up(shop)
    say(shop, "check out to 5 Oak Rd", Choice("check_out", {"address": "5 Oak Rd"}))
    assert actions(log_in(shop)) == [("verify", "verified")]
    report = say(shop, "tea please", Choice("add_to_cart", {"product": "tea"}))
    assert actions(report) == [("add_to_cart", "added"), ("check_out", "summarised")]
    assert report.actions[1].used == {"address": "5 Oak Rd"}


def test_logging_out_drops_the_wishes(shop: Shop) -> None:
    sign_up(shop)
    say(shop, "check out to 5 Oak Rd", Choice("check_out", {"address": "5 Oak Rd"}))
    log_in(shop)
    shop.act("s", "log_out")
    shop.act("s", "add_to_cart", product="tea")
    assert actions(log_in(shop)) == [("verify", "verified")]


def test_resumed_wish_that_the_message_repeats_is_carried_out_once(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order(delivered_days_ago=1)
    say(shop, "refund, it is broken", refund(number, reason="damaged"))
    report = log_in(shop, refund(number), "view_cart")
    assert actions(report)[1:] == [("request_refund", "approved"), ("view_cart", "empty")]
    assert len(shop.rows(Case)) == 1


def test_other_wish_beside_a_resumed_one_is_carried_out(shop: Shop) -> None:
    sign_up(shop)
    first, second = shop.order(), shop.order()
    say(shop, f"cancel {first}", cancel(first))
    report = log_in(shop, cancel(second))
    assert [action.used.get("order") for action in report.actions] == [None, first, second]
    assert [action.resumed for action in report.actions] == [False, True, False]


def test_resumed_wish_without_a_slot_asks_for_it(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order(delivered_days_ago=1)
    shop.order(delivered_days_ago=2)
    say(shop, f"refund {number}", refund(number))
    report = log_in(shop)
    assert (report.actions[1].action, report.actions[1].asked) == ("request_refund", "reason")
    report = say(shop, "it is broken", Choice("request_refund", {"reason": "damaged"}))
    assert report.actions[0].used == {"order": number, "reason": "damaged"}
    assert report.actions[0].outcome == "approved"


def test_message_with_the_same_key_changes_nothing(shop: Shop) -> None:
    sign_up(shop)
    number = shop.order(delivered_days_ago=1)
    wish = refund(number, reason="damaged")
    messages = [("it is broken", wish), ("ann@example.com", LOG_IN), (CODE, VERIFY)]
    for text, choice in messages:
        first, before = say(shop, text, choice, key=text), snapshot(shop)
        second, after = say(shop, text, choice, key=text), snapshot(shop)
        assert second.actions == first.actions
        # A durable workflow replays the prompt as well.
        assert before | {"model_calls": []} == after | {"model_calls": []}
    assert len(shop.rows(Case)) == 1


def test_action_that_is_not_legal_for_an_event_is_an_error(shop: Shop) -> None:
    """An event takes no fallback, even if a flow file offers one."""
    flow = shop.book.flows["shipping"]
    fallback = Fallback(when=["submitted"], action="assign_courier")
    spec = flow.actions["send_delivery_details"].model_copy(update={"otherwise": [fallback]})
    flow = flow.model_copy(update={"actions": {**flow.actions, "send_delivery_details": spec}})
    book = replace(shop.book, flows={**shop.book.flows, "shipping": flow})
    shop = replace(shop, executor=Executor(book, shop.database, shop.clock, lambda: CODE))
    shop.log_in("s")
    event, executed = Event("order_submitted", shop.order()), len(shop.rows(ExecutedAction))
    with pytest.raises(ModelError, match="'send_delivery_details', which is not allowed now"):
        shop.event("s", event, "send_delivery_details")
    assert len(shop.rows(ExecutedAction)) == executed


def test_latest_actions_of_earlier_messages_are_in_the_prompt(shop: Shop) -> None:
    shop.act("s", "view_cart")
    shop.act("s", "find_product", product="drone")
    shop.act("s", "add_to_cart")
    shop.act("s", "list_orders")
    model = ScriptedModel({"hi": ["greet", "view_cart"]})
    new_handler(shop, model).handle_message(InlineWorkflow(), "m", "s", "m", "hi")
    past = "<|past|>find_product refused, add_to_cart asked, list_orders blocked"
    prompt = f"<|state|>guest awaiting log_in contact{past}<|user|>hi<|act|>"
    assert model.prompts[0] == prompt
    assert model.prompts[1].startswith(prompt)
    state = shop.state("s", "x").prompt_state
    assert state.past[-3:] == (("list_orders", "blocked"), ("greet", "ok"), ("view_cart", "ok"))


def test_new_session_has_no_past(shop: Shop) -> None:
    assert shop.state("s", "x").prompt_state.past == ()


def test_wish_while_a_code_is_awaited_asks_for_the_code(shop: Shop) -> None:
    sign_up(shop)
    say(shop, "ann@example.com", LOG_IN)
    (action,) = say(shop, "and list my orders", "list_orders").actions
    assert (action.action, action.asked, action.wish) == ("verify", "code", "list_orders")
    assert actions(say(shop, CODE, VERIFY)) == [("verify", "verified"), ("list_orders", "none")]


def test_login_says_why_it_is_asked_for(shop: Shop) -> None:
    sign_up(shop)
    (action,) = say(shop, "where is my order", "track_order").actions
    assert action.messages[0].text.startswith("For that I need to know who you are. ")


@pytest.mark.parametrize("text", ["yes please", "好的", "ok, sure!", "嗯嗯 好的, 谢谢"])
def test_a_plain_yes_accepts_what_was_offered(shop: Shop, text: str) -> None:
    """The model takes it for a greeting."""
    say(shop, "log in new@example.com", Choice("log_in", {"contact": "new@example.com"}))
    report = say(shop, text, Choice("greet"))
    assert [(action.action, action.asked) for action in report.actions] == [("register", "name")]
    say(shop, "Bea Moss", Choice("register", {"name": "Bea Moss"}))
    assert shop.rows(Verification)[0].contact == "new@example.com"


def test_an_offered_action_needs_no_value_again(shop: Shop) -> None:
    say(shop, "log in new@example.com", Choice("log_in", {"contact": "new@example.com"}))
    report = say(shop, "then register me, Bea Moss", Choice("register", {"name": "Bea Moss"}))
    assert report.actions[0].outcome == "code_sent"


@pytest.mark.parametrize("text", ["yes, a kettle", "no", "hello", "谢谢"])
def test_another_message_accepts_no_offer(shop: Shop, text: str) -> None:
    say(shop, "log in new@example.com", Choice("log_in", {"contact": "new@example.com"}))
    assert say(shop, text, Choice("greet")).actions[0].action == "greet"


def test_an_offer_is_for_the_next_message_alone(shop: Shop) -> None:
    say(shop, "log in new@example.com", Choice("log_in", {"contact": "new@example.com"}))
    say(shop, "hello", Choice("greet"))
    assert say(shop, "yes", Choice("greet")).actions[0].action == "greet"


def test_who_orders_after_a_no_sees_the_summary_again(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    say(shop, "no, wait", Choice("decline_order"))
    report = say(shop, "ok now yes", Choice("confirm_order"))
    assert [(a.action, a.outcome, a.wish) for a in report.actions] == [
        ("check_out", "summarised", "confirm_order")
    ]
    assert shop.rows(Order) == []


def test_what_is_said_again_is_done_once(shop: Shop) -> None:
    """The agent asked about one wish of two."""
    text = "two lamps, and which couriers do you use"
    lamps = Choice("add_to_cart", {"product": "lamps", "quantity": 2})
    guess = Choice("answer_question", {"topic": "privacy"}, 0.3)
    shop.executor = Executor(shop.book, shop.database, shop.clock, lambda: CODE, 0.8)
    assert actions(say(shop, text, lamps, guess))[-1] == ("answer_question", None)
    say(shop, f"no, {text}", guess, lamps)
    assert [line.quantity for line in shop.rows(CartLine)] == [2]
    say(shop, "two lamps more", lamps)
    assert [line.quantity for line in shop.rows(CartLine)] == [4]
