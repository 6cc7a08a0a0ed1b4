"""Messages that the agent reads again: in doubt, and after a no."""

from dataclasses import replace

import pytest
from tests.support.scripted_model import FailingModel, ScriptedModel
from tests.support.shop import Shop
from tests.support.turns import InlineWorkflow, new_handler, say

from gpt2flow.agent.errors import ModelUnavailableError
from gpt2flow.agent.flows.prompt import CONFIRMATION, Choice
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import Case, CaseKind, ModelCall, Order, OrderStatus
from gpt2flow.agent.turns.execution import Executor

MESSAGE = "1001: an iron in the box, and no kettle. Money back!"


@pytest.fixture
def careful(shop: Shop) -> Shop:
    """Shop whose agent asks below 0.8, with a delivered order."""
    clock, database = shop.clock, shop.database
    shop.executor = Executor(shop.book, database, clock, lambda: "123456", 0.8)
    shop.log_in("s")
    shop.order(delivered_days_ago=3)
    return shop


def refund(confidence: float, **arguments: str) -> Choice:
    return Choice("request_refund", {"order": "SO-1001", **arguments}, confidence)


def outcomes(report: TurnReport) -> list[tuple[str, str | None]]:
    return [(action.action, action.outcome or action.asked) for action in report.actions]


def test_a_sure_reading_is_not_looked_at_again(careful: Shop) -> None:
    say(careful, "a kettle", Choice("add_to_cart", {"product": "kettle"}, 0.96))
    assert [call.key for call in careful.rows(ModelCall) if "readings" in call.key] == []


def test_a_doubtful_reading_gives_way_to_one_that_makes_sense(careful: Shop) -> None:
    typical = Choice("add_to_cart", {"product": "typical"}, 0.5)
    kettle = Choice("add_to_cart", {"product": "kettle"}, 0.4)
    (action,) = say(careful, "typical! a kettle then", typical, others=[kettle]).actions
    assert (action.outcome, action.used["product"]) == ("added", "kettle")
    (call,) = [call for call in careful.rows(ModelCall) if call.key.endswith("/readings")]
    assert call.output.splitlines()[:2] == [typical.text, kettle.text]


def test_a_model_that_fails_meanwhile_leaves_the_first_reading(careful: Shop) -> None:
    greeting = Choice("greet", {}, 0.5)
    model = ScriptedModel({"hm": [greeting]})
    model.readings = FailingModel(model, 0, ModelUnavailableError("away")).choose  # type: ignore[assignment, method-assign]
    report = new_handler(careful, model).handle_message(InlineWorkflow(), "m1", "s", "1", "hm")
    assert outcomes(report) == [("greet", "greeted")]


def test_a_denied_reading_gives_way_to_the_next_one(careful: Shop) -> None:
    wrong, right = refund(0.5, reason="missing_parts"), refund(0.45, reason="wrong_item")
    assert outcomes(say(careful, MESSAGE, wrong)) == [("request_refund", CONFIRMATION)]
    report = say(careful, f"no, {MESSAGE}", wrong, others=[right])
    assert outcomes(report) == [("deny", "denied_one"), ("request_refund", CONFIRMATION)]
    assert report.actions[-1].used == {"order": "SO-1001", "reason": "wrong_item"}
    assert outcomes(say(careful, "yes", "affirm"))[-1] == ("request_refund", "approved")


def test_a_denied_order_gives_way_to_the_other_one_in_the_message(careful: Shop) -> None:
    numbers = [careful.order(status=OrderStatus.SUBMITTED) for _ in range(2)]
    message = "cancel {}.. o no hang on. {} i should of said"
    message = message.format(*(number.removeprefix("SO-") for number in numbers))
    wrong = Choice("cancel_order", {"order": numbers[0]}, 0.97)
    say(careful, message, wrong)
    report = say(careful, f"no, {message}", wrong, others=[Choice("escalate", {}, 0.3)])
    assert outcomes(report) == [("deny", "denied_one"), ("cancel_order", CONFIRMATION)]
    assert report.actions[-1].used == {"order": numbers[1]}


def test_a_message_is_asked_about_twice_at_most(careful: Shop) -> None:
    """Whatever the actions."""
    refunded = refund(0.5, reason="damaged")
    returned = Choice("request_return", {**refunded.arguments}, 0.5)
    say(careful, MESSAGE, refunded)
    say(careful, f"no, {MESSAGE}", returned)
    other = Choice("request_exchange", {**refunded.arguments}, 0.5)
    report = say(careful, f"no, {MESSAGE}", other)
    assert outcomes(report) == [("deny", "denied_one"), ("escalate", "handed_over")]
    assert [case.kind for case in careful.rows(Case)] == [CaseKind.HAND_OVER]


def test_each_wish_of_a_message_is_asked_about(careful: Shop) -> None:
    numbers = [careful.order(status=OrderStatus.SUBMITTED) for _ in range(3)]
    message = "cancel {}, {} and {}".format(*(number.removeprefix("SO-") for number in numbers))
    wishes = [Choice("cancel_order", {"order": number}, 0.7) for number in numbers]
    assert say(careful, message, *wishes).actions[0].used == {"order": numbers[0]}
    for number in numbers[1:]:
        assert say(careful, "no", "deny").actions[-1].used == {"order": number}


def test_a_negated_action_is_read_again(careful: Shop) -> None:
    """However sure the model is."""
    other = Choice("list_orders", {}, 0.04)
    message = "do not log me out, show me my orders"
    report = say(careful, message, Choice("log_out", {}, 0.95), others=[other])
    assert outcomes(report) == [("list_orders", "listed")]
    report = say(careful, "do not log me out", Choice("log_out", {}, 0.99))
    assert outcomes(report) == [("log_out", CONFIRMATION)]


def test_an_unsure_next_reading_is_asked_about_once(careful: Shop) -> None:
    wrong, other = refund(0.5, reason="missing_parts"), refund(0.2, reason="late")
    third = refund(0.2, reason="damaged")
    say(careful, MESSAGE, wrong)
    report = say(careful, f"no, {MESSAGE}", wrong, others=[other])
    assert outcomes(report) == [("deny", "denied_one"), ("request_refund", CONFIRMATION)]
    report = say(careful, f"no, {MESSAGE}", other, others=[third])
    assert outcomes(report) == [("deny", "denied_one"), ("escalate", "handed_over")]
    assert [case.kind for case in careful.rows(Case)] == [CaseKind.HAND_OVER]


def test_what_a_denied_message_says_besides_is_done(careful: Shop) -> None:
    wrong, wish = refund(0.5, reason="damaged"), Choice("track_order", {"order": "SO-1001"})
    say(careful, "not a refund for 1001: where is it?", wrong)
    report = say(careful, "no, not a refund for 1001: where is it?", wrong, wish)
    assert outcomes(report) == [("deny", "denied_one"), ("track_order", "tracked")]
    assert careful.rows(Case) == []


def test_without_another_reading_a_person_takes_over(careful: Shop) -> None:
    wrong = refund(0.5, reason="damaged")
    say(careful, MESSAGE, wrong)
    report = say(careful, f"no, {MESSAGE}", wrong, others=[Choice("greet", {}, 0.3)])
    assert outcomes(report) == [("deny", "denied_one"), ("escalate", "handed_over")]


@pytest.mark.parametrize(
    "again",
    [
        Choice("cancel_order", {}, 0.97),
        Choice("cancel_order", {"order": "last"}, 0.97),
        Choice("cancel_order", {"order": "SO-1002"}, 0.97),
    ],
)
def test_what_was_denied_is_never_carried_out(careful: Shop, again: Choice) -> None:
    """However the model names it, and however sure it is."""
    number = careful.order(status=OrderStatus.SUBMITTED)
    say(careful, "cancel it", Choice("cancel_order", {"order": number}, 0.5))
    report = say(careful, "no, cancel it", again, others=[Choice("cancel_order", {}, 0.02)])
    assert ("cancel_order", "cancelled") not in outcomes(report)
    assert careful.rows(Order)[-1].status is OrderStatus.SUBMITTED


def test_an_answer_is_no_other_reading(careful: Shop) -> None:
    """A waiting order is neither submitted nor dropped by it."""
    careful.check_out("s", "kettle")
    wish = Choice("cancel_order", {"order": careful.order(status=OrderStatus.SUBMITTED)}, 0.5)
    say(careful, "cancel it", wish)
    others = [Choice("affirm", {}, 0.3), Choice("deny", {}, 0.2)]
    report = say(careful, "no, cancel it", wish, others=others)
    assert outcomes(report) == [("deny", "denied_one"), ("escalate", "handed_over")]
    assert "confirming" in careful.facts("s")


def test_a_yes_that_begins_with_a_no_is_a_yes(careful: Shop) -> None:
    careful.check_out("s", "kettle")
    number = careful.order(status=OrderStatus.SUBMITTED)
    say(careful, "cancel it", Choice("cancel_order", {"order": number}, 0.5))
    where = Choice("track_order", {"order": "SO-1001"})
    report = say(careful, "no, I mean yes. and where is 1001?", "affirm", where)
    assert [action for action, _ in outcomes(report)] == ["affirm", "cancel_order", "track_order"]
    assert "confirming" in careful.facts("s")


def test_another_wish_after_a_no_ends_the_doubt(careful: Shop) -> None:
    wish = Choice("cancel_order", {"order": careful.order(status=OrderStatus.SUBMITTED)}, 0.5)
    say(careful, "cancel it", wish)
    say(careful, "no, where is it?", Choice("track_order", wish.arguments))
    assert outcomes(say(careful, "ok then cancel", wish)) == [("cancel_order", CONFIRMATION)]


def test_a_reading_that_is_cut_short_is_left_out(careful: Shop) -> None:
    cut = ScriptedModel({"hm": [Choice("greet", {}, 0.5)]}, others=[Choice("done", {}, 0.1)])
    whole = cut.readings
    cut.readings = lambda *given: [*whole(*given), replace(whole(*given)[0], text='{"act')]  # type: ignore[method-assign]
    report = new_handler(careful, cut).handle_message(InlineWorkflow(), "m1", "s", "1", "hm")
    assert outcomes(report) == [("greet", "greeted")]


def test_a_hand_over_names_the_call_that_was_denied(careful: Shop) -> None:
    wrong = refund(0.5, reason="damaged")
    say(careful, MESSAGE, wrong)
    say(careful, f"no, {MESSAGE}", wrong)
    (case,) = careful.rows(Case)
    assert case.proposal is not None
    assert case.proposal["call"] in {call.key for call in careful.rows(ModelCall)}


def test_a_shopping_list_after_a_no_is_whole(careful: Shop) -> None:
    say(careful, MESSAGE, refund(0.5, reason="damaged"))
    kettles = Choice("add_to_cart", {"product": "kettles", "quantity": 2})
    report = say(careful, "no, add 2 kettles and 3 umbrellas", kettles)
    assert [action for action, _ in outcomes(report)] == ["deny", "add_to_cart", "add_to_cart"]


def test_a_product_in_the_plural_is_left_out_of_nothing(careful: Shop) -> None:
    mouse = Choice("add_to_cart", {"product": "wireless mouse", "quantity": 2})
    assert len(say(careful, "chuck 2 wireless mice in my basket", mouse).actions) == 1


def test_an_unnamed_person_is_not_called_besides(careful: Shop) -> None:
    where, person = Choice("track_order", {"order": "SO-1001"}), Choice("escalate")
    assert len(say(careful, "where is 1001? I am auditing this", where, person).actions) == 1
    assert len(say(careful, "where is 1001? a human please", where, person).actions) == 2


def test_no_alone_hands_nothing_over(careful: Shop) -> None:
    say(careful, MESSAGE, refund(0.5, reason="damaged"))
    assert outcomes(say(careful, "no", "deny")) == [("deny", "denied")]


def test_a_denied_value_is_no_value_of_the_next_reading(careful: Shop) -> None:
    """The reason of the claim before counts instead."""
    claim = {"order": "SO-1001", "reason": "defective"}
    say(careful, "exchange 1001, it is broken", Choice("request_exchange", {**claim}))
    wrong = refund(0.5, reason="missing_parts")
    say(careful, "then the money for 1001 instead", wrong)
    report = say(careful, "no, then the money for 1001 instead", wrong, others=[refund(0.45)])
    assert report.actions[-1].used == claim


@pytest.mark.parametrize(
    "message",
    [
        "cancel {0}.. sry, {1} i meant. {0} is fine",
        "I'm not cancelling {0}, just asking",
        "要不取消{0},诶别,不取消",
    ],
)
def test_what_a_message_contradicts_is_asked_about(careful: Shop, message: str) -> None:
    """However sure the model is."""
    numbers = [careful.order(status=OrderStatus.SUBMITTED) for _ in range(2)]
    message = message.format(*(number.removeprefix("SO-") for number in numbers))
    wish = Choice("cancel_order", {"order": numbers[0]})
    assert outcomes(say(careful, message, wish)) == [("cancel_order", CONFIRMATION)]


def test_a_shouted_message_is_read_in_lower_case(careful: Shop) -> None:
    wish = Choice("register", {"name": "walter briggs", "contact": "w.briggs@example.com"})
    careful.act("s", "log_out")
    (action,) = say(careful, "I AM WALTER BRIGGS, W.BRIGGS@EXAMPLE.COM, SIGN ME UP", wish).actions
    assert action.used == {"name": "WALTER BRIGGS", "contact": "w.briggs@example.com"}
