"""Constraints on the output: state of a grammar, admitted and forced tokens.

A JSON schema admits no optional whitespace, unless the schema itself requests it (`x-guidance`).
The more tokens a grammar forces, the fewer the model has to choose.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.json_schema.patterns import check_pattern
from gpt2flow.server.grammar.json_schema.translation import translate_lark, translate_schema
from gpt2flow.server.grammar.messages import explain
from gpt2flow.server.grammar.vocabulary import GrammarVocabulary
from gpt2flow.server.params import ConstraintKind, ConstraintParams
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

# Compiled grammars to cache: those with a source of at most `_SMALL` characters, and larger ones.
_SMALL = 4096
_CACHED_SMALL = 256
_CACHED_LARGE = 8

# Memory of a lexer: a state takes 1 to 2 KB.
_LIMITS: Final[Mapping[str, Any]] = {"max_lexer_states": 50_000, "verbose_errors": False}


class Constraint(Protocol):
    """State of one sequence in the language that its output belongs to."""

    @property
    def complete(self) -> bool:
        """True if the output is whole, and admits no further token."""

    def allowed(self) -> npt.NDArray[np.intp]:
        """Return the ids of the admitted tokens, ascending.

        End-of-text tokens are among them if the output may end here.

        Raises:
            GrammarError: The constraint exceeds its limits.
        """

    def advance(self, token_id: int) -> None:
        """Advance the state by a token.

        Raises:
            GrammarError: The constraint does not admit it.
        """

    def forced(self) -> list[int]:
        """Return the tokens that the constraint leaves no choice about; often none."""

    def valid_start(self, tokens: list[int]) -> list[int]:
        """Return the leading tokens that are admitted one after the other."""

    def fork(self) -> Self:
        """Return an independent constraint in the same state."""


class GrammarConstraint:
    """State of one sequence in its grammar."""

    __slots__ = ("_has_eos", "_mask", "_matcher", "_vocabulary_size")

    def __init__(
        self,
        matcher: LLMatcher,
        mask: npt.NDArray[np.int32],
        vocabulary_size: int,
        *,
        has_eos: bool,
    ) -> None:
        """Start where the matcher is.

        Args:
            matcher: State of the grammar.
            mask: Memory for the bits of the admitted tokens.
            vocabulary_size: Number of the model's tokens.
            has_eos: Whether the model has a token that ends a text.
        """
        self._matcher = matcher
        self._mask = mask
        self._vocabulary_size = vocabulary_size
        self._has_eos = has_eos

    @property
    def complete(self) -> bool:
        """True if the output is whole, and admits no further token."""
        if self._matcher.is_stopped():
            return True
        # Without an end-of-text token, an output that admits none but that one is whole too.
        return not self._has_eos and self._matcher.is_accepting() and not len(self.allowed())

    def allowed(self) -> npt.NDArray[np.intp]:
        """Return the ids of the admitted tokens, ascending.

        All end-of-text tokens are among them if the output may end here.

        Raises:
            GrammarError: The grammar exceeds its limits.
        """
        fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
        return np.flatnonzero(bits[: self._vocabulary_size])

    def advance(self, token_id: int) -> None:
        """Advance the state by a token.

        Raises:
            GrammarError: The grammar does not admit it.
        """
        self._matcher.consume_token(token_id)
        self._check()

    def forced(self) -> list[int]:
        """Return the tokens that the grammar leaves no choice about; often none."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def valid_start(self, tokens: list[int]) -> list[int]:
        """Return the leading tokens that are admitted one after the other."""
        return tokens[: self._matcher.validate_tokens(tokens)] if tokens else tokens

    def fork(self) -> "GrammarConstraint":
        """Return an independent constraint in the same state."""
        return GrammarConstraint(
            self._matcher.deep_copy(), self._mask, self._vocabulary_size, has_eos=self._has_eos
        )

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(explain(self._matcher.get_error()))


class GrammarCompiler:
    """Compiler of constraints for one tokenizer, with a cache.

    Attributes:
        setup: Facts that another process needs to compile the same grammars.
    """

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> None:
        """Build llguidance's tables of the vocabulary.

        Args:
            tokenizer: Tokenizer of the model.
            eos_token_ids: Ids of the end-of-text tokens; may be none.
        """
        # Given the file, llguidance would parse it again, and keep a second tokenizer. It is built
        # in two parts: each holds the interpreter lock, which stops running streams.
        self._vocabulary = vocabulary = GrammarVocabulary(tokenizer, eos_token_ids)
        pieces = TokenizerWrapper(vocabulary)
        bare = LLTokenizer(pieces, eos_token=vocabulary.eos_token_ids, slices=[])
        self._tokenizer = bare.with_slices(LLTokenizer.general_slices())
        self._vocabulary_size = tokenizer.vocabulary_size
        self._has_eos = bool(eos_token_ids)
        # Caching a method would make a cycle, and keep an unloaded model in memory.
        compiled = functools.partial(_compile, self._tokenizer)
        self._small = functools.lru_cache(_CACHED_SMALL)(compiled)
        self._large = functools.lru_cache(_CACHED_LARGE)(compiled)
        self.setup: Mapping[str, Any] = {
            "tokens": vocabulary.tokens,
            "special_token_ids": vocabulary.special_token_ids,
            "eos_token_ids": vocabulary.eos_token_ids,
            "limits": dict(_LIMITS),
        }

    def check(self, params: ConstraintParams) -> None:
        """Check a constraint as far as that takes no compilation.

        Raises:
            GrammarError: A JSON schema is not a JSON object, or no tokens write a choice.
        """
        write_grammar(params)
        if params.kind is not ConstraintKind.CHOICES:
            return
        for choice in params.source:
            if character := self._vocabulary.unwritable(choice):
                raise GrammarError(
                    f"{choice!r} has {character!r}, for which the model has no token"
                )

    def compile(self, params: ConstraintParams) -> GrammarConstraint:
        """Return a constraint at its start; for any thread.

        Raises:
            GrammarError: The source is not a valid schema, expression or grammar.
        """
        small = sum(map(len, params.source)) <= _SMALL
        matcher = (self._small if small else self._large)(params).deep_copy()
        mask = allocate_token_bitmask(1, len(self._vocabulary.tokens))
        return GrammarConstraint(matcher, mask, self._vocabulary_size, has_eos=self._has_eos)


def _compile(tokenizer: LLTokenizer, params: ConstraintParams) -> LLMatcher:
    limits = LLParserLimits(**_LIMITS)
    matcher = LLMatcher(tokenizer, write_grammar(params), log_level=0, limits=limits)
    if matcher.is_error():
        raise GrammarError(explain(matcher.get_error()))
    return matcher


def write_grammar(params: ConstraintParams) -> str:
    """Return the grammar in llguidance's own format.

    Raises:
        GrammarError: The source demands what cannot be enforced exactly.
    """
    source = params.source[0]
    match params.kind:
        case ConstraintKind.JSON_SCHEMA:
            grammar = _json_schema(source)
        case ConstraintKind.REGEX:
            check_pattern(source)
            grammar = LLMatcher.grammar_from_regex(source)
        case ConstraintKind.CHOICES:
            grammar = LLMatcher.grammar_from_lark(_choices(params.source))
        case ConstraintKind.LARK:
            grammar = LLMatcher.grammar_from_lark(translate_lark(source))
    return str(grammar)


def _json_schema(source: str) -> str:
    schema = translate_schema(source)
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            schema, defaults={"whitespace_flexible": False}
        )
    except ValueError as error:
        # Python accepts JSON that llguidance rejects: lone surrogates.
        raise GrammarError(f"not JSON: {error}") from error
    return str(grammar)


def _choices(values: Sequence[str]) -> str:
    # One terminal for all choices: the limit on rules is far lower.
    return "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(value) for value in values)
