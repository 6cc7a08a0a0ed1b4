"""LoRA adapter in PEFT's format: its configuration and its weights."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.hints import ADAPTER_CONFIG_NAME
from gpt2flow.export.checkpoint.tensor_files import open_tensors
from gpt2flow.export.errors import AdapterError, shorten
from gpt2flow.export.sources.files import ADAPTER_WEIGHT_NAMES
from gpt2flow.files.documents import read_object

# Fields that this module reads.
_READ: Final = {
    *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "init_lora_weights"),
}
# Fields that do not change how the weights in the file act. Which modules they are of is in their
# names, and whether a matrix is transposed follows from the module.
_WITHOUT_EFFECT: Final = {
    *("auto_mapping", "bias", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode"),
    *("layers_pattern", "layers_to_transform", "lora_bias", "lora_dropout", "megatron_core"),
    *("modules_to_save", "peft_version", "qalora_group_size", "runtime_config", "target_modules"),
    "task_type",
}
# Initializations that leave the base model as it is.
_PLAIN_INITIALIZATIONS: Final = (True, False, None, "gaussian", "orthogonal", "eva")

_PREFIX: Final = re.compile(r"(base_model\.model\.)?(transformer\.)?")
_FACTOR: Final = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.(weight|bias))?")
# Parts of names that PEFT puts around the modules of a model.
_WRAPPERS: Final = re.compile(r"\.(base_layer|modules_to_save)\b")
# Causal masks of older models, saved with the biases.
_BUFFER: Final = re.compile(r"h\.\d+\.attn\.(masked_)?bias")


@dataclass(slots=True)
class Factors:
    """Low-rank update of one module, whose product is `up @ down`.

    Attributes:
        down: Matrix A, [rank, in].
        up: Matrix B, [out, rank].
        bias: Bias of the update, [out]; None without one.
    """

    down: FloatArray | None = None
    up: FloatArray | None = None
    bias: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """Weights of an adapter, by the base model's names below `transformer.`.

    Attributes:
        factors: Low-rank updates by module.
        replaced: Whole tensors that replace those of the base model.
    """

    factors: Mapping[str, Factors]
    replaced: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA adapter that can be merged exactly.

    Attributes:
        directory: Directory of the adapter.
        base: Base model that the configuration names, a path or an id; None without one.
        base_revision: Revision of the base model on a hub; None for the main branch.
        rank: Rank of the modules that `rank_pattern` does not match.
        alpha: Numerator of the scaling where `alpha_pattern` does not match.
        rank_stabilized: Whether the denominator is the square root of the rank.
        rank_pattern: Ranks by pattern of a module's name.
        alpha_pattern: Numerators by pattern of a module's name.
    """

    directory: Path
    base: str | None
    base_revision: str | None
    rank: int
    alpha: float
    rank_stabilized: bool
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def rank_of(self, module: str) -> int:
        """Return the rank of a module's update."""
        return int(_find_pattern(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """Return the factor of a module's update."""
        rank, alpha = self.rank_of(module), _find_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def read_adapter(directory: Path) -> Adapter:
    """Read the configuration of an adapter.

    Raises:
        AdapterError: It is damaged, or an adapter that cannot be merged exactly; the message names
            the field.
    """
    config = read_object(directory / ADAPTER_CONFIG_NAME, AdapterError)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _refusal("peft_type", kind, "only 'LORA' can be merged")
    if config.get("init_lora_weights", True) not in _PLAIN_INITIALIZATIONS:
        raise _refusal(
            "init_lora_weights", config["init_lora_weights"], "it changes the base model"
        )
    for name, value in config.items():
        if value and name not in _READ | _WITHOUT_EFFECT:
            raise _refusal(name, value, "it cannot be merged exactly")
    return Adapter(
        directory,
        base=_text(config, "base_model_name_or_path"),
        base_revision=_text(config, "revision"),
        rank=int(_number("r", config.get("r", 8))),
        alpha=_number("lora_alpha", config.get("lora_alpha", 8)),
        rank_stabilized=config.get("use_rslora") is True,
        rank_pattern={name: int(value) for name, value in _pattern(config, "rank_pattern").items()},
        alpha_pattern=_pattern(config, "alpha_pattern"),
    )


def read_adapter_weights(directory: Path) -> AdapterWeights:
    """Read the weights of an adapter.

    Raises:
        AdapterError: There are none, or one has a name that PEFT's LoRA does not write.
        CheckpointError: The file is damaged; the message names it.
    """
    files = [path for name in ADAPTER_WEIGHT_NAMES if (path := directory / name).is_file()]
    if not files:
        raise AdapterError(
            f"{directory} is an adapter without weights: no {', no '.join(ADAPTER_WEIGHT_NAMES)}"
        )
    factors: dict[str, Factors] = {}
    replaced: dict[str, FloatArray] = {}
    for full_name, read in open_tensors(files[0]).items():
        name = _PREFIX.sub("", full_name, count=1)
        if match := _FACTOR.fullmatch(name):
            module, embedding, half, kind = match.groups()
            if (embedding is None) == (kind is None) or (kind == "bias" and half == "A"):
                raise AdapterError(f"{files[0]} holds {full_name}, which PEFT's LoRA does not have")
            update = factors.setdefault(module, Factors())
            attribute = "bias" if kind == "bias" else {"A": "down", "B": "up"}[half]
            setattr(update, attribute, _read(read, full_name, files[0]))
        elif ".lora_" in name or ".original_module." in name:
            raise AdapterError(f"{files[0]} holds {full_name}, which cannot be merged exactly")
        elif not _BUFFER.fullmatch(name):
            replaced[_WRAPPERS.sub("", name)] = _read(read, full_name, files[0])
    if not factors and not replaced:
        raise AdapterError(f"{files[0]} holds no weights")
    return AdapterWeights(factors, replaced)


def _read(read: Any, name: str, file: Path) -> FloatArray:
    try:
        array: FloatArray = read()
    except Exception as error:  # The libraries that read the formats raise any kind of error.
        raise AdapterError(f"{file}: {name} cannot be read: {error}") from error
    if not np.isfinite(array).all():
        raise AdapterError(f"{file}: {name} holds a value that is NaN or infinite")
    return array


def _refusal(name: str, value: Any, reason: str) -> AdapterError:
    return AdapterError(f"{ADAPTER_CONFIG_NAME}: {name} is {shorten(value)}; {reason}")


def _text(config: dict[str, Any], name: str) -> str | None:
    value = config.get(name)
    if value is not None and not isinstance(value, str):
        raise _refusal(name, value, "it must be a text")
    return value or None


def _number(name: str, value: Any) -> float:
    """Return a number above 0.

    Raises:
        AdapterError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _refusal(name, value, "it must be a number above 0")
    return value


def _pattern(config: dict[str, Any], name: str) -> dict[str, float]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise _refusal(name, patterns, "it must be an object of numbers")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _refusal(name, pattern, f"it is no regular expression: {error}") from error
    return {pattern: _number(f"{name}.{pattern}", value) for pattern, value in patterns.items()}


def _find_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """Return the value of the first pattern that PEFT would match."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", f"transformer.{module}"):
            return value
    return default
