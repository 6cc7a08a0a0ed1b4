"""Normalization of messages, and the prompt format."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import (
    SPECIAL_TOKENS,
    Choice,
    PromptState,
    calm,
    first_prompt,
    language,
    normalize,
)
from gpt2flow.agent.turns.state import message_language


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
def test_message_is_normalized(typed: str, message: str) -> None:
    assert normalize(typed) == message


@settings(max_examples=examples(500))
@given(text=st.text())
def test_normalization_is_idempotent_and_removes_special_tokens(text: str) -> None:
    message = normalize(text)
    assert normalize(message) == message
    assert not any(token in message for token in SPECIAL_TOKENS)
    assert json.dumps(message, ensure_ascii=False) == f'"{message}"'


@pytest.mark.parametrize(
    "message, read",
    [
        ("WHERE IS MY PARCEL", "where is my parcel"),
        ("ORDER 1042 CAME BROKEN!!! Ok", "order 1042 came broken!!! ok"),
        ("OK", "OK"),
        ("a USB cable", "a USB cable"),
        ("Please send it to ANN LEE", "Please send it to ANN LEE"),
        ("我要一个USB充电器", "我要一个USB充电器"),
    ],
)
def test_a_shouted_message_is_calmed(message: str, read: str) -> None:
    assert calm(message) == read


@given(text=st.text())
def test_message_cannot_inject_special_tokens(book: FlowBook, text: str) -> None:
    prompt = first_prompt(book.shared, PromptState(frozenset({"guest"})), normalize(text))
    assert [prompt.count(token) for token in SPECIAL_TOKENS] == [0, 1, 0, 1, 0, 1, 0]


def test_prompt_has_the_latest_actions_of_earlier_messages(book: FlowBook) -> None:
    past = tuple((action, "ok") for action in ("greet", "find_product", "add_to_cart", "view_cart"))
    prompt = first_prompt(book.shared, PromptState(frozenset({"guest"}), past=past), "two")
    expected = "<|past|>find_product ok, add_to_cart ok, view_cart ok<|user|>two<|act|>"
    assert prompt == f"<|state|>guest{expected}"


def test_state_line_keeps_the_declared_order(book: FlowBook) -> None:
    state = PromptState(frozenset({"confirming", "member", "cart"}), ("request_refund", "order"))
    line = state.line(book.shared)
    assert line == "member cart confirming awaiting request_refund order"


def test_choice_round_trips_through_its_text() -> None:
    choice = Choice("add_to_cart", {"product": "保温杯", "quantity": 2})
    assert Choice.parse(choice.text) == choice
    parsed = Choice.parse('{"action":"add_to_cart","product":" tea ","quantity":2}')
    assert parsed.arguments == {"product": "tea", "quantity": 2}
    assert Choice.parse('{"action":"check_out","address":" "}').arguments == {}
    assert Choice.parse('{"action":"check_out","address":"?!"}').arguments == {}


@pytest.mark.parametrize(
    "written,value",
    [
        ("Ann Miller,", "Ann Miller"),
        ("周思琪。", "周思琪"),
        ("tea ?!", "tea"),
        ("A. Lee", "A. Lee"),
    ],
)
def test_a_value_ends_before_the_punctuation_of_its_message(written: str, value: str) -> None:
    parsed = Choice.parse(f'{{"action":"register","name":"{written}"}}')
    assert parsed.arguments == {"name": value}


@pytest.mark.parametrize(
    "message, session_language, expected",
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
def test_language_is_detected(message: str, session_language: str | None, expected: str) -> None:
    assert message_language(message, session_language) == expected
    assert language(message) in {"en", "zh"}
