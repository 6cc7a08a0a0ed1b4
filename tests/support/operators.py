"""Sessions of a single node, on the kernels of a name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from gpt2flow.export.graph.functions import DOMAIN
from gpt2flow.export.graph.model_writer import CONTRIB, IR_VERSION, OPSET
from gpt2flow.native.library import available_kernels, load_operators

KERNELS = available_kernels()
"""Names of the kernels of this processor, and at last that of onnxruntime's own operators."""

Value = tuple[int, list[str | int]]
"""Type and shape of an input or output."""


def open_node(
    function: Any,
    inputs: Mapping[str, Value],
    constants: Mapping[str, npt.NDArray[Any]],
    outputs: Mapping[str, Value],
    kernels: str,
    *,
    order: Sequence[str] = (),
    threads: int = 2,
    **attributes: Any,
) -> onnxruntime.InferenceSession:
    """Return a session of one node.

    Args:
        function: Function that stands in for the operator, and has its name.
        inputs: Inputs of the graph.
        constants: Inputs of the node that are constants.
        outputs: Outputs of the graph.
        kernels: Name of the kernels.
        order: Names of the node's inputs; by default the inputs, then the constants.
        threads: Threads of the session.
        attributes: Attributes of the node.
    """
    operators = load_operators(kernels)
    names = order or [*inputs, *constants]
    node = helper.make_node(function.name, names, list(outputs), domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    versions = {"": OPSET, CONTRIB: 1, DOMAIN: 1}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*version) for version in versions.items()],
        ir_version=IR_VERSION,
        functions=[function],
    )
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if operators.library:
        options.register_custom_ops_library(str(operators.library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)
