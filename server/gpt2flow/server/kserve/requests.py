"""Requests as domain types, and their fields' names in errors."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.errors import (
    FieldViolation,
    InvalidRequestError,
    PermissionDeniedError,
    Violations,
)
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.kserve.fields import (
    INPUT_IDS,
    INPUT_LENGTHS,
    INPUTS,
    SCORED_OUTPUTS,
    TEXT_INPUT,
    TIMEOUT,
    USUAL_OUTPUTS,
)
from gpt2flow.server.kserve.values import Given, read_values
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    EarlyStopping,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
    at_most,
)

# Path of an option in the errors of the domain.
_OPTION: Final = re.compile(r"options\.(\w+(?:\.\w+)?)((?:\.values)?)")
_Values = Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """Request to generate.

    Attributes:
        id: The client's id of it.
        prompts: Its prompts, at least one.
        params: Options of all of them.
        outputs: Names of the outputs to return.
        raw: Whether the contents of tensors are raw.
        stream: Whether to stream; None if the request does not say.
        given: Values of the request, by the path of their meaning.
    """

    id: str
    prompts: list[Prompt]
    params: GenerationParams
    outputs: frozenset[str]
    raw: bool
    stream: bool | None
    given: _Values

    @property
    def beams(self) -> bool:
        """True for beam search, whose text is complete only at the end."""
        return isinstance(self.params.decoding, BeamSearchParams)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Name tensors and parameters in the errors of a block."""
        try:
            yield
        except InvalidRequestError as error:
            raise InvalidRequestError(self._named(error.violations)) from error
        except PermissionDeniedError as error:
            found = self._named(error.violations)
            text = "; ".join(f"{each.field} {each.description}" for each in found)
            raise PermissionDeniedError(text or str(error), found) from error

    def _named(self, violations: tuple[FieldViolation, ...]) -> list[FieldViolation]:
        return [
            FieldViolation(
                _OPTION.sub(self._name, each.field).removesuffix(".tokens.ids"),
                _OPTION.sub(self._name, each.description),
            )
            for each in violations
        ]

    def _name(self, match: re.Match[str]) -> str:
        """Return the name of an option in the request."""
        group, _, option = match[1].partition(".")
        for path in (match[1], f"decoding.{option}", group):
            if path in self.given:
                return self.given[path].where
            for field in INPUTS.values():
                if field.path == path:
                    return f"inputs.{field.name}"
        return match[0]


def read_request(message: pb.ModelInferRequest, limits: Limits) -> InferRequest:
    """Return a request; ranges of options are not validated.

    Raises:
        InvalidRequestError: Fields are bad; it names all of them.
    """
    given = read_values(message, limits.requests)
    violations = Violations()
    prompts: list[Prompt] = []
    with violations:
        prompts = _prompts(given, limits)
    outputs = frozenset(output.name for output in message.outputs) or frozenset(
        {"output_ids" if INPUT_IDS.name in given else "text_output", *USUAL_OUTPUTS}
    )
    params = _params(given, outputs, violations)
    violations.raise_if_any()
    if not message.outputs and _candidates(params) > 1:
        outputs |= {"sequence_index"}
    return InferRequest(
        message.id,
        prompts,
        params,
        outputs,
        bool(message.raw_input_contents),
        _value(given, "stream", None),
        given,
    )


def _value(given: _Values, path: str, default: Any) -> Any:
    return given[path].value if path in given else default


def _group(given: _Values, *groups: str) -> dict[str, Any]:
    """Return the values of some messages of options, by name."""
    parts = [(path.partition("."), each.value) for path, each in given.items()]
    return {name: value for (group, _, name), value in parts if group in groups and name}


def _candidates(params: GenerationParams) -> int:
    decoding = params.decoding
    if isinstance(decoding, BeamSearchParams):
        return decoding.num_return_sequences
    return decoding.n


def _prompts(given: _Values, limits: Limits) -> list[Prompt]:
    text, ids = given.get(TEXT_INPUT.name), given.get(INPUT_IDS.name)
    if (text is None) == (ids is None):
        raise InvalidRequestError.of(
            f"inputs.{TEXT_INPUT.name}",
            f"is missing; a request has {TEXT_INPUT.name} or {INPUT_IDS.name}"
            if text is None
            else f"excludes {INPUT_IDS.name}",
        )
    contents = _rows(given, ids, limits) if ids else text.value if text else []
    where = ids.where if ids else f"inputs.{TEXT_INPUT.name}"
    if not contents:
        raise InvalidRequestError.of(where, "has no elements, must have at least one")
    literal = _value(given, "literal", default=False)
    return [Prompt(f"{where}[{i}]", each, literal) for i, each in enumerate(contents)]


def _rows(given: _Values, ids: Given, limits: Limits) -> list[list[int]]:
    """Return the token ids of each prompt."""
    count = ids.shape[0] if len(ids.shape) == 2 else 1
    if found := list(at_most(ids.where, count, limits.requests.prompts, "rows")):
        raise InvalidRequestError(found)
    width = ids.shape[-1]
    if not width:
        return []
    rows = [ids.value[start : start + width] for start in range(0, len(ids.value), width)]
    lengths = given.get(INPUT_LENGTHS.name)
    if lengths is None:
        return rows
    if len(lengths.value) != count:
        raise InvalidRequestError.of(
            lengths.where, f"has {len(lengths.value)} elements, must have {count}: one a row"
        )
    for i, length in enumerate(lengths.value):
        if not 1 <= length <= width:
            raise InvalidRequestError.of(
                f"{lengths.where}[{i}]", f"is {length}, must be in [1, {width}]"
            )
    return [row[:length] for row, length in zip(rows, lengths.value, strict=True)]


def _params(given: _Values, outputs: frozenset[str], violations: Violations) -> GenerationParams:
    stopping = _group(given, "stopping")
    if microseconds := _value(given, TIMEOUT.path, 0):
        stopping["time_limit_seconds"] = microseconds / 1e6
    if "stop_strings" in stopping:
        stopping["stop_strings"] = tuple(stopping["stop_strings"])
    return GenerationParams(
        decoding=_decoding(given, violations),
        stopping=StoppingParams(**stopping),
        constraint=_constraint(given, violations),
        output=OutputParams(
            logprobs=not outputs.isdisjoint(SCORED_OUTPUTS),
            token_ids="output_ids" in outputs,
            **_group(given, "output"),
        ),
        truncate_prompt=_value(given, "truncate_prompt", default=False),
    )


def _decoding(given: _Values, violations: Violations) -> SamplingParams | BeamSearchParams:
    beams = _value(given, "beam_search.num_beams", 1) > 1
    unfit = "sampling" if beams else "beam_search"
    neutral = SamplingParams() if beams else BeamSearchParams(num_beams=1)
    rule = "is for sampling, not for beam search" if beams else "needs beam_width of at least 2"
    for path, each in given.items():
        group, _, name = path.partition(".")
        if group == unfit:
            # Clients send whole sets of options, so that neutral values must do.
            default = getattr(neutral, name)
            if each.value != (default.value if isinstance(default, EarlyStopping) else default):
                violations.add(each.where, rule)
    shared = _group(given, "decoding")
    if "bad_words" in shared:
        shared["bad_words"] = tuple(shared["bad_words"])
    if not beams:
        return SamplingParams(**_group(given, "sampling"), **shared)
    options = _group(given, "beam_search")
    first = options.pop("early_stopping", False)
    early = EarlyStopping.FIRST if first else EarlyStopping.HEURISTIC
    return BeamSearchParams(**options, **shared, early_stopping=early)


def _constraint(given: _Values, violations: Violations) -> ConstraintParams | None:
    found = [each for path, each in given.items() if path.startswith("constraint.")]
    for other in found[1:]:
        violations.add(other.where, f"excludes {found[0].where}: a request has one constraint")
    if not found:
        return None
    value = found[0].value
    source = tuple(value) if isinstance(value, list) else (value,)
    return ConstraintParams(ConstraintKind(found[0].field.name), source)
