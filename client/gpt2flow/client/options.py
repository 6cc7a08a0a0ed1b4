"""What a caller may ask for. The server checks the values and names each bad one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpt2flow.inference.v1 import inference_pb2 as pb

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """Random sampling; temperature 0 is greedy. None leaves the server's default."""

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
    """Beam search with the semantics of transformers' generation."""

    num_beams: int
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int | None = None
    no_repeat_ngram_size: int = 0
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class JsonSchema:
    """The output is JSON of this schema, given as JSON text."""

    schema: str


@dataclass(frozen=True)
class Regex:
    """The whole output matches this regular expression."""

    pattern: str


@dataclass(frozen=True)
class Choices:
    """The output is one of these strings."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Lark:
    """The output is of this grammar, in llguidance's dialect of Lark."""

    grammar: str


@dataclass(frozen=True)
class Options:
    """How to generate; the fields are those of the protocol's GenerationOptions.

    A `priority` is from -100 to 100; a higher one is admitted first, and makes
    running requests of a lower one wait when there is no room for both.
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
        """The protocol's message for these options."""
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
            constraint=_constraint(self.constraint),
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
            message.beam_search.CopyFrom(_beam_search(self.decoding))
        else:
            message.sampling.CopyFrom(_sampling(self.decoding))
        return message


def prompt_message(prompt: Prompt) -> pb.Prompt:
    """The protocol's message for text or token ids."""
    if isinstance(prompt, str):
        return pb.Prompt(text=prompt)
    return pb.Prompt(tokens=pb.TokenIds(ids=prompt))


def _sampling(sampling: Sampling) -> pb.SamplingParams:
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


def _beam_search(beams: BeamSearch) -> pb.BeamSearchParams:
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


def _constraint(
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
