"""Architecture of a GPT-2, read from its `config.json`."""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from gpt2flow.export.checkpoint.special_ids import EosTokenIds
from gpt2flow.export.errors import CheckpointError, shorten

CONFIG_NAME: Final = "config.json"

MIN_CONTEXT: Final = 4
"""Fewest positions: Optimum traces a model with two tokens after two others."""

MAX_HEAD_SIZE: Final = 256
"""Most channels of a head that the attention operator takes."""

# Classes that compute the same function as the graph, in any framework.
_CLASSES: Final = re.compile(r"(TF|Flax)?GPT2(LMHead)?Model")
_MODEL_TYPE: Final = "gpt2"
# Fields by which a configuration without `model_type` is known to be of a GPT-2.
_FIELDS: Final = {"n_embd", "n_head", "n_layer"}
# Forty times GPT-2 XL's 48: a typo is refused here instead of filling the memory with names.
_MAX_LAYERS: Final = 2000


class Architecture(BaseModel):
    """Fields of a Hugging Face GPT-2 configuration that determine its graph.

    Defaults are those of `transformers.GPT2Config`, since a saved configuration may omit them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    architectures: list[str] | None = None
    layers: int = Field(
        12, gt=0, le=_MAX_LAYERS, validation_alias=AliasChoices("n_layer", "num_hidden_layers")
    )
    heads: int = Field(12, gt=0, validation_alias=AliasChoices("n_head", "num_attention_heads"))
    hidden_size: int = Field(768, gt=0, validation_alias=AliasChoices("n_embd", "hidden_size"))
    n_inner: int | None = Field(None, gt=0)
    context_length: int = Field(
        1024,
        ge=MIN_CONTEXT,
        validation_alias=AliasChoices("n_positions", "max_position_embeddings", "n_ctx"),
    )
    vocabulary_size: int = Field(50257, gt=1, validation_alias="vocab_size")
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = Field(1e-5, gt=0, allow_inf_nan=False)
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    add_cross_attention: Literal[False] = False
    quantization_config: None = None
    eos_token_ids: EosTokenIds = Field((50256,), validation_alias="eos_token_id")
    bos_token_id: int | None = 50256
    # It has no effect, but transformers cannot load a model with another type.
    pad_token_id: int | None = None

    @field_validator("architectures")
    @classmethod
    def _check_architectures(cls, names: list[str] | None) -> list[str] | None:
        if not all(_CLASSES.fullmatch(name) for name in names or []):
            raise ValueError("only GPT2LMHeadModel and GPT2Model can be exported")
        return names

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"n_embd {self.hidden_size} is not divisible by n_head {self.heads}",
            )
        if self.head_size > MAX_HEAD_SIZE:
            raise ValueError(
                f"n_embd {self.hidden_size} and n_head {self.heads} make heads of "
                f"{self.head_size} channels; at most {MAX_HEAD_SIZE} can be exported",
            )
        return self

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Validate the parsed JSON of a `config.json`.

        Raises:
            CheckpointError: It is not a GPT-2, or a field is invalid; the message names the field
                and its value.
        """
        if not isinstance(config, dict):
            raise CheckpointError(f"{CONFIG_NAME} does not hold a JSON object")
        if "model_type" not in config and not _is_gpt2(config):
            raise CheckpointError(
                f"{CONFIG_NAME}: model_type is missing; {_MODEL_TYPE!r} is needed"
            )
        if config.get("model_type", _MODEL_TYPE) != _MODEL_TYPE:
            raise CheckpointError(
                f"{CONFIG_NAME}: model_type is {shorten(config['model_type'])}; "
                f"only {_MODEL_TYPE!r} can be exported"
            )
        try:
            return cls.model_validate(config)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            where = f"{CONFIG_NAME}: {field} is {shorten(first['input'])}" if field else CONFIG_NAME
            message = first["msg"].removeprefix("Value error, ")
            raise CheckpointError(f"{where}: {message}") from error

    @property
    def head_size(self) -> int:
        """Number of channels of one attention head, without padding."""
        return self.hidden_size // self.heads

    @property
    def inner_size(self) -> int:
        """Width of the feed-forward layer."""
        return self.n_inner or 4 * self.hidden_size

    def attention_scale(self, layer: int) -> float:
        """Return the factor applied to query · key in a layer.

        Args:
            layer: Index of the layer, counted from 0.
        """
        scale = self.head_size**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight, by its name below `transformer.`.

        GPT-2's linear layers are Conv1D, so their weights are [in, out]. An untied `lm_head.weight`
        is [out, in].
        """
        width, inner = self.hidden_size, self.inner_size
        shapes: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.vocabulary_size, width),
            "wpe.weight": (self.context_length, width),
        }
        for layer in range(self.layers):
            linear = {
                "attn.c_attn": (width, 3 * width),
                "attn.c_proj": (width, width),
                "mlp.c_fc": (width, inner),
                "mlp.c_proj": (inner, width),
            }
            for name, (inputs, outputs) in linear.items():
                shapes[f"h.{layer}.{name}.weight"] = (inputs, outputs)
                shapes[f"h.{layer}.{name}.bias"] = (outputs,)
            for norm in ("ln_1", "ln_2"):
                shapes[f"h.{layer}.{norm}.weight"] = (width,)
                shapes[f"h.{layer}.{norm}.bias"] = (width,)
        shapes["ln_f.weight"] = (width,)
        shapes["ln_f.bias"] = (width,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocabulary_size, width)
        return shapes


def complete_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a valid configuration with its `model_type`, which old ones lack."""
    return {"model_type": _MODEL_TYPE} | config


def _is_gpt2(config: dict[str, Any]) -> bool:
    """Return whether a configuration without `model_type` is of a GPT-2."""
    return bool(config.get("architectures")) or config.keys() >= _FIELDS


@dataclass(frozen=True, slots=True)
class Activation:
    """ONNX operator of an activation function, with one input.

    Attributes:
        operator: Name of the operator.
        domain: Domain of the operator; empty for standard ONNX.
        alpha: Value of its `alpha` attribute, None if it has none.
    """

    operator: str
    domain: str = "com.microsoft"
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
    """Return the operator of an activation function.

    Args:
        name: Name of the function in a Hugging Face configuration.

    Raises:
        CheckpointError: The function is not supported; the message lists those that are.
    """
    if name not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise CheckpointError(
            f"config.json: activation_function is {name!r}; supported are {allowed}"
        )
    return _ACTIVATIONS[name]
