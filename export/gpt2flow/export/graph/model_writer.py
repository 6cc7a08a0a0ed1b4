"""Writes an ONNX model whose weights lie beside it in a file that can be mapped into memory."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

# 24 brings `TensorScatter`.
OPSET: Final = 24
IR_VERSION: Final = 10
CONTRIB: Final = "com.microsoft"

# Smaller tensors are read faster from the graph itself.
_INLINE_BYTES: Final = 1024
# A cache line: mapping into memory takes any offset, but kernels read aligned data faster.
_ALIGNMENT: Final = 64

_DTYPES: Final = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.int64): onnx.TensorProto.INT64,
    np.dtype(np.int32): onnx.TensorProto.INT32,
    np.dtype(np.int8): onnx.TensorProto.INT8,
    np.dtype(np.uint8): onnx.TensorProto.UINT8,
}

Array = npt.NDArray[Any]


class ModelWriter:
    """Collects the nodes of a graph, and writes each weight to the data file as it comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data_name = f"{path.name}.data"
        self._data = path.with_name(self._data_name).open("wb")
        self._nodes: list[Any] = []
        # Of the graph, then of the branches that have constants of their own, down to this one.
        self._constants: list[dict[str, Any]] = [{}]
        self._outputs: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._data.close()

    def has(self, name: str) -> bool:
        """Return whether there is a tensor of that name."""
        return any(name in constants for constants in self._constants)

    def knows(self, name: str) -> bool:
        """Return whether a node that was added has an output of that name."""
        return name in self._outputs

    def constant(self, name: str, array: Array) -> str:
        """Add a tensor, unless there is one of that name already; returns the name."""
        if self.has(name):
            return name
        tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=_DTYPES[array.dtype])
        data = np.ascontiguousarray(array)
        if data.nbytes < _INLINE_BYTES:
            tensor.raw_data = data.tobytes()
        else:
            self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
            self._locate(tensor, self._data.tell(), data.nbytes)
            self._data.write(data.data)
        self._constants[-1][name] = tensor
        return name

    def alias(self, name: str, original: str, shape: Sequence[int]) -> str:
        """Add a tensor that has the bytes of another one in another shape; returns its name.

        One dimension may be −1: as many as there are.
        """
        tensor = onnx.TensorProto()
        tensor.CopyFrom(next(known[original] for known in self._constants if original in known))
        tensor.name = name
        missing = -math.prod(tensor.dims) // math.prod(shape)
        del tensor.dims[:]
        tensor.dims.extend(missing if size < 0 else size for size in shape)
        self._constants[-1][name] = tensor
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node and returns the name of its first output."""
        node = helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes)
        self._nodes.append(node)
        self._outputs.update(outputs)
        return outputs[0]

    @contextmanager
    def branch(
        self, name: str, outputs: Sequence[Any], *, own_constants: bool = False
    ) -> Iterator[Any]:
        """Let nodes be added to a graph of their own, which may use all that was added before.

        Args:
            name: The name of the graph.
            outputs: The descriptions of its outputs.
            own_constants: New constants belong to it alone. A branch of a branch needs that:
                onnxruntime prepares a matrix for its operator only where that is in the graph
                of the matrix or one below; without, `MatMulNBits` is fifty times slower.

        Yields:
            The graph; it has its nodes when the block ends.
        """
        outer, self._nodes = self._nodes, []
        self._constants += [{}] if own_constants else []
        graph = onnx.GraphProto(name=name)
        try:
            yield graph
            graph.node.extend(self._nodes)
            graph.output.extend(outputs)
            graph.initializer.extend(self._constants.pop().values() if own_constants else ())
        finally:
            self._nodes = outer

    def finish(
        self, inputs: Sequence[Any], outputs: Sequence[Any], facts: Mapping[str, str]
    ) -> None:
        """Write the graph; the data file is complete once this writer is closed.

        Args:
            inputs: The descriptions of its inputs.
            outputs: Those of its outputs.
            facts: What those who run it should know, and its shapes do not tell.
        """
        graph = helper.make_graph(
            self._nodes, "gpt2", inputs, outputs, list(self._constants[0].values())
        )
        model = helper.make_model(
            graph,
            producer_name="gpt2flow",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        )
        helper.set_model_props(model, dict(facts))
        self._path.write_bytes(model.SerializeToString(deterministic=True))

    def _locate(self, tensor: Any, offset: int, length: int) -> None:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": self._data_name, "offset": offset, "length": length}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))


def tensor_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> Any:
    """Return the description of a graph input or output; a dimension may be a name."""
    return helper.make_tensor_value_info(name, _DTYPES[np.dtype(dtype)], shape)
