"""Options of a generation request.

The server validates the values and reports every invalid one (`InvalidRequestError`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpt2flow.inference.v1 import inference_pb2 as pb

# Text, in which special tokens are recognized, or token ids, which are used unchanged.
Prompt = str | Sequence[int]


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
    """

    num_beams: int
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int | None = None
    no_repeat_ngram_size: int = 0
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class JsonSchema:
    """Constraint of the output to JSON that matches a schema.

    Attributes:
        schema: The JSON schema, as JSON text.
    """

    schema: str


@dataclass(frozen=True)
class Regex:
    """Constraint of the output to a regular expression.

    Attributes:
        pattern: Regular expression that the whole output matches.
    """

    pattern: str


@dataclass(frozen=True)
class Choices:
    """Constraint of the output to one of several strings.

    Attributes:
        values: The strings: at least one, none empty, no two equal.
    """

    values: tuple[str, ...]


@dataclass(frozen=True)
class Lark:
    """Constraint of the output to a context-free grammar.

    Attributes:
        grammar: Grammar in llguidance's dialect of Lark; its start rule is `start`.
    """

    grammar: str


@dataclass(frozen=True)
class Options:
    """Generation options of one request, as in the protocol's GenerationOptions.

    Attributes:
        decoding: Sampling (the default) or beam search, with its parameters.
        max_new_tokens: Maximum number of tokens per candidate. None: the rest of the context,
            at most the server's default (`ModelLimits.default_max_new_tokens`).
        min_new_tokens: Number of tokens before which the end-of-text token, stop strings and
            stop token ids have no effect.
        stop_strings: Strings that end a candidate; they are not part of its text.
        stop_token_ids: Token ids that end a candidate; they are not part of its text.
        ignore_eos: True to treat the end-of-text token like any other token.
        time_limit_ms: Time limit from the request's arrival, in milliseconds; 0 sets none.
        return_partial_on_time_limit: True to return the text generated so far when the time
            limit or the deadline passes, with finish reason `time_limit`. False to raise
            `DeadlineExceededError`.
        constraint: Constraint that every candidate satisfies; None allows any text.
        logprobs: True to return log-probabilities of the generated tokens.
        top_logprobs: Number of likeliest alternatives per position, with `logprobs`.
        prompt_logprobs: True to return log-probabilities of the prompt's tokens.
        echo: True to prepend the prompt to the returned text.
        token_ids: True to return the generated token ids.
        priority: Scheduling priority, from -100 to 100. Requests of a higher priority are
            admitted first. Without room for both, they preempt running ones of a lower
            priority. Ten seconds of waiting raise the priority by 1.
    """

    decoding: Sampling | BeamSearch = Sampling()
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    time_limit_ms: int = 0
    return_partial_on_time_limit: bool = False
    constraint: JsonSchema | Regex | Choices | Lark | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    echo: bool = False
    token_ids: bool = False
    priority: int = 0

    def message(self) -> pb.GenerationOptions:
        """Return the options as a protocol message."""
        message = pb.GenerationOptions(
            stopping=pb.StoppingCriteria(
                max_new_tokens=self.max_new_tokens,
                min_new_tokens=self.min_new_tokens,
                stop_strings=self.stop_strings,
                stop_token_ids=self.stop_token_ids,
                ignore_eos=self.ignore_eos,
                time_limit_ms=self.time_limit_ms,
                return_partial_on_time_limit=self.return_partial_on_time_limit,
            ),
            constraint=_build_constraint(self.constraint),
            output=pb.OutputOptions(
                logprobs=self.logprobs,
                top_logprobs=self.top_logprobs,
                prompt_logprobs=self.prompt_logprobs,
                echo=self.echo,
                token_ids=self.token_ids,
            ),
            priority=self.priority,
        )
        if isinstance(self.decoding, BeamSearch):
            message.beam_search.CopyFrom(_build_beam_search(self.decoding))
        else:
            message.sampling.CopyFrom(_build_sampling(self.decoding))
        return message


def build_prompt(prompt: Prompt) -> pb.Prompt:
    """Return a prompt as a protocol message."""
    if isinstance(prompt, str):
        return pb.Prompt(text=prompt)
    return pb.Prompt(tokens=pb.TokenIds(ids=prompt))


def _build_sampling(sampling: Sampling) -> pb.SamplingParams:
    return pb.SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        typical_p=sampling.typical_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        no_repeat_ngram_size=sampling.no_repeat_ngram_size,
        logit_bias=[pb.LogitBias(token_id=i, bias=b) for i, b in sampling.logit_bias],
        bad_words=sampling.bad_words,
        seed=sampling.seed,
        n=sampling.n,
    )


def _build_beam_search(beams: BeamSearch) -> pb.BeamSearchParams:
    early_stopping = {
        False: pb.EARLY_STOPPING_HEURISTIC,
        True: pb.EARLY_STOPPING_FIRST,
        "never": pb.EARLY_STOPPING_NEVER,
    }[beams.early_stopping]
    return pb.BeamSearchParams(
        num_beams=beams.num_beams,
        length_penalty=beams.length_penalty,
        early_stopping=early_stopping,
        num_return_sequences=beams.num_return_sequences,
        no_repeat_ngram_size=beams.no_repeat_ngram_size,
        repetition_penalty=beams.repetition_penalty,
    )


def _build_constraint(
    constraint: JsonSchema | Regex | Choices | Lark | None,
) -> pb.Constraint | None:
    match constraint:
        case None:
            return None
        case JsonSchema(schema):
            return pb.Constraint(json_schema=schema)
        case Regex(pattern):
            return pb.Constraint(regex=pattern)
        case Choices(values):
            return pb.Constraint(choices=pb.Choices(values=values))
        case Lark(grammar):
            return pb.Constraint(lark=grammar)
