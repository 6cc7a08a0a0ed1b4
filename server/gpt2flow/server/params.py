"""Options of a request, and their validation.

Fields have the names of the protocol's messages, so that a violation names the field of the
request.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, islice

from gpt2flow.files.tokens import MAX_PRIORITY
from gpt2flow.server.config.settings import RequestLimits
from gpt2flow.server.errors import MAX_VIOLATIONS, FieldViolation, InvalidRequestError
from gpt2flow.server.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Random sampling, or greedy decoding at temperature 0."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1

    @property
    def greedy(self) -> bool:
        """True for greedy decoding: the likeliest token, without random numbers."""
        return self.temperature == 0


class EarlyStopping(Enum):
    """Stopping rule of beam search; the values are those of transformers."""

    HEURISTIC = False
    FIRST = True
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearchParams:
    """Beam search with the semantics of transformers' generation.

    `early_stopping` is a number if the client sent a value that this version does not define.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping | int = EarlyStopping.HEURISTIC
    num_return_sequences: int = 1
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingParams:
    """Conditions that end generation.

    `ceiling` is not a field of the message: it is the most new tokens that the caller may have.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    time_limit_seconds: float | None = None
    return_partial_on_time_limit: bool = False
    include_stop_string: bool = False
    ceiling: int | None = None


class ConstraintKind(Enum):
    """Language of a constraint; the values are the protocol's fields."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICES = "choices"
    LARK = "lark"
    STORED_CHOICES = "stored_choices"


@dataclass(frozen=True, slots=True)
class ConstraintParams:
    """Constraint on the form of the output.

    Attributes:
        kind: Language of the source.
        source: One text; for `CHOICES`, all choices; for `STORED_CHOICES`, the name of the list.
    """

    kind: ConstraintKind
    source: tuple[str, ...]

    @property
    def is_compiled(self) -> bool:
        """True if its source is a grammar, which a compiler reads."""
        return self.kind is not ConstraintKind.STORED_CHOICES


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParams:
    """Contents of the response besides the text."""

    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    echo: bool = False
    token_ids: bool = False
    include_special_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """Options of generating from one prompt."""

    decoding: SamplingParams | BeamSearchParams = field(default_factory=SamplingParams)
    stopping: StoppingParams = field(default_factory=StoppingParams)
    constraint: ConstraintParams | None = None
    output: OutputParams = field(default_factory=OutputParams)
    priority: int = 0
    truncate_prompt: bool = False

    @property
    def scores_prompt_only(self) -> bool:
        """True if nothing is generated, for the log-probabilities of the prompt alone."""
        return self.stopping.max_new_tokens == 0

    @property
    def slots_needed(self) -> int:
        """Number of cache slots that it needs at the same time."""
        if self.scores_prompt_only:
            return 1
        if isinstance(self.decoding, BeamSearchParams):
            return self.decoding.num_beams
        return self.decoding.n


def validate(params: GenerationParams, limits: Limits) -> None:
    """Check the options of a request.

    Raises:
        InvalidRequestError: Fields are out of range; it names all of them.
    """
    found = chain(
        _decoding(params.decoding, limits),
        _stopping(params.stopping, limits),
        _max_new_tokens(params),
        check_constraint(params.constraint, limits.requests),
        _output(params.output, limits),
        _priority(params.priority),
    )
    violations = list(islice(found, MAX_VIOLATIONS))
    if violations:
        raise InvalidRequestError(violations)


def resolve_max_new_tokens(
    prompt_tokens: int, stopping: StoppingParams, limits: Limits, *, at_least: bool = False
) -> int:
    """Return the most new tokens of a candidate.

    Args:
        prompt_tokens: Length of the prompt.
        stopping: Options of the request.
        limits: Limits of the model.
        at_least: Whether `prompt_tokens` is a lower bound, for the error.

    Raises:
        InvalidRequestError: The context cannot hold prompt and new tokens.
    """
    room = limits.context_length - prompt_tokens
    max_new_tokens = stopping.max_new_tokens
    if max_new_tokens is None:
        default = limits.default_max_new_tokens
        max_new_tokens = min(default, stopping.ceiling or default, max(room, 1))
    if max_new_tokens > room:
        raise InvalidRequestError.of(
            "options.stopping.max_new_tokens",
            f"prompt ({'at least ' * at_least}{prompt_tokens} tokens) and max_new_tokens "
            f"({max_new_tokens}) together exceed the model's context of {limits.context_length} "
            "tokens",
        )
    return max_new_tokens


def prompt_room(stopping: StoppingParams, limits: Limits) -> int:
    """Return the most tokens of a prompt that is truncated.

    Without max_new_tokens, the default number of new tokens has room, at most half of the context.
    """
    reserved = stopping.max_new_tokens
    if reserved is None:
        default = limits.default_max_new_tokens
        reserved = min(default, stopping.ceiling or default, limits.context_length // 2)
    return limits.context_length - reserved


def _decoding(
    decoding: SamplingParams | BeamSearchParams, limits: Limits
) -> Iterator[FieldViolation]:
    if isinstance(decoding, BeamSearchParams):
        return _beam_search(decoding, limits)
    return _sampling(decoding, limits)


# Comparisons with NaN are false, so a check must state what holds for good values.
def _sampling(p: SamplingParams, limits: Limits) -> Iterator[FieldViolation]:
    checks = {
        "temperature": (0 <= p.temperature <= 100, "must be in [0, 100]"),
        "top_p": (0 < p.top_p <= 1, "must be in (0, 1]"),
        "min_p": (0 <= p.min_p < 1, "must be in [0, 1)"),
        "typical_p": (0 < p.typical_p <= 1, "must be in (0, 1]"),
        "repetition_penalty": (0 < p.repetition_penalty < math.inf, "must be positive"),
        "presence_penalty": (-2 <= p.presence_penalty <= 2, "must be in [-2, 2]"),
        "frequency_penalty": (-2 <= p.frequency_penalty <= 2, "must be in [-2, 2]"),
        "n": (1 <= p.n <= limits.max_candidates, f"must be in [1, {limits.max_candidates}]"),
    }
    yield from _violations("options.sampling", checks)
    yield from _biases_and_words("options.sampling", p, limits)
    if p.greedy and p.n > 1:
        yield FieldViolation(
            "options.sampling.n", "greedy decoding (temperature 0) has one candidate"
        )


def _biases_and_words(
    message: str, p: SamplingParams | BeamSearchParams, limits: Limits
) -> Iterator[FieldViolation]:
    most = limits.requests
    yield from at_most(f"{message}.logit_bias", len(p.logit_bias), most.logit_biases)
    yield from at_most(f"{message}.bad_words", len(p.bad_words), most.bad_words)
    for i, (token_id, bias) in enumerate(p.logit_bias):
        where = f"{message}.logit_bias[{i}]"
        if not limits.has_token(token_id):
            yield FieldViolation(f"{where}.token_id", limits.token_id_rule)
        if not -100 <= bias <= 100:
            yield FieldViolation(f"{where}.bias", "must be in [-100, 100]")
    for i, word in enumerate(p.bad_words):
        yield from _sized(f"{message}.bad_words[{i}]", word, most.bad_word_bytes)


def _beam_search(p: BeamSearchParams, limits: Limits) -> Iterator[FieldViolation]:
    checks = {
        "num_beams": (1 <= p.num_beams <= limits.max_beams, limits.beams_rule),
        "length_penalty": (-100 <= p.length_penalty <= 100, "must be in [-100, 100]"),
        "early_stopping": (
            isinstance(p.early_stopping, EarlyStopping),
            f"has the unknown value {p.early_stopping}",
        ),
        "num_return_sequences": (
            1 <= p.num_return_sequences <= max(p.num_beams, 1),
            "must be in [1, num_beams]",
        ),
        "repetition_penalty": (0 < p.repetition_penalty < math.inf, "must be positive"),
    }
    yield from _violations("options.beam_search", checks)
    yield from _biases_and_words("options.beam_search", p, limits)


def _stopping(p: StoppingParams, limits: Limits) -> Iterator[FieldViolation]:
    most = p.max_new_tokens
    checks = {
        "min_new_tokens": (
            p.min_new_tokens <= (limits.context_length if most is None else most),
            "must not exceed max_new_tokens",
        ),
        "time_limit_ms": (
            p.time_limit_seconds is None or p.time_limit_seconds > 0,
            "must be positive",
        ),
    }
    yield from _violations("options.stopping", checks)
    name, requests = "options.stopping", limits.requests
    yield from at_most(f"{name}.stop_strings", len(p.stop_strings), requests.stop_strings)
    yield from at_most(f"{name}.stop_token_ids", len(p.stop_token_ids), requests.stop_token_ids)
    for i, text in enumerate(p.stop_strings):
        yield from _sized(f"{name}.stop_strings[{i}]", text, requests.stop_string_bytes)
    for i, token_id in enumerate(p.stop_token_ids):
        if not limits.has_token(token_id):
            yield FieldViolation(f"options.stopping.stop_token_ids[{i}]", limits.token_id_rule)


def _max_new_tokens(params: GenerationParams) -> Iterator[FieldViolation]:
    if params.scores_prompt_only and not params.output.prompt_logprobs:
        yield FieldViolation(
            "options.stopping.max_new_tokens",
            "must be at least 1; 0 needs options.output.prompt_logprobs",
        )


def check_constraint(p: ConstraintParams | None, most: RequestLimits) -> Iterator[FieldViolation]:
    """Yield the violations of a constraint that show without parsing its source."""
    if p is None:
        return
    name = f"options.constraint.{p.kind.value}"
    size = sum(len(text.encode()) for text in p.source)
    yield from at_most(name, size, most.constraint_bytes, "bytes")
    if p.kind is not ConstraintKind.CHOICES:
        return
    name += ".values"
    if not p.source:
        yield FieldViolation(name, "must have at least one entry")
    yield from at_most(name, len(p.source), most.choices)
    if len(set(p.source)) < len(p.source):
        yield FieldViolation(name, "must not hold the same text twice")
    for i, text in enumerate(p.source):
        if not text:
            yield FieldViolation(f"{name}[{i}]", "must not be empty")


def _output(p: OutputParams, limits: Limits) -> Iterator[FieldViolation]:
    most = limits.max_top_logprobs
    requested = p.logprobs or p.prompt_logprobs
    checks = {
        "top_logprobs": (
            p.top_logprobs <= most if requested else p.top_logprobs == 0,
            f"must be at most {most}" if requested else "needs logprobs or prompt_logprobs",
        )
    }
    yield from _violations("options.output", checks)


def _priority(priority: int) -> Iterator[FieldViolation]:
    # The range is bounded so that aging can make up for any difference.
    checks = {
        "priority": (
            -MAX_PRIORITY <= priority <= MAX_PRIORITY,
            f"must be in [{-MAX_PRIORITY}, {MAX_PRIORITY}]",
        )
    }
    yield from _violations("options", checks)


def at_most(name: str, count: int, limit: int, unit: str = "entries") -> Iterator[FieldViolation]:
    """Yield a violation if a field has more than `limit` entries."""
    if count > limit:
        yield FieldViolation(name, f"has {count} {unit}, must have at most {limit}")


def _sized(name: str, text: str, limit: int) -> Iterator[FieldViolation]:
    if not text:
        yield FieldViolation(name, "must not be empty")
    yield from at_most(name, len(text.encode()), limit, "bytes")


def _violations(message: str, checks: dict[str, tuple[bool, str]]) -> Iterator[FieldViolation]:
    for name, (holds, description) in checks.items():
        if not holds:
            yield FieldViolation(f"{message}.{name}", description)
