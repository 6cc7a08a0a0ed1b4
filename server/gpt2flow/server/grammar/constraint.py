"""What the output must look like: grammar state, admitted and forced tokens.

A JSON schema is written without optional whitespace, unless the schema itself
asks for it (`x-guidance`): the more the grammar forces, the fewer tokens the
model has to run for.
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

# Grammars with a source of at most so many characters, and longer ones, that are kept.
_SMALL = 4096
_CACHED_SMALL = 256
_CACHED_LARGE = 8

# What a lexer may come to weigh: a state takes 1 to 2 KB.
_LIMITS: Final[Mapping[str, Any]] = {"max_lexer_states": 50_000, "verbose_errors": False}

_MESSAGE_CHARACTERS = 300


class Constraint:
    """Where one sequence stands in its grammar."""

    __slots__ = ("_mask", "_matcher", "_vocabulary_size")

    def __init__(
        self, matcher: LLMatcher, mask: npt.NDArray[np.int32], vocabulary_size: int
    ) -> None:
        self._matcher = matcher
        self._mask = mask
        self._vocabulary_size = vocabulary_size

    @property
    def complete(self) -> bool:
        """Whether the output is whole and nothing can be added to it."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def allowed(self) -> npt.NDArray[np.intp]:
        """Return the ids of the tokens that may follow, ascending.

        The end-of-text token is among them where the output may end here.

        Raises:
            GrammarError: The grammar grew beyond what may be spent on it.
        """
        fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
        return np.flatnonzero(bits[: self._vocabulary_size])

    def advance(self, token_id: int) -> None:
        """Note that a token was appended.

        Raises:
            GrammarError: The grammar does not admit it.
        """
        self._matcher.consume_token(token_id)
        self._check()

    def forced(self) -> list[int]:
        """Return the tokens that must follow whatever the model says; often none."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def valid_start(self, tokens: list[int]) -> list[int]:
        """Return those of the leading tokens that may follow one after the other."""
        return tokens[: self._matcher.validate_tokens(tokens)] if tokens else tokens

    def fork(self) -> "Constraint":
        """Return a constraint in the same state that goes its own way."""
        return Constraint(self._matcher.deep_copy(), self._mask, self._vocabulary_size)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(_one_line(self._matcher.get_error()))


class GrammarCompiler:
    """Compiles constraints for one tokenizer, and keeps those that come again and again.

    Attributes:
        setup: What another process needs to compile the same grammars.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, eos_token_id: int) -> None:
        """Make llguidance's tables of the vocabulary.

        Args:
            tokenizer: Of the model.
            vocabulary_size: Of the model; it may exceed the tokenizer's.
            eos_token_id: The end-of-text token.
        """
        # Not from the file, which llguidance would parse again, and hold another tokenizer. It
        # holds the interpreter meanwhile, and so stops running streams: in two parts.
        pieces = TokenizerWrapper(_Pieces(tokenizer, eos_token_id))
        bare = LLTokenizer(pieces, n_vocab=vocabulary_size, slices=[])
        self._tokenizer = bare.with_slices(LLTokenizer.general_slices())
        self._vocabulary_size = vocabulary_size
        # Not a method of this object: a cycle would outlive a model that is unloaded.
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
        """Check what costs nothing to check.

        Raises:
            GrammarError: A JSON schema is not a JSON object.
        """
        write_grammar(params)

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start. May be called from any thread.

        Raises:
            GrammarError: The source is not a valid schema, expression or grammar.
        """
        small = sum(map(len, params.source)) <= _SMALL
        matcher = (self._small if small else self._large)(params).deep_copy()
        mask = allocate_token_bitmask(1, self._vocabulary_size)
        return Constraint(matcher, mask, self._vocabulary_size)


class _Pieces:
    """A tokenizer as llguidance asks for it."""

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
        raise GrammarError(_one_line(matcher.get_error()))
    return matcher


def write_grammar(params: ConstraintParams) -> str:
    """Return the grammar in llguidance's own form.

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
        # What Python takes for JSON may be none: a number out of range, half of a character.
        raise GrammarError(_one_line(f"not JSON: {error}")) from error
    return str(grammar)


def _parsed(source: str) -> object:
    # Without this check the error would speak of llguidance's own wrapping.
    try:
        return json.loads(source)
    except ValueError as error:
        raise GrammarError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise GrammarError("nested too deeply") from error


def _choices(values: Sequence[str]) -> str:
    # One terminal, however many there are: rules have a limit that is far lower.
    return "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(value) for value in values)


def _one_line(message: str) -> str:
    return " ".join(message.split())[:_MESSAGE_CHARACTERS]
