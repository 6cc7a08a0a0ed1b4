"""Checkpoint of a bundle, to train on from it.

The weights are those that the server computes with: what quantization lost stays lost.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import CONFIG_NAME, Architecture
from gpt2flow.export.checkpoint.vocabulary import SETTINGS_NAME
from gpt2flow.export.errors import InputError, OutputError
from gpt2flow.export.graph.head_padding import PaddedHeads
from gpt2flow.export.graph.packed_matrix import PackedMatrix, unpack_matrix
from gpt2flow.export.quantization.rounding import BlockMatrix
from gpt2flow.export.recipe import Profile
from gpt2flow.files.atomic import TargetError, atomic_directory
from gpt2flow.files.documents import read_json
from gpt2flow.server.bundle.manifest import MODEL_NAME, TOKENIZER_NAME, load_bundle

_COPIED: Final = (CONFIG_NAME, "generation_config.json", TOKENIZER_NAME)
_HEAD: Final = "lm_head.weight"
_TRANSPOSED: Final = ("wte", "wpe", "lm_head")
# The metadata that transformers requires.
_METADATA: Final = {"format": "pt"}

_Constants = Mapping[str, npt.NDArray[Any]]


def restore_checkpoint(bundle: Path, out: Path) -> int:
    """Write the checkpoint of a bundle, in Hugging Face's format.

    Args:
        bundle: Directory of a bundle of any profile but `reference`.
        out: Directory of the checkpoint; it must not exist.

    Returns:
        The number of parameters.

    Raises:
        BundleError: The bundle is missing or damaged.
        InputError: The bundle has profile `reference`.
        OutputError: The directory exists, or cannot be written.
    """
    manifest = load_bundle(bundle).manifest
    if manifest.recipe.profile == Profile.REFERENCE:
        raise InputError(
            f"{bundle}: profile reference; a checkpoint is restored from fp32, int8 or int4"
        )
    architecture = Architecture.from_config(read_json(bundle / CONFIG_NAME, InputError))
    bits = {name: recipe.bits for name, recipe in manifest.recipe.operators.items()}
    weights = _read_weights(bundle / MODEL_NAME, architecture, bits)
    try:
        with atomic_directory(out) as staging:
            for name in _COPIED:
                shutil.copyfile(bundle / name, staging / name)
            settings = _tokenizer_settings(bundle / TOKENIZER_NAME)
            (staging / SETTINGS_NAME).write_text(json.dumps(settings, indent=2) + "\n")
            save_file(
                {_full_name(name): weight for name, weight in weights.items()},
                staging / "model.safetensors",
                metadata=_METADATA,
            )
    except TargetError as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error
    return sum(weight.size for weight in weights.values())


def _tokenizer_settings(path: Path) -> dict[str, Any]:
    """Return settings by which transformers adds nothing to a `tokenizer.json`."""
    fields = read_json(path, InputError)
    splitter = fields.get("pre_tokenizer") or {}
    prefix = {"add_prefix_space": splitter.get("add_prefix_space", False)}
    return {"tokenizer_class": "PreTrainedTokenizerFast"} | prefix


def _read_weights(
    path: Path, architecture: Architecture, bits: Mapping[str, int]
) -> dict[str, FloatArray]:
    """Return the weights of a serving graph, by their names below `transformer.`.

    Args:
        path: File of the graph.
        architecture: Architecture of the model.
        bits: Bits per weight of each matrix.
    """
    model = onnx.load(str(path))
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    outputs = {
        node.name: attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "N"
    }
    heads = PaddedHeads({}, architecture)
    weights = {}
    for name, shape in architecture.weight_shapes().items():
        if name in constants:
            weight = constants[name]
        else:
            matrix = name.removesuffix(".weight")
            blocks = _read_blocks(matrix, bits[matrix], constants, outputs)
            weight = blocks.dequantize()
            # Tables and the head are stored as [out, in].
            weight = weight.T if matrix in _TRANSPOSED else weight
        weight = heads.strip(name, weight)
        # Blocks are padded along the inputs.
        cut = tuple(slice(size) for size in shape)
        weights[name] = np.ascontiguousarray(weight[cut], np.float32)
    return weights


def _read_blocks(
    matrix: str, bits: int, constants: _Constants, outputs: Mapping[str, int]
) -> BlockMatrix:
    """Return a quantized matrix as it is stored, padding included."""
    if f"{matrix}.rows" in constants:
        scales = constants[f"{matrix}.scales"]
        return BlockMatrix(bits, constants[f"{matrix}.rows"].reshape(*scales.shape, -1), scales)
    prefix = f"{matrix}.{bits}bit"
    panels, zeros = constants[f"{prefix}.panels"], constants.get(f"{prefix}.zero_points")
    block_size = panels.shape[2] * 4 * 8 // bits
    packed = PackedMatrix(
        bits, outputs[matrix], block_size, panels, constants[f"{prefix}.scales"], zeros
    )
    return unpack_matrix(packed)


def _full_name(name: str) -> str:
    return name if name == _HEAD else f"transformer.{name}"
