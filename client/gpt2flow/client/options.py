"""Options of a generation request.

Values that the protocol cannot carry are refused here (`SettingsError`). The server validates
ranges and limits, and reports every violation (`InvalidRequestError`).
"""

from dataclasses import dataclass
from typing import Any, Literal

from gpt2flow.client import validation
from gpt2flow.client.constraints import (
    Choices,
    Constraint,
    JsonSchema,
    Lark,
    Regex,
    StoredChoices,
    build_constraint,
)
from gpt2flow.inference.v1 import inference_pb2 as pb

_EARLY_STOPPING: dict[bool | str, pb.EarlyStopping] = {
    False: pb.EARLY_STOPPING_HEURISTIC,
    True: pb.EARLY_STOPPING_FIRST,
    "never": pb.EARLY_STOPPING_NEVER,
}


def _checked_biases(given: object) -> tuple[tuple[int, float], ...]:
    """Return pairs of token id and bias.

    Raises:
        SettingsError: They are no such pairs.
    """
    rule = "pairs of a token id and a number, such as ((464, -100.0),)"
    biases = []
    for i, item in enumerate(validation.sequence("logit_bias", given, rule)):
        name = f"logit_bias[{i}]"
        pair = validation.sequence(name, item, "a token id and a number")
        if len(pair) != 2:
            raise validation.invalid(name, item, "a token id and a number")
        token_id = validation.integer(f"{name}.token_id", pair[0], validation.UINT32)
        biases.append((token_id, validation.float32(f"{name}.bias", pair[1])))
    return tuple(biases)


@dataclass(frozen=True)
class Sampling:
    """Random sampling, or greedy decoding at temperature 0.

    The logits processors apply in the order of transformers' `generate`. None selects the
    server's default.

    Attributes:
        temperature: Divisor of the logits, from 0 (greedy) to 100. Server default: 1.
        top_k: Number of likeliest tokens to keep; 0 keeps all.
        top_p: Probability mass of the smallest set of likeliest tokens to keep, in (0, 1].
            Server default: 1.
        min_p: Minimum probability of a token, relative to the likeliest one, in [0, 1).
        typical_p: Probability mass of the locally typical set to keep, in (0, 1].
            Server default: 1.
        repetition_penalty: Penalty on tokens that have already occurred, above 0. It divides
            positive logits and multiplies negative ones. Server default: 1.
        presence_penalty: Value subtracted once from the logit of each generated token,
            in [-2, 2].
        frequency_penalty: Value subtracted from the logit of each generated token, once per
            occurrence, in [-2, 2].
        no_repeat_ngram_size: Length of the n-grams that may not repeat; 0 allows repetition.
        logit_bias: Pairs of a token id and the value added to its logit, in [-100, 100].
        bad_words: Texts whose token sequences are never generated.
        seed: Seed of the random numbers. None lets the server draw one; `Generation.seed`
            returns it in either case.
        n: Number of candidates per prompt. Server default: 1.

    Raises:
        SettingsError: A value does not fit the protocol.
    """

    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    min_p: float = 0.0
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if a value does not fit the protocol."""
        validation.check_fields(self, pb.SamplingParams)
        object.__setattr__(self, "logit_bias", _checked_biases(self.logit_bias))


@dataclass(frozen=True)
class BeamSearch:
    """Beam search with the semantics of transformers' `generate`.

    None selects the server's default.

    Attributes:
        num_beams: Number of hypotheses kept at each step, at least 1.
        length_penalty: Exponent of the length by which a hypothesis's log-likelihood is
            divided to rank it. Server default: 1.
        early_stopping: Condition that ends the search. True: `num_beams` hypotheses are
            finished. False: in addition, the best running one is unlikely to beat the worst
            of them. `"never"`: no running hypothesis can still win.
        num_return_sequences: Number of hypotheses returned, best first, at most `num_beams`.
            Server default: 1.
        no_repeat_ngram_size: Length of the n-grams that may not repeat in a hypothesis;
            0 allows repetition.
        repetition_penalty: Penalty on tokens that have already occurred; see `Sampling`.
            Server default: 1.
        logit_bias: Pairs of a token id and the value added to its score, in [-100, 100].
        bad_words: Texts whose token sequences are never generated.

    Raises:
        SettingsError: A value does not fit the protocol.
    """

    num_beams: int
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int | None = None
    no_repeat_ngram_size: int = 0
    repetition_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise SettingsError if a value does not fit the protocol."""
        validation.check_fields(self, pb.BeamSearchParams)
        object.__setattr__(self, "logit_bias", _checked_biases(self.logit_bias))
        early: object = self.early_stopping
        if not (isinstance(early, bool) or (isinstance(early, str) and early == "never")):
            raise validation.invalid("early_stopping", early, 'True, False or "never"')


@dataclass(frozen=True)
class Options:
    """Generation options of one request, as in the protocol's GenerationOptions.

    Attributes:
        decoding: Sampling (the default) or beam search, with its parameters.
        max_new_tokens: Maximum number of tokens per candidate. None: the rest of the context,
            at most the server's default (`ModelLimits.default_max_new_tokens`). 0 generates
            nothing, for the log-probabilities of the prompt alone (`prompt_logprobs`).
        min_new_tokens: Number of tokens before which the end-of-text token, stop strings and
            stop token ids have no effect.
        stop_strings: Strings that end a candidate; they are not part of its text.
        stop_token_ids: Token ids that end a candidate; they are not part of its text.
        ignore_eos: True to treat the end-of-text token like any other token.
        time_limit_ms: Time limit from the request's arrival, in milliseconds; 0 sets none.
        return_partial_on_time_limit: True to return the text generated so far when the time
            limit or the deadline passes, with finish reason `time_limit`. False to raise
            `DeadlineExceededError`.
        include_stop_string: True to keep the stop string that ended a candidate in its text.
        constraint: Constraint that every candidate satisfies; None allows any text.
        logprobs: True to return log-probabilities of the generated tokens.
        top_logprobs: Number of likeliest alternatives per position, with `logprobs`.
        prompt_logprobs: True to return log-probabilities of the prompt's tokens.
        echo: True to prepend the prompt to the returned text.
        token_ids: True to return the generated token ids.
        include_special_tokens: True to show generated special tokens in the text, which else
            leaves them out.
        priority: Scheduling priority, from -100 to 100. Requests of a higher priority are
            admitted first. Without room for both, they preempt running ones of a lower
            priority. Ten seconds of waiting raise the priority by 1.
        truncate_prompt: True to leave out the first tokens of a prompt that does not fit the
            context with `max_new_tokens`. Without `max_new_tokens`, room stays for the server's
            default, at most half of the context. `Usage.truncated_tokens` counts what went.

    Raises:
        SettingsError: A value does not fit the protocol.
    """

    decoding: Sampling | BeamSearch = Sampling()
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    time_limit_ms: int = 0
    return_partial_on_time_limit: bool = False
    constraint: Constraint | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    echo: bool = False
    token_ids: bool = False
    priority: int = 0
    truncate_prompt: bool = False
    include_stop_string: bool = False
    include_special_tokens: bool = False

    def __post_init__(self) -> None:
        """Raise SettingsError if a value does not fit the protocol."""
        decodings = (Sampling, BeamSearch)
        constraints = (JsonSchema, Regex, Choices, Lark, StoredChoices)
        validation.check_type("decoding", self.decoding, decodings, "Sampling or BeamSearch")
        if self.constraint is not None:
            rule = "JsonSchema, Regex, Choices, Lark, StoredChoices or None"
            validation.check_type("constraint", self.constraint, constraints, rule)
        validation.check_fields(self, pb.StoppingCriteria, pb.OutputOptions, pb.GenerationOptions)

    def message(self) -> pb.GenerationOptions:
        """Return the options as a protocol message."""
        decoding: dict[str, Any]
        if isinstance(self.decoding, BeamSearch):
            decoding = {"beam_search": _build_beam_search(self.decoding)}
        else:
            decoding = {"sampling": _build_sampling(self.decoding)}
        return validation.fill(
            pb.GenerationOptions,
            self,
            stopping=validation.fill(pb.StoppingCriteria, self),
            constraint=build_constraint(self.constraint),
            output=validation.fill(pb.OutputOptions, self),
            **decoding,
        )


def _build_sampling(sampling: Sampling) -> pb.SamplingParams:
    return validation.fill(
        pb.SamplingParams, sampling, logit_bias=_build_biases(sampling.logit_bias)
    )


def _build_beam_search(beams: BeamSearch) -> pb.BeamSearchParams:
    return validation.fill(
        pb.BeamSearchParams,
        beams,
        early_stopping=_EARLY_STOPPING[beams.early_stopping],
        logit_bias=_build_biases(beams.logit_bias),
    )


def _build_biases(biases: tuple[tuple[int, float], ...]) -> list[pb.LogitBias]:
    return [pb.LogitBias(token_id=token_id, bias=bias) for token_id, bias in biases]
