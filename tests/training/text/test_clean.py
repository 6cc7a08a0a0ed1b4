"""Ordinary text is normalized; turns of the agent are unchanged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from gpt2flow.agent.flows.prompt import SPECIAL_TOKENS
from gpt2flow.training.text.clean import clean_documents, clean_text, split_documents

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


def test_turns_of_the_agent_are_unchanged() -> None:
    turn = '<|state|>guest<|user|>I am  a@b.example<|act|>{"action":"log_in"}<|result|>ok<|act|>'
    assert list(clean_documents([turn, turn])) == [turn, turn]


def test_repeated_documents_and_long_lines_are_dropped() -> None:
    header = "Copyright of somebody or other, all rights reserved, 1999."
    documents = [f"{header}\none\nyes", f"two\n{header}\nyes", "short", "short", "\x00"]
    assert list(clean_documents(documents)) == [f"{header}\none\nyes", "two\nyes", "short"]


def test_cleaning_a_cleaned_corpus_changes_nothing() -> None:
    documents = ["a\n\n" + "long line " * 9 + "\n\nb", "long line " * 9, "c\n" + "long line " * 9]
    once = list(clean_documents(documents))
    assert list(clean_documents(once)) == once


def test_a_text_is_split_after_each_end_token() -> None:
    assert list(split_documents("one\ntwo<|endoftext|>\nthree<|endoftext|>\n \n")) == [
        "one\ntwo",
        "three",
    ]
