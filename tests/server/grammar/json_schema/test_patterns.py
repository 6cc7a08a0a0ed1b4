"""Regular expressions of schemas: translated, or refused by name."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.constrained import Languages

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.json_schema.patterns import check_pattern, translate_pattern

START = r"^(?!^[-+.]*$)[+-]?0*"
# Patterns that versions of Pydantic write for a Decimal, with limits on its digits.
DECIMALS = {
    "any": START + r"\d*\.?\d*$",
    "places": START + r"\d*\.?\d{0,2}0*$",
    "digits": START + r"(?:\d{0,3}|(?=[\d.]{1,4}0*$)\d*\.\d*0*$)",
    "both": START + r"(?:\d{0,2}|(?=[\d.]{1,5}0*$)\d{0,2}\.\d{0,2}0*$)",
    "more places than digits": START + r"(?:\d{0,0}|(?=[\d.]{1,3}0*$)\d{0,0}\.\d{0,4}0*$)",
}


def ends(pattern: str) -> str:
    """Return a pattern of Pydantic whose alternatives all end with the text."""
    return re.sub(r"(\(\?:\\d\{0,\d+\})\|", r"\1$|", pattern)


@pytest.mark.parametrize("name", DECIMALS)
def test_the_pattern_of_a_decimal_is_translated_without_look_ahead(name: str) -> None:
    pattern = DECIMALS[name]
    translated = translate_pattern(pattern)
    assert not any("(?=" in each or "(?!" in each for each in translated)
    for length in range(7):
        for characters in itertools.product("0.-1", repeat=length):
            text = "".join(characters)
            theirs = re.search(ends(pattern), text, re.ASCII) is not None
            assert all(re.search(each, text) for each in translated) == theirs, text


@pytest.mark.parametrize("name", DECIMALS)
def test_a_decimal_is_admitted_as_its_pattern_says(languages: Languages, name: str) -> None:
    language = languages.of_schema({"type": "string", "pattern": DECIMALS[name]})
    assert language.admits('"00.25"')
    assert not language.admits('"-."')
    assert not language.admits('"1.2.3"')
    assert not language.admits('""')


@pytest.mark.parametrize(
    "pattern,construct",
    [
        ("a(?=b)", "look-ahead, (?=,"),
        ("(?!a)b", "look-ahead, (?!,"),
        ("(?<=a)b", "look-behind, (?<=,"),
        ("(?<!a)b", "look-behind, (?<!,"),
        (r"[a]\bc", r"a word boundary, \b,"),
        (r"(a)\1", r"a backreference, \1,"),
        (r"(?P<x>a)(?P=x)", "a backreference, (?P=,"),
        ("(?>a)", "an atomic group, (?>,"),
    ],
)
def test_a_construct_that_the_dialect_lacks_is_named(
    languages: Languages, pattern: str, construct: str
) -> None:
    with pytest.raises(GrammarError) as caught:
        languages.of("regex", pattern)
    assert str(caught.value).startswith(f"{construct} is not supported")
    with pytest.raises(GrammarError) as caught:
        languages.of_schema({"properties": {"a": {"pattern": pattern}}})
    assert str(caught.value).startswith(f"#/properties/a/pattern: {construct} is not supported")
    with pytest.raises(GrammarError) as caught:
        languages.of_schema({"patternProperties": {pattern: True}})
    assert construct in str(caught.value)


@pytest.mark.parametrize(
    "pattern", [r"\(?=", r"[(?=]a", r"\\\(?!", r"[\](?!]", "a(?:b)", "[[:alpha:](?=]"]
)
def test_characters_that_look_like_a_construct_are_none(pattern: str) -> None:
    check_pattern(pattern)


@given(st.text(alphabet=r"()[]?=!<>\ba1^-", max_size=12))
def test_no_supported_expression_is_refused(languages: Languages, pattern: str) -> None:
    """The compiler, which has no such construct, refuses what the check refuses."""
    try:
        check_pattern(pattern)
    except GrammarError:
        from llguidance import LLMatcher

        tokenizer = languages.grammars._tokenizer
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_regex(pattern), log_level=0)
        assert matcher.is_error()
