"""Inputs, parameters and outputs of a request: names, datatypes, shapes, meanings."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from gpt2flow.server.params import ConstraintKind

_UINT32: Final = 2**32 - 1


class Kind(Enum):
    """Type of a value; its own values are datatypes of tensors."""

    INTEGER = ("INT32", "INT64", "UINT32", "UINT64")
    LARGE_INTEGER = ("UINT64", "INT64", "UINT32", "INT32")
    NUMBER = ("FP32", "FP64")
    TRUTH = ("BOOL",)
    TEXT = ("BYTES",)


class Form(Enum):
    """Shape of an input as metadata shows it, -1 for any size."""

    ONE = (1,)
    LIST = (-1,)
    ROWS = (-1, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """Input of a request; most can be given as a parameter, too.

    Attributes:
        name: Name of the tensor and of the parameter.
        kind: Type of its elements.
        path: Path of its meaning in the options of generation; empty for prompts.
        form: Shape.
        low: Least value of an integer.
        high: Greatest value of an integer.
        inverted: Whether the option means the opposite.
        most: Limit of `RequestLimits` on the elements of a list.
    """

    name: str
    kind: Kind
    path: str = ""
    form: Form = Form.ONE
    low: int = 0
    high: int = _UINT32
    inverted: bool = False
    most: str = ""


TEXT_INPUT: Final = InputField(name="text_input", kind=Kind.TEXT, form=Form.LIST, most="prompts")
INPUT_IDS: Final = InputField(name="input_ids", kind=Kind.INTEGER, form=Form.ROWS)
INPUT_LENGTHS: Final = InputField(
    name="input_lengths", kind=Kind.INTEGER, form=Form.LIST, most="prompts"
)
JSON_OPTIONS: Final = InputField(name="sampling_parameters", kind=Kind.TEXT)
PROMPTS: Final = (TEXT_INPUT, INPUT_IDS, INPUT_LENGTHS)


def _field(
    name: str,
    kind: Kind,
    path: str,
    *,
    low: int = 0,
    high: int = _UINT32,
    inverted: bool = False,
) -> InputField:
    return InputField(name=name, kind=kind, path=path, low=low, high=high, inverted=inverted)


def _list(name: str, path: str, most: str) -> InputField:
    return InputField(name=name, kind=Kind.TEXT, path=path, form=Form.LIST, most=most)


_OPTIONS: Final = (
    _field("max_tokens", Kind.INTEGER, "stopping.max_new_tokens", low=1),
    _field("min_tokens", Kind.INTEGER, "stopping.min_new_tokens"),
    _list("stop", "stopping.stop_strings", "stop_strings"),
    _list("stop_words", "stopping.stop_strings", "stop_strings"),
    _field("include_stop_str_in_output", Kind.TRUTH, "stopping.include_stop_string"),
    _field("ignore_eos", Kind.TRUTH, "stopping.ignore_eos"),
    _field("temperature", Kind.NUMBER, "sampling.temperature"),
    _field("top_k", Kind.INTEGER, "sampling.top_k"),
    _field("top_p", Kind.NUMBER, "sampling.top_p"),
    _field("min_p", Kind.NUMBER, "sampling.min_p"),
    _field("typical_p", Kind.NUMBER, "sampling.typical_p"),
    _field("presence_penalty", Kind.NUMBER, "sampling.presence_penalty"),
    _field("frequency_penalty", Kind.NUMBER, "sampling.frequency_penalty"),
    _field("seed", Kind.LARGE_INTEGER, "sampling.seed", high=2**64 - 1),
    _field("n", Kind.INTEGER, "sampling.n", low=1),
    _field("repetition_penalty", Kind.NUMBER, "decoding.repetition_penalty"),
    _field("no_repeat_ngram_size", Kind.INTEGER, "decoding.no_repeat_ngram_size"),
    _list("bad_words", "decoding.bad_words", "bad_words"),
    _field("beam_width", Kind.INTEGER, "beam_search.num_beams", low=1),
    _field("length_penalty", Kind.NUMBER, "beam_search.length_penalty"),
    _field("early_stopping", Kind.TRUTH, "beam_search.early_stopping"),
    _field("num_return_sequences", Kind.INTEGER, "beam_search.num_return_sequences", low=1),
    _field("exclude_input_in_output", Kind.TRUTH, "output.echo", inverted=True),
    _field("skip_special_tokens", Kind.TRUTH, "output.include_special_tokens", inverted=True),
    _field("literal", Kind.TRUTH, "literal"),
    _field("truncate_prompt", Kind.TRUTH, "truncate_prompt"),
    _field("stream", Kind.TRUTH, "stream"),
)
_CONSTRAINTS: Final = tuple(
    _list(kind.value, f"constraint.{kind.value}", "choices")
    if kind is ConstraintKind.CHOICES
    else _field(kind.value, Kind.TEXT, f"constraint.{kind.value}")
    for kind in ConstraintKind
)
INPUTS: Final = {field.name: field for field in (*PROMPTS, *_OPTIONS, *_CONSTRAINTS, JSON_OPTIONS)}
# Parameters of the protocol, which are no tensors. The time is in microseconds; every last
# response of a stream has content, so that nothing follows from the other.
TIMEOUT: Final = _field("timeout", Kind.LARGE_INTEGER, "timeout", high=2**63 - 1)
_FINAL: Final = _field("triton_enable_empty_final_response", Kind.TRUTH, "ignored")
PARAMETERS: Final = {
    field.name: field for field in (*_OPTIONS, *_CONSTRAINTS, JSON_OPTIONS, TIMEOUT, _FINAL)
}


@dataclass(frozen=True, slots=True)
class OutputField:
    """Output of a response, with a row for each candidate.

    Attributes:
        name: Name of the tensor.
        datatype: Datatype of its elements.
        per_token: Whether it has a second dimension, that of tokens.
        streamed: Whether each response of a stream has it; others are in the last one.
    """

    name: str
    datatype: str
    per_token: bool = False
    streamed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as metadata shows it."""
        return (-1, -1) if self.per_token else (-1,)


OUTPUTS: Final = {
    field.name: field
    for field in (
        OutputField("text_output", "BYTES", streamed=True),
        OutputField("output_ids", "INT32", per_token=True, streamed=True),
        OutputField("output_log_probs", "FP32", per_token=True, streamed=True),
        OutputField("sequence_index", "INT32", streamed=True),
        OutputField("finish_reason", "BYTES"),
        OutputField("num_input_tokens", "INT32"),
        OutputField("num_cached_tokens", "INT32"),
        OutputField("num_output_tokens", "INT32"),
        OutputField("cumulative_logprob", "FP32"),
        OutputField("beam_score", "FP32"),
    )
}
# Outputs of a request that names none, beside text or token ids.
USUAL_OUTPUTS: Final = ("finish_reason", "num_input_tokens", "num_output_tokens")
# Outputs that need the log-probabilities of tokens.
SCORED_OUTPUTS: Final = frozenset({"output_log_probs", "cumulative_logprob"})
