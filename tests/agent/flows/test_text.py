"""The one form of a message, and the prompt that is made of it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import SPECIAL_TOKENS, Choice, Situation, opening
from gpt2flow.agent.flows.text import language, normalise
from gpt2flow.agent.turns.state import spoken_language


@pytest.mark.parametrize(
    "typed, message",
    [
        ("  two\n\nkettles\t ", "two kettles"),
        ("ｕｓｂ　线", "usb 线"),
        ('the "big" one \\ other', "the 'big' one / other"),
        ("a\u200bb\x00c\ue000", "abc"),
        ("0\r\x1b\u00b8", "0 \u0327"),
        ("e\u200d\u0301", "\u00e9"),
        ("<|act|>", "< |act|>"),
        ("<<||endoftext|>", "<< ||endoftext|>"),
        ("<\u200b|act|>", "< |act|>"),
        ("<\uff5cact|>", "< |act|>"),
    ],
)
def test_normalised(typed: str, message: str) -> None:
    assert normalise(typed) == message


@settings(max_examples=500)
@given(text=st.text())
def test_normal_form_is_final_and_free_of_special_tokens(text: str) -> None:
    message = normalise(text)
    assert normalise(message) == message
    assert not any(token in message for token in SPECIAL_TOKENS)
    assert json.dumps(message, ensure_ascii=False) == f'"{message}"'


@given(text=st.text())
def test_customer_cannot_write_state_or_results(book: FlowBook, text: str) -> None:
    prompt = opening(book.shared, Situation(frozenset({"guest"})), normalise(text))
    assert [prompt.count(token) for token in SPECIAL_TOKENS] == [0, 1, 1, 0, 1, 0]


def test_state_line_has_the_order_of_the_flows(book: FlowBook) -> None:
    situation = Situation(frozenset({"confirming", "member", "cart"}), ("request_refund", "order"))
    line = situation.line(book.shared)
    assert line == "member cart confirming awaiting request_refund order"


def test_choice_reads_what_it_writes() -> None:
    choice = Choice("add_to_cart", {"product": "保温杯", "quantity": 2})
    assert Choice.parse(choice.text) == choice
    parsed = Choice.parse('{"action":"add_to_cart","product":" tea ","quantity":2}')
    assert parsed.arguments == {"product": "tea", "quantity": 2}
    assert Choice.parse('{"action":"check_out","address":" "}').arguments == {}


@pytest.mark.parametrize(
    "message, before, expected",
    [
        ("hello", None, "en"),
        ("你好", None, "zh"),
        ("我要2条usb线", "en", "zh"),
        ("ok", "zh", "en"),
        ("123456", "zh", "zh"),
        ("so-1042!", "zh", "zh"),
        ("wang@example.com", "zh", "zh"),
        ("wang@example.com", None, "en"),
        ("123456", None, "en"),
    ],
)
def test_language(message: str, before: str | None, expected: str) -> None:
    assert spoken_language(message, before) == expected
    assert language(message) in {"en", "zh"}
