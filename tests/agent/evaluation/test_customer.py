"""Answers of scripted customers."""

from typing import Any

import pytest

from gpt2flow.agent.evaluation.customer import Answer, NoCodeError, Script
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, language
from gpt2flow.agent.report import ActionReport, MessageSent, TurnReport
from gpt2flow.agent.scenarios import Scenario
from gpt2flow.agent.shop.catalogue import load_catalogue

REFUND = {"action": "request_refund", "order": "SO-1042", "reason": "damaged"}
KETTLE = {"action": "add_to_cart", "product": "kettle", "quantity": 2}


def begun(book: FlowBook, *turns: dict[str, Any]) -> Script:
    """Return the script of a scenario in which all turns were sent."""
    each = [{"text": "hello", **turn} for turn in turns]
    scenario = Scenario.model_validate({"id": "x", "turns": each})
    script = Script(book, load_catalogue().names, scenario)
    for turn in scenario.turns:
        script.begin(turn)
    return script


def report(*actions: ActionReport, message: str = "hello", session: str = "customer") -> TurnReport:
    return TurnReport(
        session=session,
        message_id="1",
        message=message,
        language=language(message),
        actions=list(actions),
        calls=[],
    )


def question(action: str, slot: str, **used: str | int) -> ActionReport:
    """Return an action that asked for a slot or a confirmation."""
    return ActionReport(action=action, arguments={}, used=used, result="asked", asked=slot)


def did_you_mean(action: str, **used: str | int) -> TurnReport:
    return report(question(action, CONFIRMATION, **used))


def sent(text: str, action: str = "log_in", outcome: str = "code_sent") -> TurnReport:
    """Return a turn whose action sent one message."""
    message = MessageSent(to="eva@example.com", language="en", text=text)
    return report(
        ActionReport(
            action=action,
            arguments={},
            used={},
            result="ok",
            outcome=outcome,
            messages=[message],
        )
    )


def text_of(answer: Answer | None) -> str:
    assert answer is not None
    return answer.text


def test_missing_value_is_answered_from_what_the_customer_knows(book: FlowBook) -> None:
    script = begun(book, {"wants": REFUND, "knows": {"order": "SO-2000"}})
    asked = report(question("request_refund", "order"))
    assert script.answer(asked) == Answer("SO-2000", "slot")


def test_missing_value_is_answered_from_the_wish_of_that_action(book: FlowBook) -> None:
    script = begun(book, {"wants": [KETTLE, REFUND]})
    assert script.answer(report(question("request_refund", "order"))) == Answer("SO-1042", "slot")
    assert script.answer(report(question("cancel_order", "order"))) is None


def test_no_repeats_the_request_and_not_the_code(book: FlowBook) -> None:
    code = {"text": "it is {code}", "wants": [{"action": "verify", "code": "{code}"}]}
    script = begun(book, {"text": "refund SO-1042", "wants": REFUND}, code)
    assert text_of(script.answer(did_you_mean("cancel_order"))) == "no, refund SO-1042"
    script = begun(book, code)
    assert text_of(script.answer(did_you_mean("cancel_order"))) == "no, it is {code}"
    both = {"text": "{code}, and two kettles for my office please", "wants": KETTLE}
    script = begun(book, {"text": "refund SO-1042", "wants": REFUND}, both)
    assert text_of(script.answer(did_you_mean("cancel_order"))) == f"no, {both['text']}"


def test_missing_value_is_not_answered_from_the_wish_of_an_earlier_turn(book: FlowBook) -> None:
    script = begun(book, {"wants": REFUND}, {"wants": [{"action": "verify"}]})
    assert script.answer(report(question("request_refund", "order"))) is None


def test_numbers_are_answered_as_text(book: FlowBook) -> None:
    script = begun(book, {"wants": KETTLE})
    assert text_of(script.answer(report(question("add_to_cart", "quantity")))) == "2"


def test_known_values_of_earlier_turns_are_kept(book: FlowBook) -> None:
    script = begun(
        book,
        {"knows": {"address": "5 Oak Rd", "contact": "eva@example.com"}},
        {"knows": {"address": "7 Elm St"}},
    )
    assert text_of(script.answer(report(question("log_in", "contact")))) == "eva@example.com"
    assert text_of(script.answer(report(question("check_out", "address")))) == "7 Elm St"


@pytest.mark.parametrize("message, text", [("it broke", "it came damaged"), ("坏了", "收到时破损")])
def test_value_of_an_enumeration_is_worded_in_the_language_of_the_turn(
    book: FlowBook, message: str, text: str
) -> None:
    script = begun(book, {"wants": REFUND})
    asked = report(question("request_refund", "reason"), message=message)
    assert text_of(script.answer(asked)) == text


def test_customer_without_the_value_stays_silent(book: FlowBook) -> None:
    asked = report(question("check_out", "address"))
    assert begun(book, {"wants": REFUND, "knows": {"order": "SO-1042"}}).answer(asked) is None


def test_turn_without_a_question_gets_no_answer(book: FlowBook) -> None:
    script = begun(book, {"wants": REFUND, "knows": {"order": "SO-1042"}})
    done = ActionReport(action="request_refund", arguments={}, used={}, result="ok")
    assert script.answer(report(done)) is None


def test_last_of_several_questions_is_answered(book: FlowBook) -> None:
    script = begun(book, {"wants": [KETTLE, REFUND]})
    asked = report(question("add_to_cart", "product"), question("request_refund", "order"))
    assert text_of(script.answer(asked)) == "SO-1042"


def test_customers_of_two_sessions_know_their_own_values_only(book: FlowBook) -> None:
    script = begun(
        book,
        {"session": "eva", "knows": {"contact": "eva@example.com"}},
        {"session": "bob", "wants": []},
    )
    asked = question("log_in", "contact")
    assert text_of(script.answer(report(asked, session="eva"))) == "eva@example.com"
    assert script.answer(report(asked, session="bob")) is None
    assert script.answer(report(asked, session="nobody")) is None


@pytest.mark.parametrize("message, text", [("my money back", "yes"), ("退钱", "是的")])
def test_question_that_states_the_wish_is_confirmed(
    book: FlowBook, message: str, text: str
) -> None:
    script = begun(book, {"text": message, "wants": [KETTLE, REFUND]})
    asked = did_you_mean("request_refund", order="SO-1042", reason="damaged")
    assert script.answer(asked) == Answer(text, "yes")


@pytest.mark.parametrize(
    "message, text", [("money back", "no, money back"), ("退钱", "不是, 退钱")]
)
def test_question_about_another_value_is_denied(book: FlowBook, message: str, text: str) -> None:
    script = begun(book, {"text": message, "wants": REFUND})
    for used in (
        {"order": "SO-1042", "reason": "late"},
        {"order": "SO-1043", "reason": "damaged"},
        {"order": "SO-1042"},
    ):
        asked = did_you_mean("request_refund", **used)
        assert script.answer(asked) == Answer(text, "no")


def test_question_about_another_action_is_denied(book: FlowBook) -> None:
    script = begun(book, {"text": "money back", "wants": REFUND})
    asked = did_you_mean("request_return", order="SO-1042", reason="damaged")
    assert script.answer(asked) == Answer("no, money back", "no")


def test_wish_of_an_earlier_turn_is_still_confirmed(book: FlowBook) -> None:
    script = begun(book, {"wants": REFUND}, {"wants": [{"action": "verify"}]})
    asked = did_you_mean("request_refund", order="SO-1042", reason="damaged")
    assert text_of(script.answer(asked)) == "yes"


def test_values_beside_the_wished_ones_are_confirmed(book: FlowBook) -> None:
    script = begun(book, {"wants": {"action": "cancel_order"}})
    assert text_of(script.answer(did_you_mean("cancel_order", order="SO-1042"))) == "yes"


@pytest.mark.parametrize("product", ["electric kettle", "the kettle", "热水壶"])
def test_product_by_any_of_its_names_is_confirmed(book: FlowBook, product: str) -> None:
    script = begun(book, {"wants": KETTLE})
    assert text_of(script.answer(did_you_mean("add_to_cart", product=product, quantity=2))) == "yes"
    other = did_you_mean("add_to_cart", product="umbrella", quantity=2)
    assert text_of(script.answer(other)) == "no, hello"


def test_scenario_that_says_nothing_about_wishes_confirms_everything(book: FlowBook) -> None:
    script = begun(book, {"knows": {"order": "SO-1042"}})
    assert script.wishes("customer") is None
    assert script.answer(did_you_mean("cancel_order", order="SO-9")) == Answer("yes", "yes")


def test_customer_who_wants_nothing_confirms_nothing(book: FlowBook) -> None:
    script = begun(book, {"wants": []})
    assert script.wishes("customer") == []
    assert text_of(script.answer(did_you_mean("cancel_order", order="SO-9"))) == "no, hello"


def test_placeholder_of_a_code_stands_for_every_code(book: FlowBook) -> None:
    script = begun(book, {"wants": {"action": "verify", "code": "{code}"}})
    assert text_of(script.answer(did_you_mean("verify", code="123456"))) == "yes"


def test_placeholder_is_replaced_by_the_last_code_that_was_sent(book: FlowBook) -> None:
    script = begun(book, {})
    script.note(sent("Your login code is 111111; it is valid for 15 minutes."))
    assert script.fill("it is {code}") == "it is 111111"
    script.note(sent("Your new code is 222222; it is valid for 15 minutes."))
    script.note(sent("Order SO-1042 goes to 310000 Hangzhou.", "change_address", "changed"))
    assert script.fill("{code}, {code}") == "222222, 222222"


def test_digits_of_other_messages_are_no_code(book: FlowBook) -> None:
    script = begun(book, {})
    script.note(sent("Order SO-100000 goes to 200000 Shanghai.", "change_address", "changed"))
    with pytest.raises(NoCodeError):
        script.fill("{code}")


def test_code_that_was_never_sent_cannot_be_quoted(book: FlowBook) -> None:
    script = begun(book, {})
    with pytest.raises(NoCodeError, match="no verification code was sent before 'it is "):
        script.fill("it is {code}")
    assert script.fill("log me in") == "log me in"


def test_the_latest_order_is_the_one_that_the_agent_names(book: FlowBook) -> None:
    script = begun(book, {"wants": REFUND})
    for number, text in (("SO-1042", "yes"), ("SO-1024", "no, hello")):
        asked = question("request_refund", CONFIRMATION, order="last", reason="damaged")
        said = MessageSent(to=None, language="en", text=f"A refund for {number}?")
        asked = asked.model_copy(update={"messages": [said]})
        assert text_of(script.answer(report(asked))) == text
