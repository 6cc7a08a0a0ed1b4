"""Constraints admit exactly the output of their grammar; bad grammars are explained."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask
from tests.support.engine_bench import EOS
from tests.support.grammars import constraint_of
from tokenizers import Tokenizer as HfTokenizer

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.constraint import (
    Constraint,
    GrammarCompiler,
    GrammarConstraint,
    write_grammar,
)
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "amount": {"type": "integer"}},
        "required": ["name", "amount"],
        "additionalProperties": False,
    }
)


def advance(constraint: Constraint, tokenizer: Tokenizer, text: str) -> None:
    """Advance by a text, each token of which must be allowed."""
    for token in tokenizer.encode(text):
        assert token in constraint.allowed()
        constraint.advance(token)


def walk(constraint: Constraint, rng: np.random.Generator, most: int) -> Iterator[int]:
    """Advance by random allowed tokens until the output ends."""
    for _ in range(most):
        token = int(rng.choice(constraint.allowed()))
        if token == EOS:
            return
        yield token
        constraint.advance(token)
        if constraint.complete:
            return


@pytest.mark.parametrize(
    "kind,source,message",
    [
        ("json_schema", '{"type": 12', "not JSON"),
        ("json_schema", "true", "must be an object"),
        ("json_schema", "NaN", "not JSON: NaN is not a number"),
        ("json_schema", '{"minLength": 1e999}', "#/minLength: 1e999 is out of range"),
        ("json_schema", '{"const": "\\ud800"}', "not JSON"),
        ("json_schema", '{"type": "nothing"}', "nothing"),
        ("json_schema", '{"type": "string", "minLength": 3, "maxLength": 1}', "."),
        ("regex", "(ab", "unclosed group"),
        ("lark", "start: 'x", "."),
        ("lark", 'begin: "x"', "start"),
        ("lark", "start: <|nobody|>", "unknown special token"),
    ],
)
def test_the_error_of_a_bad_grammar_is_one_line(
    grammars: GrammarCompiler, kind: str, source: str, message: str
) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        grammars.compile(constraint_of(kind, source))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True), st.data())
def test_choices_admit_exactly_themselves(
    grammars: GrammarCompiler, tokenizer: Tokenizer, choices: list[str], data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    constraint = grammars.compile(constraint_of("choices", *choices))
    tokens = list(walk(constraint, np.random.default_rng(seed), 200))
    assert tokenizer.decode(tokens) in choices


def test_each_choice_is_admitted(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    choices = ["yes", "no", 'a "quoted" one', "back\\slash", "new\nline", "蓝色 😀", "a|b", "/x/"]
    for choice in choices:
        constraint = grammars.compile(constraint_of("choices", *choices))
        advance(constraint, tokenizer, choice)
        assert constraint.complete or EOS in constraint.allowed()


@pytest.mark.parametrize("seed", range(10))
def test_a_regex_matches_the_whole_output(
    grammars: GrammarCompiler, tokenizer: Tokenizer, seed: int
) -> None:
    constraint = grammars.compile(constraint_of("regex", r"[a-c]{2,4}/[0-9]+"))
    text = tokenizer.decode(list(walk(constraint, np.random.default_rng(seed), 20)))
    assert set(text) <= set("abc/0123456789")
    assert 2 <= len(text.partition("/")[0]) <= 4


def test_output_is_complete_when_only_its_end_is_allowed(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = grammars.compile(constraint_of("json_schema", SCHEMA))
    advance(constraint, tokenizer, '{"name":"cup","amount":1')
    assert not constraint.complete
    advance(constraint, tokenizer, "}")
    assert constraint.complete


def test_output_may_end_or_continue_after_an_optional_part(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = grammars.compile(constraint_of("regex", "ab+"))
    advance(constraint, tokenizer, "a")
    assert EOS not in constraint.allowed()
    advance(constraint, tokenizer, "b")
    assert EOS in constraint.allowed()
    assert not constraint.complete


def test_a_schema_is_written_without_optional_whitespace(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = grammars.compile(constraint_of("json_schema", SCHEMA))
    assert (
        tokenizer.decode(constraint.forced())
        == '{"name":"'[: len(tokenizer.decode(constraint.forced()))]
    )
    assert constraint.forced()


def test_a_schema_can_allow_whitespace(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    schema = json.dumps(json.loads(SCHEMA) | {"x-guidance": {"whitespace_flexible": True}})
    constraint = grammars.compile(constraint_of("json_schema", schema))
    advance(constraint, tokenizer, '{ "name"')


def test_forced_tokens_are_allowed(grammars: GrammarCompiler) -> None:
    constraint = grammars.compile(constraint_of("json_schema", SCHEMA))
    for token in constraint.forced():
        assert token in constraint.allowed()
        constraint.advance(token)


def test_a_fork_advances_independently(grammars: GrammarCompiler, tokenizer: Tokenizer) -> None:
    constraint = grammars.compile(constraint_of("choices", "ab", "cd"))
    twin = constraint.fork()
    advance(constraint, tokenizer, "ab")
    assert constraint.complete
    assert not twin.complete
    advance(twin, tokenizer, "cd")
    assert twin.complete


def test_a_cached_grammar_starts_from_its_beginning(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    advance(grammars.compile(constraint_of("choices", "ab", "cd")), tokenizer, "ab")
    assert not grammars.compile(constraint_of("choices", "ab", "cd")).complete


def test_a_token_that_is_not_allowed_is_an_error(
    grammars: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = grammars.compile(constraint_of("choices", "ab"))
    with pytest.raises(GrammarError):
        constraint.advance(tokenizer.encode("z")[0])


def test_special_tokens_can_be_part_of_a_grammar(grammars: GrammarCompiler) -> None:
    constraint = grammars.compile(constraint_of("lark", 'start: <|user|> "hi"'))
    assert constraint.allowed().tolist() == [1]


def extended_tokenizer(bundle: Path) -> HfTokenizer:
    """Return a bundle's tokenizer with an additional text token and special token."""
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    library.add_tokens(["blue cup"])
    library.add_special_tokens(["<|end of turn|>"])
    return library


@pytest.mark.parametrize(
    "kind,source",
    [
        ("json_schema", SCHEMA),
        ("regex", r"(Where is|a blue cup|<\|end of turn\|>) [a-z]{2,5}!"),
        ("lark", 'start: "订单 blue cup " /[0-9]+/ "<|user|> is late, thanks"'),
        ("lark", "start: /[a-z]+/ <|user|> /[0-9]{3}/"),
    ],
)
def test_the_vocabulary_equals_that_of_llguidance(bundle: Path, kind: str, source: str) -> None:
    library = extended_tokenizer(bundle)
    size = library.get_vocab_size() + 5
    ours = GrammarCompiler(Tokenizer(library.to_str().encode()), [EOS])
    theirs = LLTokenizer(library.to_str(), n_vocab=size, eos_token=EOS)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        constraint = ours.compile(constraint_of(kind, source))
        matcher = LLMatcher(theirs, write_grammar(constraint_of(kind, source)), log_level=0)
        oracle = GrammarConstraint(matcher, allocate_token_bitmask(1, size), size, has_eos=True)
        for _ in range(40):
            forced = constraint.forced()
            assert forced == oracle.forced()
            allowed = constraint.allowed()
            np.testing.assert_array_equal(allowed, oracle.allowed())
            token = forced[0] if forced else int(rng.choice(allowed))
            constraint.advance(token)
            oracle.advance(token)
            assert constraint.complete == oracle.complete
            if constraint.complete:
                break
