"""Grammar of actions: legal actions with values from the message, nothing else."""

import json

import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar, is_span
from gpt2flow.agent.flows.prompt import Choice, normalize
from gpt2flow.agent.flows.slots import SlotKind, candidates

MESSAGES = (
    "pls send 2 usb cables and then check out to 12 Elm St, Leeds",
    "我想买三个保温杯, 寄到上海市徐汇区漕溪路8号",
    "Ann Lee, ann@x.com, code 123 456, order #1042 was damaged",
    "o'Neill says: 100% / {x} (a|b) [c] <d> $e \N{GRINNING FACE}",
)
MEMBER = ("member", "cart", "confirming")


@pytest.fixture(scope="module")
def tokenizer() -> llguidance.LLTokenizer:
    """Tokenizer with one token per byte."""
    return llguidance.LLTokenizer("byte")


def accepts(tokenizer: llguidance.LLTokenizer, grammar: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_str(text)
    return (
        matcher.validate_tokens(tokens) == len(tokens)
        and matcher.consume_tokens(tokens)
        and matcher.is_accepting()
    )


def choices(book: FlowBook, action: str, message: str) -> list[Choice]:
    """Return choices of an action: no slot, all slots, each slot alone."""
    values: dict[str, str | int] = {}
    for name in book.actions[action].slots:
        slot = book.slots[name]
        if slot.kind is SlotKind.SPAN:
            values[name] = message.split(" ", maxsplit=1)[0]
        elif slot.kind is SlotKind.ENUM:
            values[name] = slot.values[-1]
        elif found := candidates(slot.kind, message):
            values[name] = int(found[0]) if slot.kind is SlotKind.INTEGER else found[0]
    alone = [Choice(action, {name: value}) for name, value in values.items()]
    return [Choice(action), Choice(action, values), *alone]


@pytest.mark.parametrize("message", MESSAGES)
def test_grammar_accepts_exactly_the_legal_actions(
    book: FlowBook, tokenizer: llguidance.LLTokenizer, message: str
) -> None:
    message = normalize(message)
    for facts in ({"guest"}, {"verifying", "cart"}, {"member"}, set(MEMBER)):
        legal = book.legal(facts)
        grammar = action_grammar(book, legal, message)
        for action in book.actions:
            for choice in choices(book, action, message):
                assert accepts(tokenizer, grammar, choice.text) == (action in legal), choice


def test_done_is_accepted_only_if_the_turn_may_end(
    book: FlowBook, tokenizer: llguidance.LLTokenizer
) -> None:
    for may_end in (True, False):
        grammar = action_grammar(book, ["greet"], "hi", may_end=may_end)
        assert accepts(tokenizer, grammar, '{"action":"done"}') == may_end


@pytest.mark.parametrize(
    "text",
    [
        '{"action":"add_to_cart","product":"laptop"}',  # not in the message
        '{"action":"add_to_cart","product":"usb cab"}',  # ends inside a word
        '{"action":"add_to_cart","product":"sb cables"}',
        '{"action":"add_to_cart","product":"usb cables","quantity":3}',
        '{"action":"add_to_cart","quantity":2,"product":"usb cables"}',  # out of order
        '{"action":"add_to_cart","product":"usb cables","price":0}',
        '{"action":"check_out","address":"12 Elm St, York"}',
        '{"action":"cancel_order","order":"SO-1001"}',
        '{"action":"register","name":"usb","contact":"evil@x.com"}',
        '{"action":"request_refund","reason":"because"}',
        '{"action":"assign_courier"}',  # an action of an event
        '{"action":"grant_discount"}',
        '{"action": "greet"}',
        '{"action":"greet"} ',
        "",
    ],
)
def test_values_absent_from_the_message_are_rejected(
    book: FlowBook, tokenizer: llguidance.LLTokenizer, text: str
) -> None:
    legal = book.legal({"member", "cart"})
    assert not accepts(tokenizer, action_grammar(book, legal, normalize(MESSAGES[0])), text)


def test_event_accepts_only_its_own_actions(
    book: FlowBook, tokenizer: llguidance.LLTokenizer
) -> None:
    legal = book.legal({"submitted"}, "order_submitted")
    grammar = action_grammar(book, legal, "SO-1042", may_end=False)
    assert accepts(tokenizer, grammar, '{"action":"assign_courier","order":"SO-1042"}')
    for text in (
        '{"action":"send_delivery_details","order":"SO-1042"}',
        '{"action":"cancel_order","order":"SO-1042"}',
        '{"action":"assign_courier","order":"SO-1043"}',
        '{"action":"done"}',
    ):
        assert not accepts(tokenizer, grammar, text)


@given(text=st.text(min_size=1, max_size=60), data=st.data())
def test_any_word_sequence_of_a_message_is_a_span(
    book: FlowBook, tokenizer: llguidance.LLTokenizer, text: str, data: st.DataObject
) -> None:
    """The words of any message survive as JSON, without special tokens."""
    message = normalize(text)
    if not message:
        return
    assert "<|" not in message
    words = message.split(" ")
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    span = " ".join(words[start:end])
    written = f'{{"action":"find_product","product":"{span}"}}'
    assert json.loads(written)["product"] == span
    grammar = action_grammar(book, ["find_product"], message)
    assert accepts(tokenizer, grammar, written)


@pytest.mark.parametrize("message", ["012345", "123 456", "123-456。"])
def test_a_code_alone_is_left_to_the_action_that_takes_it(
    book: FlowBook, tokenizer: llguidance.LLTokenizer, message: str
) -> None:
    names = ["clarify", "log_out", "verify"]
    grammar = action_grammar(book, names, normalize(message), legal=["verify"])
    [code] = candidates(SlotKind.CODE, message)
    assert accepts(tokenizer, grammar, Choice("verify", {"code": code}).text)
    assert accepts(tokenizer, grammar, Choice("done").text)
    assert not accepts(tokenizer, grammar, Choice("clarify").text)


@pytest.mark.parametrize(
    "message,legal",
    [
        ("123456", ["clarify", "log_out"]),
        ("123456", ["clarify"]),
        ("#123456", ["clarify", "verify"]),
        ("1042", ["clarify", "verify"]),
        ("not 123456", ["clarify", "verify"]),
    ],
)
def test_any_other_message_may_mean_anything(
    book: FlowBook, tokenizer: llguidance.LLTokenizer, message: str, legal: list[str]
) -> None:
    names = ["clarify", "log_out", "verify"]
    grammar = action_grammar(book, names, normalize(message), legal=legal)
    assert all(accepts(tokenizer, grammar, Choice(action).text) for action in names)


@pytest.mark.parametrize(
    "value, is_part", [("latte", False), ("lattes", True), ("two lattes", True), ("", False)]
)
def test_a_span_ends_at_the_borders_of_words(
    book: FlowBook, tokenizer: llguidance.LLTokenizer, value: str, *, is_part: bool
) -> None:
    message = "two lattes please"
    assert is_span(value, message) == is_part
    if value:
        choice = Choice("find_product", {"product": value})
        grammar = action_grammar(book, ["find_product"], message)
        assert accepts(tokenizer, grammar, choice.text) == is_part
