"""The operators of GPT-2's activation functions."""

from dataclasses import dataclass
from typing import Final

from gpt2flow.export.errors import CheckpointError
from gpt2flow.export.model_writer import CONTRIB


@dataclass(frozen=True, slots=True)
class Activation:
    """An operator of one input, and its one attribute if it has one."""

    operator: str
    domain: str = CONTRIB
    alpha: float | None = None


_TANH_GELU: Final = Activation("FastGelu")
_SILU: Final = Activation("QuickGelu", alpha=1.0)
_ACTIVATIONS: Final = {
    "gelu": Activation("Gelu"),
    "gelu_fast": _TANH_GELU,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "quick_gelu": Activation("QuickGelu", alpha=1.702),
    "relu": Activation("Relu", domain=""),
    "silu": _SILU,
    "swish": _SILU,
    "tanh": Activation("Tanh", domain=""),
}


def find_activation(name: str) -> Activation:
    """Returns the operator of an activation function, by its name in a configuration.

    Raises:
        CheckpointError: There is none; the message names those that there are.
    """
    if name not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise CheckpointError(
            f"config.json: activation_function is {name!r}; supported are {allowed}"
        )
    return _ACTIVATIONS[name]
