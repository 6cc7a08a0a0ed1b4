"""Tensors of messages: elements from bytes or typed lists, and back."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.errors import InvalidRequestError

# Field of typed contents, and NumPy's type of an element.
_NUMBERS: Final = {
    "BOOL": ("bool_contents", np.dtype("?")),
    "INT32": ("int_contents", np.dtype("<i4")),
    "INT64": ("int64_contents", np.dtype("<i8")),
    "UINT32": ("uint_contents", np.dtype("<u4")),
    "UINT64": ("uint64_contents", np.dtype("<u8")),
    "FP32": ("fp32_contents", np.dtype("<f4")),
    "FP64": ("fp64_contents", np.dtype("<f8")),
}
_BYTES: Final = "BYTES"
# Length in front of each element of BYTES.
_LENGTH: Final = struct.Struct("<I")
_MAX_DIMENSIONS: Final = 8

InputTensor = pb.ModelInferRequest.InferInputTensor
OutputTensor = pb.ModelInferResponse.InferOutputTensor


@dataclass(frozen=True, slots=True)
class Tensor:
    """Tensor of a response.

    Attributes:
        name: Name of the tensor.
        datatype: Datatype of its elements.
        shape: Sizes of its dimensions.
        values: Elements in row-major order; text of BYTES is a `str`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


def element_count(field: str, shape: Sequence[int]) -> int:
    """Return the number of elements of a shape.

    Raises:
        InvalidRequestError: A dimension is negative, or there are too many.
    """
    if len(shape) > _MAX_DIMENSIONS:
        raise InvalidRequestError.of(
            field, f"has {len(shape)} dimensions, must have at most {_MAX_DIMENSIONS}"
        )
    if any(size < 0 for size in shape):
        raise InvalidRequestError.of(
            field, f"has shape {list(shape)}, must not have negative sizes"
        )
    return math.prod(shape)


def read_elements(field: str, message: InputTensor, raw: bytes | None) -> list[Any]:
    """Return the elements of an input; those of BYTES are bytes.

    Args:
        field: Name of the input, for errors.
        message: The input, of a datatype that is supported.
        raw: Its entry of `raw_input_contents`; None if the message has typed contents.

    Raises:
        InvalidRequestError: The contents do not fit the shape or the datatype.
    """
    count = element_count(field, message.shape)
    if raw is None:
        return _typed_elements(field, message, count)
    if message.datatype == _BYTES:
        return list(_byte_elements(field, raw, count))
    _, dtype = _NUMBERS[message.datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidRequestError.of(
            field,
            f"has {len(raw)} bytes of raw contents, must have {count * dtype.itemsize} for shape "
            f"{list(message.shape)} of {message.datatype}",
        )
    if message.datatype == "BOOL":
        return [byte != 0 for byte in raw]
    elements: list[Any] = np.frombuffer(raw, dtype).tolist()
    return elements


def _typed_elements(field: str, message: InputTensor, count: int) -> list[Any]:
    wanted = "bytes_contents" if message.datatype == _BYTES else _NUMBERS[message.datatype][0]
    for descriptor, _ in message.contents.ListFields():
        if descriptor.name != wanted:
            raise InvalidRequestError.of(
                field, f"has {descriptor.name}, must have {wanted} for {message.datatype}"
            )
    elements = list(getattr(message.contents, wanted))
    if len(elements) != count:
        raise InvalidRequestError.of(
            field,
            f"has {len(elements)} elements, must have {count} for shape {list(message.shape)}",
        )
    return elements


def _byte_elements(field: str, raw: bytes, count: int) -> Iterator[bytes]:
    """Yield the elements of BYTES, each with its length in front."""
    start = 0
    for index in range(count):
        begin = start + _LENGTH.size
        start = begin + _LENGTH.unpack_from(raw, start)[0] if begin <= len(raw) else begin
        if start > len(raw):
            raise InvalidRequestError.of(
                f"{field}[{index}]", f"ends after the {len(raw)} bytes of the raw contents"
            )
        yield raw[begin:start]
    if start < len(raw):
        raise InvalidRequestError.of(
            field, f"has {len(raw)} bytes of raw contents, its {count} elements take {start}"
        )


def write_tensors(message: pb.ModelInferResponse, tensors: Sequence[Tensor], *, raw: bool) -> None:
    """Add tensors to a response, with raw or with typed contents."""
    for tensor in tensors:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            message.raw_output_contents.append(_raw_bytes(tensor))
        elif tensor.datatype == _BYTES:
            output.contents.bytes_contents.extend(text.encode() for text in tensor.values)
        else:
            name, _ = _NUMBERS[tensor.datatype]
            getattr(output.contents, name).extend(tensor.values)


def _raw_bytes(tensor: Tensor) -> bytes:
    if tensor.datatype != _BYTES:
        return np.array(tensor.values, _NUMBERS[tensor.datatype][1]).tobytes()
    encoded = [text.encode() for text in tensor.values]
    return b"".join(part for each in encoded for part in (_LENGTH.pack(len(each)), each))
