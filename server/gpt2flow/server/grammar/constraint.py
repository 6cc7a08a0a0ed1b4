"""Constraints on the output: state of a grammar, admitted and forced tokens.

A JSON schema admits no optional whitespace, unless the schema itself requests it (`x-guidance`).
The more tokens a grammar forces, the fewer the model has to choose.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.params import ConstraintKind, ConstraintParams
from gpt2flow.server.tokenizer import Tokenizer

# Compiled grammars to cache: those with a source of at most `_SMALL` characters, and larger ones.
_SMALL = 4096
_CACHED_SMALL = 256
_CACHED_LARGE = 8

# Memory of a lexer: a state takes 1 to 2 KB.
_LIMITS: Final[Mapping[str, Any]] = {"max_lexer_states": 50_000, "verbose_errors": False}


class Constraint:
    """State of one sequence in its grammar."""

    __slots__ = ("_mask", "_matcher", "_vocabulary_size")

    def __init__(
        self, matcher: LLMatcher, mask: npt.NDArray[np.int32], vocabulary_size: int
    ) -> None:
        self._matcher = matcher
        self._mask = mask
        self._vocabulary_size = vocabulary_size

    @property
    def complete(self) -> bool:
        """True if the output is whole, and admits no further token."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def allowed(self) -> npt.NDArray[np.intp]:
        """Return the ids of the admitted tokens, ascending.

        The end-of-text token is among them if the output may end here.

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

    def fork(self) -> "Constraint":
        """Return an independent constraint in the same state."""
        return Constraint(self._matcher.deep_copy(), self._mask, self._vocabulary_size)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(self._matcher.get_error())


class GrammarCompiler:
    """Compiler of constraints for one tokenizer, with a cache.

    Attributes:
        setup: Facts that another process needs to compile the same grammars.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, eos_token_id: int) -> None:
        """Build llguidance's tables of the vocabulary.

        Args:
            tokenizer: Tokenizer of the model.
            vocabulary_size: Vocabulary size of the model; it may exceed the tokenizer's.
            eos_token_id: Id of the end-of-text token.
        """
        # Given the file, llguidance would parse it again, and keep a second tokenizer. It is built
        # in two parts: each holds the interpreter lock, which stops running streams.
        pieces = TokenizerWrapper(_Pieces(tokenizer, eos_token_id))
        bare = LLTokenizer(pieces, n_vocab=vocabulary_size, slices=[])
        self._tokenizer = bare.with_slices(LLTokenizer.general_slices())
        self._vocabulary_size = vocabulary_size
        # Caching a method would make a cycle, and keep an unloaded model in memory.
        compiled = functools.partial(_compile, self._tokenizer)
        self._small = functools.lru_cache(_CACHED_SMALL)(compiled)
        self._large = functools.lru_cache(_CACHED_LARGE)(compiled)
        self.setup: Mapping[str, Any] = {
            "tokenizer": tokenizer.json,
            "vocabulary_size": vocabulary_size,
            "eos_token_id": eos_token_id,
            "limits": dict(_LIMITS),
        }

    def check(self, params: ConstraintParams) -> None:
        """Check a constraint as far as that takes no compilation.

        Raises:
            GrammarError: A JSON schema is not a JSON object.
        """
        write_grammar(params)

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start; for any thread.

        Raises:
            GrammarError: The source is not a valid schema, expression or grammar.
        """
        small = sum(map(len, params.source)) <= _SMALL
        matcher = (self._small if small else self._large)(params).deep_copy()
        mask = allocate_token_bitmask(1, self._vocabulary_size)
        return Constraint(matcher, mask, self._vocabulary_size)


class _Pieces:
    """Adapter of a tokenizer to the interface of llguidance."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_token_id: int) -> None:
        self.eos_token_id = eos_token_id
        self.tokens = tokenizer.pieces
        self.special_token_ids = tokenizer.special_ids
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode_short(text)


def _compile(tokenizer: LLTokenizer, params: ConstraintParams) -> LLMatcher:
    limits = LLParserLimits(**_LIMITS)
    matcher = LLMatcher(tokenizer, write_grammar(params), log_level=0, limits=limits)
    if matcher.is_error():
        raise GrammarError(matcher.get_error())
    return matcher


def write_grammar(params: ConstraintParams) -> str:
    """Return the grammar in llguidance's own format.

    Raises:
        GrammarError: A JSON schema is not a JSON object.
    """
    source = params.source[0]
    match params.kind:
        case ConstraintKind.JSON_SCHEMA:
            grammar = _json_schema(source)
        case ConstraintKind.REGEX:
            grammar = LLMatcher.grammar_from_regex(source)
        case ConstraintKind.CHOICES:
            grammar = LLMatcher.grammar_from_lark(_choices(params.source))
        case ConstraintKind.LARK:
            grammar = LLMatcher.grammar_from_lark(source)
    return str(grammar)


def _json_schema(source: str) -> str:
    if not isinstance(_parsed(source), dict):
        raise GrammarError("a JSON schema must be an object")
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            source, defaults={"whitespace_flexible": False}
        )
    except ValueError as error:
        # Python accepts JSON that llguidance rejects: numbers out of range, lone surrogates.
        raise GrammarError(f"not JSON: {error}") from error
    return str(grammar)


def _parsed(source: str) -> object:
    # An error of llguidance would point into its own wrapper of the schema.
    try:
        return json.loads(source)
    except ValueError as error:
        raise GrammarError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise GrammarError("nested too deeply") from error


def _choices(values: Sequence[str]) -> str:
    # One terminal for all choices: the limit on rules is far lower.
    return "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(value) for value in values)
