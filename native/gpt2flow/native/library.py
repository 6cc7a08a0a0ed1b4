"""Compiled library of operators, and the choice of its kernels.

The library is absent where nothing could be compiled. Then every operator runs as the function of
its name that a model carries, on onnxruntime's own operators.
"""

import ctypes
import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NAME: Final = "operators"
FAST_PRODUCTS: Final = frozenset({"amx", "avx512"})
"""Kernels whose products were measured to be faster than onnxruntime's operators.

Processors without AVX-512 were not at hand, so onnxruntime's operators are their default.
"""

FALLBACK: Final = "onnxruntime"
"""Name of the choice to run none of the operators."""


@dataclass(frozen=True, slots=True)
class Operators:
    """Operators that a session registers.

    Attributes:
        library: Path of the library; None registers nothing.
        attention: Name of the kernels of the attention.
        products: Name of the kernels of the products.
    """

    library: Path | None
    attention: str
    products: str

    def __str__(self) -> str:
        """Return the names of the kernels."""
        if self.products == self.attention:
            return self.attention
        return f"{self.attention}, products on {self.products}"


def available_kernels() -> list[str]:
    """Return the names of this processor's kernels, the best ones first."""
    library = open_library()
    if library is None:
        return [FALLBACK]
    names = itertools.takewhile(bool, map(library.gpt2flow_kernels_name, itertools.count()))
    return [*(name.decode() for name in names), FALLBACK]


def load_operators(kernels: str | None = None) -> Operators:
    """Choose the operators of the sessions to come, in the whole process.

    Args:
        kernels: Name of the kernels, one of `available_kernels()`. None chooses the best ones, and
            leaves the products to onnxruntime where it is faster.

    Raises:
        ValueError: This processor cannot run the kernels.
    """
    available = available_kernels()
    if kernels not in {None, *available}:
        raise ValueError(f"kernels are {kernels!r}, must be one of {', '.join(available)}")
    library = open_library()
    name = kernels or available[0]
    if library is None or name == FALLBACK:
        return Operators(None, FALLBACK, FALLBACK)
    products = name if kernels or name in FAST_PRODUCTS else FALLBACK
    library.gpt2flow_choose_kernels(name.encode())
    library.gpt2flow_register(products != FALLBACK)
    return Operators(_path(), name, products)


def _path() -> Path | None:
    return next(Path(__file__).parent.glob(f"{_NAME}.*"), None)


@functools.cache
def open_library() -> ctypes.CDLL | None:
    """Return the library; None where nothing was compiled."""
    path = _path()
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    library.gpt2flow_kernels_name.restype = ctypes.c_char_p
    library.gpt2flow_logsumexp.restype = ctypes.c_float
    library.gpt2flow_logsumexp.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    return library
