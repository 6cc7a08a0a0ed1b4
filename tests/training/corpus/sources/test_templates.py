"""Templates expand as their syntax promises; errors name the template."""

import contextlib
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.training.corpus.sources.templates import (
    Placeholder,
    Template,
    TemplateParser,
    sample_usual,
)
from gpt2flow.training.errors import CorpusError


def _parser(**phrases: list[str]) -> TemplateParser:
    return TemplateParser("file.yaml", phrases)


def _count_expansions(template: Template, count: int = 400) -> Counter[str]:
    rng = random.Random(1)
    parts = (template.expand(rng) for _ in range(count))
    return Counter(
        "".join(p if isinstance(p, str) else f"{{{p.slot}}}" for p in expansion)
        for expansion in parts
    )


@pytest.mark.parametrize(
    "source, expected",
    [
        ("plain", {"plain"}),
        ("(a|b) c", {"a c", "b c"}),
        ("a[ b]", {"a", "a b"}),
        ("a[ b| c]", {"a", "a b", "a c"}),
        ("(a|b[c(d|e)])", {"a", "b", "bcd", "bce"}),
        ("x {order}[, {reason}]", {"x {order}", "x {order}, {reason}"}),
        ("<want> it", {"I want it", "may I have it", "can I have it"}),
        ("a(|b)", {"a", "ab"}),
    ],
)
def test_a_template_expands_to_each_alternative(source: str, expected: set[str]) -> None:
    parser = _parser(want=["I want", "<ask> I have"], ask=["can", "may"])
    assert set(_count_expansions(parser.parse(source))) == expected


def test_alternatives_are_equally_likely_and_optional_parts_occur_half_the_time() -> None:
    counts = _count_expansions(_parser().parse("(a|b|c|d)[!]"), 8000)
    assert all(800 < count < 1200 for count in counts.values())


def test_fixed_values_and_slots_are_listed() -> None:
    template = _parser().parse("[(a|{order})] {x} => reason=damaged, quantity=2")
    assert template.fixed == {"reason": "damaged", "quantity": "2"}
    assert template.slots == {"order", "x"}
    assert _parser().parse("{code}").nodes == [Placeholder("code")]
    assert _parser().parse("{1.code}").nodes == [Placeholder("1.code")]


def test_usual_wordings_come_first_and_are_half_of_all() -> None:
    templates = [_parser().parse(str(number)) for number in range(8)]
    rng = random.Random(1)
    counts = Counter(sample_usual(templates, rng).text(rng) for _ in range(4000))
    assert 1850 < counts["0"] + counts["1"] < 2150
    assert set(counts) == set("01234567")
    assert counts["0"] > counts["3"] > counts["7"] > 150


@pytest.mark.parametrize(
    "source, problem",
    [
        ("(a", "')' is missing"),
        ("[a)", "']' is missing"),
        ("a)", "stray ')'"),
        ("a|b", "stray '|'"),
        ("a {b c}", "stray '{'"),
        ("<missing>", "no phrase <missing>"),
        ("<loop>", "phrase <loop> contains itself"),
        ("a => reason", "'reason' is not slot=value"),
    ],
)
def test_an_error_names_file_and_template(source: str, problem: str) -> None:
    parser = _parser(loop=["a <round>"], round=["<loop>"])
    with pytest.raises(CorpusError, match=r"^file\.yaml: template ") as caught:
        parser.parse(source)
    assert problem in str(caught.value)


@given(st.text(alphabet="ab ()[]{}<>|=,", max_size=12))
def test_any_text_is_parsed_or_rejected(source: str) -> None:
    with contextlib.suppress(CorpusError):
        _count_expansions(_parser(a=["x"]).parse(source), 1)
