"""Grammars over every kind of tokenizer are about its tokens' bytes."""

import json

import numpy as np
import pytest
from tests.support.grammars import constraint_of
from tests.support.vocabularies import KINDS, SPACING

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.grammar.vocabulary import GrammarVocabulary
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

CONSTRAINED = sorted(KINDS.keys() - SPACING)
BYTES = [kind for kind in CONSTRAINED if "byte" in kind]
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "Name": {"enum": ["Žluťoučký", "학생 The", "A  B"]},
            "n": {"type": "integer", "maximum": 99, "minimum": 0},
        },
        "required": ["Name", "n"],
        "additionalProperties": False,
    }
)


def tokenizer_of(kind: str) -> Tokenizer:
    return Tokenizer(KINDS[kind].make().to_str().encode())


def eos_of(tokenizer: Tokenizer, kind: str) -> list[int]:
    return tokenizer.encode(KINDS[kind].eos, continuing=True)


def compiler_of(kind: str) -> tuple[Tokenizer, GrammarCompiler]:
    tokenizer = tokenizer_of(kind)
    return tokenizer, GrammarCompiler(tokenizer, eos_of(tokenizer, kind))


def random_output(kind: str, seed: int, *, limit: int = 200) -> tuple[bytes, str]:
    """Return bytes and text of a random output that the schema admits."""
    tokenizer, compiler = compiler_of(kind)
    constraint = compiler.compile(constraint_of("json_schema", SCHEMA))
    rng = np.random.default_rng(seed)
    stream, text, ids = tokenizer.stream(before=()), "", list[int]()
    while not constraint.complete and len(ids) < limit:
        forced = constraint.forced()
        token_id = forced[0] if forced else int(rng.choice(constraint.allowed()))
        if token_id in tokenizer.special_ids:
            break
        constraint.advance(token_id)
        ids.append(token_id)
        text += stream.push(token_id)
    return b"".join(map(tokenizer.piece, ids)), text + stream.finish()


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("seed", range(3))
def test_a_schema_holds_for_any_text_if_all_bytes_have_tokens(kind: str, seed: int) -> None:
    written, text = random_output(kind, seed)
    assert written == text.encode()
    value = json.loads(text)
    assert value["Name"] in {"Žluťoučký", "학생 The", "A  B"}
    assert isinstance(value["n"], int)


@pytest.mark.parametrize("kind", CONSTRAINED)
@pytest.mark.parametrize("text", ["학생 the", " the ", "The the", "学生学"])
def test_a_forced_text_is_written_exactly(kind: str, text: str) -> None:
    tokenizer, compiler = compiler_of(kind)
    constraint = compiler.compile(constraint_of("choices", text))
    written = b""
    while not constraint.complete and (forced := constraint.forced()):
        for token_id in forced:
            constraint.advance(token_id)
            written += tokenizer.piece(token_id)
    assert written == text.encode()


@pytest.mark.parametrize("kind", CONSTRAINED)
def test_tokens_of_a_text_write_it_or_its_start(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    vocabulary = GrammarVocabulary(tokenizer, eos_of(tokenizer, kind))
    for text in ("The student", "ABC ÄÖ", "  two", "€", "<s></s>", "한글 ☃", "</w>##a▁b"):
        ids = vocabulary(text)
        assert tokenizer.special_ids.isdisjoint(ids)
        written = b"".join(vocabulary.tokens[token_id] for token_id in ids)
        assert text.encode().startswith(written)
        complete = written == text.encode()
        assert complete or kind not in BYTES
        assert bool(vocabulary.unwritable(text)) != complete


def test_a_choice_that_no_tokens_write_is_refused_by_character() -> None:
    _, compiler = compiler_of("Unigram")
    with pytest.raises(GrammarError, match="'学生€' has '€', for which the model has no token"):
        compiler.check(constraint_of("choices", "学生", "学生€"))
    compiler.check(constraint_of("choices", "学生", "학생"))


def test_an_output_that_no_token_continues_is_an_error() -> None:
    tokenizer, compiler = compiler_of("Metaspace BPE")
    constraint = compiler.compile(constraint_of("regex", "学(€|☃)"))
    for token_id in tokenizer.encode("学", continuing=True):
        constraint.advance(token_id)
    with pytest.raises(GrammarError, match="admits no text"):
        constraint.allowed()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_writes_spaces_of_its_own_names_the_reason(kind: str) -> None:
    error = tokenizer_of(kind).constraint_error
    assert bool(error) == (kind in SPACING)
    assert not error or f"a {kind} tokenizer writes spaces" in error
