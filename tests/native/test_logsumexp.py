"""Log-sum-exp of the operator equals NumPy's."""

import numpy as np
import onnx
import pytest
from tests.support.operators import KERNELS, Value, open_node

from gpt2flow.export.graph.functions import logsumexp_function

TYPE = onnx.TensorProto.FLOAT


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 113, 50257])
def test_sums_equal_numpys(kernels: str, columns: int) -> None:
    inputs: dict[str, Value] = {"logits": (TYPE, ["rows", columns])}
    session = open_node(logsumexp_function(), inputs, {}, {"sums": (TYPE, ["rows"])}, kernels)
    rng = np.random.default_rng(columns)
    logits = (rng.standard_normal((5, columns)) * [[0], [1], [10], [30], [80]]).astype(np.float32)
    expected = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    [sums] = session.run(None, {"logits": logits})
    np.testing.assert_allclose(sums, expected, atol=2e-5)
    assert session.run(None, {"logits": logits[:0]})[0].shape == (0,)
