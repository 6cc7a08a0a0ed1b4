"""Functions of a row of logits, computed on demand."""

import numpy as np
import numpy.typing as npt

from gpt2flow.native.library import open_library


def log_sum_exp(row: npt.NDArray[np.float32]) -> np.float32:
    """Return the logarithm of the summed exponentials of a row.

    The kernels are those that were chosen last; without a library it is NumPy.
    """
    library = open_library()
    if library is None:
        highest = row.max()
        return np.float32(highest + np.log(np.exp(row - highest).sum()))
    data = np.ascontiguousarray(row, np.float32)
    return np.float32(library.gpt2flow_logsumexp(data.ctypes.data, len(data)))
