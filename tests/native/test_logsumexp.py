"""Log-sum-exp of a row equals NumPy's, with and without a library."""

import numpy as np
import pytest
from tests.support.operators import KERNELS

from gpt2flow.native import load_operators, rows
from gpt2flow.native.rows import log_sum_exp


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 113, 50257])
def test_sums_equal_numpys(kernels: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if load_operators(kernels).library is None:
        monkeypatch.setattr(rows, "open_library", lambda: None)
    rng = np.random.default_rng(columns)
    logits = (rng.standard_normal((5, columns)) * [[0], [1], [10], [30], [80]]).astype(np.float32)
    for row in logits:
        expected = np.logaddexp.reduce(row.astype(np.float64))
        assert log_sum_exp(row) == pytest.approx(expected, abs=2e-5)


def test_a_column_of_a_table_is_a_row_too() -> None:
    table = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    expected = np.logaddexp.reduce(table[:, 1].astype(np.float64))
    assert log_sum_exp(table[:, 1]) == pytest.approx(expected, abs=1e-5)
