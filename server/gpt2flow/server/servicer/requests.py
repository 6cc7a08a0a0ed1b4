"""Conversion of request messages to domain types."""

from collections.abc import Iterable

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    EarlyStopping,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)

_EARLY_STOPPING = {
    pb.EARLY_STOPPING_UNSPECIFIED: EarlyStopping.HEURISTIC,
    pb.EARLY_STOPPING_HEURISTIC: EarlyStopping.HEURISTIC,
    pb.EARLY_STOPPING_FIRST: EarlyStopping.FIRST,
    pb.EARLY_STOPPING_NEVER: EarlyStopping.NEVER,
}


def read_prompt(field: str, message: pb.Prompt) -> Prompt:
    """Return a prompt, which may be empty; its content is not validated."""
    kind = message.WhichOneof("input")
    given = None if kind is None else message.tokens.ids if kind == "tokens" else message.text
    add = message.add_special_tokens if message.HasField("add_special_tokens") else None
    return Prompt(field, given, message.literal, add)


def read_prompts(field: str, messages: Iterable[pb.Prompt]) -> list[Prompt]:
    """Return the prompts of a repeated field."""
    return [read_prompt(f"{field}[{i}]", each) for i, each in enumerate(messages)]


def read_options(message: pb.GenerationOptions) -> GenerationParams:
    """Return the options of generation; ranges are not validated."""
    decoding = (
        _beam_search(message.beam_search)
        if message.WhichOneof("decoding") == "beam_search"
        else _sampling(message.sampling)
    )
    return GenerationParams(
        decoding=decoding,
        stopping=_stopping(message.stopping),
        constraint=_constraint(message.constraint),
        output=OutputParams(
            logprobs=message.output.logprobs,
            top_logprobs=message.output.top_logprobs,
            prompt_logprobs=message.output.prompt_logprobs,
            echo=message.output.echo,
            token_ids=message.output.token_ids,
            include_special_tokens=message.output.include_special_tokens,
        ),
        priority=message.priority,
        truncate_prompt=message.truncate_prompt,
    )


def _sampling(message: pb.SamplingParams) -> SamplingParams:
    default = SamplingParams()
    return SamplingParams(
        temperature=message.temperature if message.HasField("temperature") else default.temperature,
        top_k=message.top_k,
        top_p=message.top_p if message.HasField("top_p") else default.top_p,
        min_p=message.min_p,
        typical_p=message.typical_p if message.HasField("typical_p") else default.typical_p,
        repetition_penalty=(
            message.repetition_penalty
            if message.HasField("repetition_penalty")
            else default.repetition_penalty
        ),
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        no_repeat_ngram_size=message.no_repeat_ngram_size,
        logit_bias=_biases(message.logit_bias),
        bad_words=tuple(message.bad_words),
        seed=message.seed if message.HasField("seed") else None,
        n=message.n if message.HasField("n") else default.n,
    )


def _beam_search(message: pb.BeamSearchParams) -> BeamSearchParams:
    default = BeamSearchParams(num_beams=1)
    return BeamSearchParams(
        num_beams=message.num_beams,
        length_penalty=(
            message.length_penalty if message.HasField("length_penalty") else default.length_penalty
        ),
        early_stopping=_EARLY_STOPPING.get(message.early_stopping, message.early_stopping),
        num_return_sequences=(
            message.num_return_sequences
            if message.HasField("num_return_sequences")
            else default.num_return_sequences
        ),
        no_repeat_ngram_size=message.no_repeat_ngram_size,
        repetition_penalty=(
            message.repetition_penalty
            if message.HasField("repetition_penalty")
            else default.repetition_penalty
        ),
        logit_bias=_biases(message.logit_bias),
        bad_words=tuple(message.bad_words),
    )


def _biases(entries: Iterable[pb.LogitBias]) -> tuple[tuple[int, float], ...]:
    return tuple((entry.token_id, entry.bias) for entry in entries)


def _stopping(message: pb.StoppingCriteria) -> StoppingParams:
    return StoppingParams(
        max_new_tokens=message.max_new_tokens if message.HasField("max_new_tokens") else None,
        min_new_tokens=message.min_new_tokens,
        stop_strings=tuple(message.stop_strings),
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        time_limit_seconds=message.time_limit_ms / 1000 if message.time_limit_ms else None,
        return_partial_on_time_limit=message.return_partial_on_time_limit,
        include_stop_string=message.include_stop_string,
    )


def _constraint(message: pb.Constraint) -> ConstraintParams | None:
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "choices":
        return ConstraintParams(ConstraintKind.CHOICES, tuple(message.choices.values))
    return ConstraintParams(ConstraintKind(kind), (getattr(message, kind),))
