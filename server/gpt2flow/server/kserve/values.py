"""Values that a request gives, as tensors, as parameters or as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.config.settings import RequestLimits
from gpt2flow.server.errors import InvalidRequestError, Violations
from gpt2flow.server.kserve.fields import (
    INPUTS,
    JSON_OPTIONS,
    OUTPUTS,
    PARAMETERS,
    Form,
    InputField,
    Kind,
)
from gpt2flow.server.kserve.tensors import InputTensor, element_count, read_elements
from gpt2flow.server.params import at_most

# Kinds of a parameter that may carry a value.
_CHOICES: Final = {
    Kind.INTEGER: ("int64_param", "uint64_param"),
    Kind.LARGE_INTEGER: ("uint64_param", "int64_param"),
    Kind.NUMBER: ("double_param", "int64_param", "uint64_param"),
    Kind.TRUTH: ("bool_param",),
    Kind.TEXT: ("string_param",),
}
# Types of a value in JSON; some clients write numbers as strings.
_JSON_TYPES: Final = {
    Kind.INTEGER: (int, str),
    Kind.LARGE_INTEGER: (int, str),
    Kind.NUMBER: (int, float, str),
    Kind.TRUTH: (bool,),
    Kind.TEXT: (str,),
}
_MAX_JSON_BYTES: Final = 64 * 2**10
# A name of any length may be unknown.
_SHOWN: Final = 64


@dataclass(frozen=True, slots=True)
class Given:
    """Value of a request.

    Attributes:
        field: The field.
        where: Place of the value in the request, for errors.
        value: The value; a list for fields that are lists.
        shape: Shape of the tensor.
    """

    field: InputField
    where: str
    value: Any
    shape: tuple[int, ...] = ()


def read_values(message: pb.ModelInferRequest, limits: RequestLimits) -> dict[str, Given]:
    """Return the values of a request, by path or else by name.

    Raises:
        InvalidRequestError: Inputs, parameters or outputs are bad; it names all of them.
    """
    violations = Violations()
    for name, count, known in (
        ("inputs", len(message.inputs), INPUTS),
        ("parameters", len(message.parameters), PARAMETERS),
        ("outputs", len(message.outputs), OUTPUTS),
    ):
        violations.extend(at_most(name, count, len(known)))
    _check_raw(message, violations)
    violations.raise_if_any()
    _check_outputs(message, violations)
    found: dict[str, Given] = {}
    for given in _values(message, limits, violations):
        key = given.field.path or given.field.name
        if key in found:
            violations.add(given.where, f"is given as {found[key].where} already")
        found.setdefault(key, given)
    violations.raise_if_any()
    return found


def _values(
    message: pb.ModelInferRequest, limits: RequestLimits, violations: Violations
) -> Iterator[Given]:
    raw: Sequence[bytes | None] = message.raw_input_contents or [None] * len(message.inputs)
    for index, (tensor, contents) in enumerate(zip(message.inputs, raw, strict=True)):
        with violations:
            given = _tensor(index, tensor, contents, limits)
            yield from _options(given) if given.field is JSON_OPTIONS else [given]
    for name, parameter in message.parameters.items():
        with violations:
            given = _parameter(name, parameter)
            yield from _options(given) if given.field is JSON_OPTIONS else [given]


def _check_raw(message: pb.ModelInferRequest, violations: Violations) -> None:
    raw, inputs = len(message.raw_input_contents), len(message.inputs)
    if not raw:
        return
    if raw != inputs:
        violations.add("raw_input_contents", f"has {raw} entries, must have {inputs}: one an input")
    if any(each.HasField("contents") for each in message.inputs):
        violations.add("raw_input_contents", "excludes contents in inputs")


def _check_outputs(message: pb.ModelInferRequest, violations: Violations) -> None:
    for index, output in enumerate(message.outputs):
        if output.name not in OUTPUTS:
            violations.add(
                f"outputs[{index}]",
                f"is named {output.name[:_SHOWN]!r}, must be one of {', '.join(OUTPUTS)}",
            )
        _check_no_parameters(f"outputs[{index}]", output.parameters, violations)


def _check_no_parameters(where: str, parameters: Any, violations: Violations) -> None:
    for name in list(parameters)[:1]:
        violations.add(
            f"{where}.parameters",
            f"has {name[:_SHOWN]!r}; parameters of tensors, such as shared memory, are unsupported",
        )


def _tensor(index: int, message: InputTensor, raw: bytes | None, limits: RequestLimits) -> Given:
    field = INPUTS.get(message.name)
    if field is None:
        raise InvalidRequestError.of(
            f"inputs[{index}]",
            f"is named {message.name[:_SHOWN]!r}, must be one of {', '.join(INPUTS)}",
        )
    where = f"inputs.{field.name}"
    violations = Violations()
    _check_no_parameters(where, message.parameters, violations)
    if message.datatype not in field.kind.value:
        violations.add(
            where,
            f"is {message.datatype[:_SHOWN]!r}, must be {' or '.join(field.kind.value)}",
        )
    with violations:
        _check_shape(where, field, message.shape, limits)
    violations.raise_if_any()
    elements = read_elements(where, message, raw)
    shape = tuple(message.shape)
    if field.form is Form.ONE:
        return Given(field, where, _checked(field, where, elements[0]), shape)
    values = [_checked(field, f"{where}[{i}]", each) for i, each in enumerate(elements)]
    return Given(field, where, values, shape)


def _check_shape(
    where: str, field: InputField, shape: Sequence[int], limits: RequestLimits
) -> None:
    """Check the shape of an input, before its elements are read."""
    count = element_count(where, shape)
    shown = f"has shape {list(shape)}"
    if field.form is Form.ONE and count != 1:
        raise InvalidRequestError.of(where, f"{shown}, must have one element: [1] or [1, 1]")
    if field.form is Form.LIST and (count != max(shape, default=0) or len(shape) > 2):
        raise InvalidRequestError.of(where, f"{shown}, must be [n] or [n, 1]")
    if field.form is Form.ROWS and len(shape) not in {1, 2}:
        raise InvalidRequestError.of(where, f"{shown}, must be [tokens] or [prompts, tokens]")
    if field.most and (found := list(at_most(where, count, getattr(limits, field.most)))):
        raise InvalidRequestError(found)


def _parameter(name: str, message: pb.InferParameter) -> Given:
    field = PARAMETERS.get(name)
    if field is None:
        rule = "must be an input tensor" if name in INPUTS else "is no parameter of this server"
        raise InvalidRequestError.of("parameters", f"{name[:_SHOWN]!r} {rule}")
    where, choices = f"parameters.{name}", _CHOICES[field.kind]
    kind = message.WhichOneof("parameter_choice")
    if kind not in choices:
        shown = f"is {kind}" if kind else "has no value"
        raise InvalidRequestError.of(where, f"{shown}, must be {' or '.join(choices)}")
    value = _checked(field, where, getattr(message, kind))
    return Given(field, where, [value] if field.form is Form.LIST else value)


def _options(given: Given) -> Iterator[Given]:
    """Yield the options of a JSON object."""
    size = len(given.value.encode())
    if found := list(at_most(given.where, size, _MAX_JSON_BYTES, "bytes")):
        raise InvalidRequestError(found)
    try:
        options = json.loads(given.value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError.of(given.where, f"is no JSON: {error}") from error
    if not isinstance(options, dict):
        raise InvalidRequestError.of(given.where, "must be a JSON object")
    for name, value in options.items():
        field = PARAMETERS.get(name)
        if field is None or field is JSON_OPTIONS:
            raise InvalidRequestError.of(given.where, f"has the unknown option {name[:_SHOWN]!r}")
        where = f"{given.where}.{name}"
        if field.form is not Form.LIST:
            yield Given(field, where, _from_json(field, where, value))
            continue
        items = value if isinstance(value, list) else [value]
        texts = [_from_json(field, f"{where}[{i}]", each) for i, each in enumerate(items)]
        yield Given(field, where, texts)


def _from_json(field: InputField, where: str, value: Any) -> Any:
    types = _JSON_TYPES[field.kind]
    rule = f"must be {' or '.join(each.__name__ for each in types)}"
    if type(value) not in types:
        raise InvalidRequestError.of(where, f"is {type(value).__name__}, {rule}")
    if isinstance(value, str) and field.kind is not Kind.TEXT:
        try:
            value = float(value) if field.kind is Kind.NUMBER else int(value)
        except ValueError as error:
            raise InvalidRequestError.of(where, f"is {value[:_SHOWN]!r}, no number") from error
    return _checked(field, where, value)


def _checked(field: InputField, where: str, value: Any) -> Any:
    """Return an element as its option takes it.

    Raises:
        InvalidRequestError: It is out of range, or no UTF-8.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError.of(where, f"is not UTF-8 at byte {error.start}") from error
    if field.kind is Kind.NUMBER:
        return _number(where, value)
    if field.kind in {Kind.INTEGER, Kind.LARGE_INTEGER} and not field.low <= value <= field.high:
        raise InvalidRequestError.of(
            where, f"is {str(value)[:_SHOWN]}, must be in [{field.low}, {field.high}]"
        )
    return value != field.inverted if field.kind is Kind.TRUTH else value


def _number(where: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidRequestError.of(where, "is too large for a number") from error
