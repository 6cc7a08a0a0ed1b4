"""Ordinary text is normalized; turns of the agent are unchanged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from gpt2flow.agent.flows.prompt import SPECIAL_TOKENS
from gpt2flow.training.text.clean import (
    CLEANING_STEPS,
    clean_and_explain,
    clean_documents,
    clean_text,
)
from gpt2flow.training.text.formats import Document

_FRAGMENTS = st.sampled_from(
    [
        *SPECIAL_TOKENS,
        "<|us",
        "er|>",
        "schÃ¶n",
        "\x00",
        "\u200b",
        "ｆｕｌｌ１２",
        "https://a.example/b?c=d",
        "www.",
        "a.b@c.example",
        "@",
        "+44 20 7946 0018",
        "138 0013 8000",
        "12",
        "-",
        " ",
        "\n",
        "\r\n",
        "&amp;",
        "é",
        "e\u0301",
        "，",
    ]
)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("schÃ¶n", "schön"),
        ("cafe\u0301", "café"),
        ("１２３ ＡＢＣ", "123 ABC"),
        ("a\x00b\u200bc\ufeff", "abc"),
        ("a \t b\r\n\n\n\nc ", "a b\n\nc"),
        ("see https://x.example/y?z=1. Or www.a.example!", "see <url>. Or <url>!"),
        ("网址www.a.cn，邮箱x@y.com", "网址<url>,邮箱<email>"),
        ("write to Jo.B+x@mail.example.org, ok", "write to <email>, ok"),
        ("call +44 20 7946 0018 or (555) 010-2030", "call <phone> or <phone>"),
        ("电话13800138000。", "电话<phone>。"),
    ],
)
def test_noise_is_normalized(text: str, expected: str) -> None:
    assert clean_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "on 2024-01-02 12:30",
        "order SO-10421",
        "for 1,000,000,000 people",
        "3.14159265358979",
        "10:30",
    ],
)
def test_numbers_other_than_phone_numbers_stay(text: str) -> None:
    assert clean_text(text) == text


@settings(max_examples=examples(200))
@given(st.one_of(st.text(), st.lists(_FRAGMENTS, max_size=12).map("".join)))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


@settings(max_examples=examples(200))
@given(st.lists(_FRAGMENTS, max_size=12).map("".join))
def test_cleaned_text_never_contains_a_special_token(text: str) -> None:
    assert not any(token in clean_text(text) for token in SPECIAL_TOKENS)


def texts(*documents: str) -> list[str]:
    """Return the texts of cleaned documents."""
    return [each.text for each in clean_documents(map(Document, documents))[0]]


def test_turns_of_the_agent_are_unchanged() -> None:
    turn = '<|state|>guest<|user|>I am  a@b.example<|act|>{"action":"log_in"}<|result|>ok<|act|>'
    assert texts(turn, turn) == [turn, turn]


def test_repeated_documents_and_long_lines_are_dropped() -> None:
    header = "Copyright of somebody or other, all rights reserved, 1999."
    documents = [f"{header}\none\nyes", f"two\n{header}\nyes", "short", "short", "\x00"]
    assert texts(*documents) == [f"{header}\none\nyes", "two\nyes", "short"]


@pytest.mark.parametrize("is_dialogue", [False, True])
def test_an_equal_document_of_short_lines_is_dropped(*, is_dialogue: bool) -> None:
    chat = Document("Hello there.\nHow are you today?\nFine, thank you.", is_dialogue=is_dialogue)
    kept, counts = clean_documents([chat, chat])
    assert kept == [chat]
    assert counts["repeated_documents_dropped"] == 1


def test_a_dialogue_takes_no_line_from_other_text() -> None:
    line = "This line has more than forty characters in it."
    documents = [Document(line, is_dialogue=True), Document(f"{line}\nThe end.")]
    assert clean_documents(documents)[0] == documents


def test_a_dialogue_keeps_a_turn_that_another_has_too() -> None:
    answer = "assistant: You can return it within thirty days of its delivery."
    documents = [
        Document(f"user: {asked}\n{answer}", asked, is_dialogue=True)
        for asked in ("May I?", "How?", "May I?")
    ]
    kept, counts = clean_documents(documents)
    assert kept == documents[:2]
    assert counts["repeated_lines_dropped"] == 0
    assert counts["repeated_documents_dropped"] == 1


def test_a_dialogue_is_cleaned_even_if_it_looks_like_a_turn_of_the_agent() -> None:
    (kept,), _ = clean_documents([Document("<|state|>a@b.example", is_dialogue=True)])
    assert kept.text == "<email>"


def test_cleaning_a_cleaned_corpus_changes_nothing() -> None:
    documents = ["a\n\n" + "long line " * 9 + "\n\nb", "long line " * 9, "c\n" + "long line " * 9]
    once = texts(*documents)
    assert texts(*once) == once


@pytest.mark.parametrize(
    "text, steps",
    [
        ("plain text, 12 words", set()),
        ("schÃ¶n\nälter", {"mojibake_repaired"}),
        ("cafe\u0301", {"characters_normalized"}),
        ("&amp;", {"characters_normalized"}),
        ("a\x00b", {"control_characters_dropped"}),
        ("a\u200bb", {"control_characters_dropped"}),
        ("a&#8203;b", {"control_characters_dropped", "characters_normalized"}),
        ("a<|act|>b", {"special_tokens_removed"}),
        ("www.a.example", {"urls_replaced"}),
        ("a@b.example", {"email_addresses_replaced"}),
        ("13800138000", {"phone_numbers_replaced"}),
        ("a  b", {"white_space_collapsed"}),
        ("1380013\x008000", {"control_characters_dropped", "phone_numbers_replaced"}),
    ],
)
def test_each_step_that_changes_a_document_is_counted(text: str, steps: set[str]) -> None:
    _, counts = clean_documents([Document(text)])
    assert set(counts) == set(CLEANING_STEPS)
    assert {step for step, count in counts.items() if count} == steps | {"documents_read"}


@settings(max_examples=examples(100))
@given(st.lists(st.lists(_FRAGMENTS, max_size=6).map("".join), max_size=8))
def test_every_document_is_kept_or_counted_as_dropped(documents: list[str]) -> None:
    kept, counts = clean_documents(map(Document, documents))
    dropped = counts["repeated_documents_dropped"] + counts["empty_documents_dropped"]
    assert counts["documents_read"] == len(documents) == len(kept) + dropped


@settings(max_examples=examples(200))
@given(st.one_of(st.text(), st.lists(_FRAGMENTS, max_size=12).map("".join)))
def test_a_text_is_changed_exactly_if_a_step_is_named(text: str) -> None:
    cleaned, steps = clean_and_explain(text)
    assert cleaned == clean_text(text)
    assert bool(steps) == (cleaned != text)


def test_repeated_lines_are_counted_in_documents_that_stay() -> None:
    line = "A line of more than forty characters, which is boilerplate."
    documents = [line, line, f"{line}\none", f"two\n{line}\n{line}", "\x00"]
    _, counts = clean_documents(map(Document, documents))
    assert counts["repeated_lines_dropped"] == 3
    assert counts["repeated_documents_dropped"] == 1
    assert counts["empty_documents_dropped"] == 1
