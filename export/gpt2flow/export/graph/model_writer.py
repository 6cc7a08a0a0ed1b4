"""Writer of an ONNX model with external weights that can be memory-mapped."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

OPSET: Final = 21
IR_VERSION: Final = 10
CONTRIB: Final = "com.microsoft"

# Below this size, reading from the graph itself is faster than from the data file.
_INLINE_BYTES: Final = 1024
# A cache line. Memory-mapping allows any offset, but kernels read aligned data faster.
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
    """Writer that collects nodes and streams weights to the data file.

    Nodes and small tensors are kept in memory until `finish`; larger tensors are written when they
    are added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data_name = f"{path.name}.data"
        self._data = path.with_name(self._data_name).open("wb")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._functions: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._data.close()

    def add_constant(self, name: str, array: Array) -> str:
        """Add a tensor, unless one of this name exists.

        Returns:
            The name of the tensor.
        """
        if name in self._constants:
            return name
        tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=_DTYPES[array.dtype])
        data = np.ascontiguousarray(array)
        if data.nbytes < _INLINE_BYTES:
            tensor.raw_data = data.tobytes()
        else:
            self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
            self._set_location(tensor, self._data.tell(), data.nbytes)
            self._data.write(data.data)
        self._constants[name] = tensor
        return name

    def add_function(self, function: Any) -> None:
        """Add a function that nodes may use as an operator."""
        self._functions[function.domain, function.name] = function

    def add_node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node.

        Args:
            operator: Type of the operator.
            inputs: Names of its inputs; an empty name omits an optional one.
            outputs: Names of its outputs.
            name: Name of the node.
            domain: Domain of the operator; empty for standard ONNX.
            attributes: Attributes of the node.

        Returns:
            The name of its first output.
        """
        node = helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes)
        self._nodes.append(node)
        return outputs[0]

    @contextmanager
    def subgraph(self, name: str, outputs: Sequence[Any]) -> Iterator[Any]:
        """Collect the nodes added inside the block in a subgraph.

        Nodes of the subgraph may use all tensors and outputs added before it.

        Args:
            name: Name of the subgraph.
            outputs: Value infos of its outputs.

        Yields:
            The subgraph, whose nodes are filled in when the block ends.
        """
        outer, self._nodes = self._nodes, []
        graph = onnx.GraphProto(name=name)
        try:
            yield graph
            graph.node.extend(self._nodes)
            graph.output.extend(outputs)
        finally:
            self._nodes = outer

    def finish(
        self, inputs: Sequence[Any], outputs: Sequence[Any], metadata: Mapping[str, str]
    ) -> None:
        """Write the model; closing the writer then completes the data file.

        Args:
            inputs: Value infos of the inputs.
            outputs: Value infos of the outputs.
            metadata: Metadata properties, for facts that the shapes do not express.
        """
        graph = helper.make_graph(
            self._nodes, "gpt2", inputs, outputs, list(self._constants.values())
        )
        domains = ("", CONTRIB, *{domain for domain, _ in self._functions})
        model = helper.make_model(
            graph,
            producer_name="gpt2flow",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid(each, 1 if each else OPSET) for each in domains],
            functions=list(self._functions.values()),
        )
        helper.set_model_props(model, dict(metadata))
        self._path.write_bytes(model.SerializeToString(deterministic=True))

    def _set_location(self, tensor: Any, offset: int, length: int) -> None:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": self._data_name, "offset": offset, "length": length}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))


def make_value_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> Any:
    """Return the value info of a graph input or output.

    Args:
        name: Name of the tensor.
        dtype: Data type of the tensor.
        shape: Shape of the tensor; a string is a symbolic dimension.
    """
    return helper.make_tensor_value_info(name, _DTYPES[np.dtype(dtype)], shape)
