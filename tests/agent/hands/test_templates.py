"""Tests of templates, with str.format as the oracle of what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.agent.hands.templates import filled, filled_path, find, find_in_lines

SUBMITTED = "Order {order} is submitted: {lines}. Total {total}."
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(order=WORDS, lines=WORDS, total=WORDS)
def test_what_a_template_says_is_found_with_its_values(order: str, lines: str, total: str) -> None:
    values = {"order": order, "lines": lines, "total": total}
    text = filled(SUBMITTED, values)
    assert find(SUBMITTED, text, values) == {}
    assert find(SUBMITTED, text, {"total": total}) is not None
    assert find(SUBMITTED, text, values | {"total": f"{total}0"}) is None


def test_a_field_that_is_read_is_one_word_even_if_a_value_was_expected() -> None:
    text = "Order SO-1042 is submitted: 2 × kettle. Total 60.00."
    known = {"order": "SO-1001", "lines": "2 × kettle", "total": "60.00"}
    assert find(SUBMITTED, text, known, ["order"]) == {"order": "SO-1042"}
    assert find(SUBMITTED, text.replace("SO-1042", "no number"), known, ["order"]) is None


@pytest.mark.parametrize(
    "text, found",
    [
        ("Thank  you,\n Ann!", {"name": "Ann"}),
        ("Thank you, Ann! It is late.", None),
        ("So: Thank you, Ann!", None),
        ("Thank you, !", None),
    ],
)
def test_all_of_a_message_has_to_match_apart_from_white_space(
    text: str, found: dict[str, str] | None
) -> None:
    assert find("Thank you, {name}!", text, {}) == found


def test_dots_stand_for_any_text() -> None:
    assert find("Order {order} ... {total}", "Order SO-1 came to 5.00", {"total": "5.00"}) == {
        "order": "SO-1"
    }


def test_a_field_that_stands_twice_has_one_value() -> None:
    assert find("{a} is {a}", "x is x", {}) == {"a": "x"}
    assert find("{a} is {a}", "x is y", {}) is None


def test_braces_and_signs_of_expressions_are_themselves() -> None:
    assert find("({x}) {{y}} a+b?", "(1) {y} a+b?", {"x": 1}) == {}
    assert find("({x}) {{y}} a+b?", "(1) {y} aab", {"x": 1}) is None


def test_every_line_that_has_a_template_gives_its_values() -> None:
    lines = ['- row "SO-1001 1.00"', '- row "SO-1002 5.00"', '- row "SO-1003 5.00"']
    template, reads = 'row "{order} {total}', ["order"]
    assert find_in_lines(template, lines, {"total": "5.00"}, reads) == [
        {"order": "SO-1002"},
        {"order": "SO-1003"},
    ]
    assert find_in_lines(template, lines, {"total": "7.00"}, reads) == []


@pytest.mark.parametrize(
    "value, line, is_there",
    [
        ("11.00", "total 111.00", False),
        ("11.00", "total 11.005", False),
        ("11.00", "total 11.00.", True),
        ("tea", "a steak", False),
        ("tea", "Tea, tea", True),
        ("1", "SO-11", False),
        ("SO-1", "订单SO-1已取消", True),
        ("北京", "寄往北京市", True),
    ],
)
def test_a_value_in_a_line_is_a_word_of_its_own(value: str, line: str, *, is_there: bool) -> None:
    assert bool(find_in_lines("{value}", [line], {"value": value})) == is_there


def test_a_number_that_is_read_is_none_of_the_marks_around_it() -> None:
    assert find_in_lines("{order} 5.00", ["- table - 5.00"], {}, ["order"]) == []
    assert find_in_lines("{case} · Refund", ["- listitem: C-7 · Refund"], {}, ["case"]) == [
        {"case": "C-7"}
    ]


def test_a_value_is_one_part_of_a_path() -> None:
    assert filled_path("/search/{product}?page=2", {"product": "a&b/c #1?"}) == (
        "/search/a%26b%2Fc%20%231%3F?page=2"
    )
