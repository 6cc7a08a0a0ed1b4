"""Quantization plan: everything decided about a serving graph before it is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.graph.cache import CacheScales
from gpt2flow.export.graph.serving_graph import select_storage
from gpt2flow.export.quantization.calibration import calibrate_cache
from gpt2flow.export.quantization.rounding import BlockMatrix, Quantizer, round_to_nearest
from gpt2flow.export.recipe import KvCache, Method, ProfileRecipe, Storage
from gpt2flow.export.verification.reference import ReferenceModel

ProgressCallback = Callable[[str, int, int], None]
"""Callback that receives a stage of the export, its steps done, and its steps in total."""

# Cache ranges and the ranking by sensitivity need less text than GPTQ's Hessians do.
_CACHE_TOKENS: Final = 4096
_HQQ_BITS: Final = 4
_SENSITIVITY_TOKENS: Final = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """Inputs of a serving graph beside its recipe.

    Attributes:
        cache_scales: Scales of an int8 KV cache; None means a float32 cache.
        quantizer: Function that quantizes a matrix in blocks.
        kept: Names of the matrices that mixed precision keeps in 8 bits.
    """

    cache_scales: CacheScales | None = None
    quantizer: Quantizer = round_to_nearest
    kept: frozenset[str] = field(default=frozenset())


def make_plan(
    source: Checkpoint,
    recipe: ProfileRecipe,
    reference: ReferenceModel,
    windows: Sequence[TokenArray],
    report_progress: ProgressCallback,
) -> Plan:
    """Calibrate the cache, quantize matrices, and choose those kept in 8 bits.

    Plain rounding without mixed precision is deferred until the graph is written.

    Args:
        source: Checkpoint to export.
        recipe: Recipe of the serving graph.
        reference: Reference model of the checkpoint.
        windows: Token windows to calibrate with, int64 [tokens] each; may be empty if the recipe
            needs no calibration.
        report_progress: Callback for the progress of each stage.
    """
    scales = None
    if recipe.kv_cache is KvCache.INT8:
        scales = calibrate_cache(
            reference,
            source.architecture,
            _truncate(windows, _CACHE_TOKENS),
            lambda done, total: report_progress("calibrate", done, total),
        )
    if recipe.method is Method.RTN and not recipe.mixed_precision_budget:
        return Plan(scales)
    blocks = _quantize_blocks(source, recipe, windows, report_progress)
    kept = (
        _find_sensitive_matrices(source, recipe, windows, blocks, report_progress)
        if recipe.mixed_precision_budget
        else frozenset()
    )
    return Plan(scales, _PrecomputedBlocks(blocks), kept)


class _PrecomputedBlocks:
    """Quantizer that returns matrices quantized before.

    A matrix that was not quantized before, or to other bits than requested, is rounded to nearest.
    """

    def __init__(self, blocks: Mapping[str, BlockMatrix]) -> None:
        self._blocks = blocks

    def __call__(self, name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
        precomputed = self._blocks.get(name)
        if precomputed is not None and precomputed.bits == storage.bits:
            return precomputed
        return round_to_nearest(name, weight, storage)


def _quantize_blocks(
    source: Checkpoint,
    recipe: ProfileRecipe,
    windows: Sequence[TokenArray],
    report_progress: ProgressCallback,
) -> dict[str, BlockMatrix]:
    """Quantize all matrices that are stored in blocks, by the recipe's method."""
    # Torch and transformers take seconds to import.
    from gpt2flow.export.quantization.hqq import quantize_hqq  # noqa: PLC0415 - as above
    from gpt2flow.export.quantization.layerwise import (  # noqa: PLC0415 - as above
        LayerwiseModel,
        quantize_model_with_gptq,
    )

    def report_quantization(done: int, total: int) -> None:
        report_progress("quantize", done, total)

    model = LayerwiseModel(source)

    def select(name: str, inputs: int) -> Storage:
        return select_storage(recipe, frozenset(), name, inputs)

    if recipe.method is Method.GPTQ:
        return quantize_model_with_gptq(model, windows, select, report_quantization)

    def quantize(name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
        # Products with 8-bit codes have no zero points.
        is_hqq = recipe.method is Method.HQQ and storage.bits == _HQQ_BITS
        return (quantize_hqq if is_hqq else round_to_nearest)(name, weight, storage)

    return {
        name: quantize(name, weight, storage)
        for name, weight, storage in model.block_matrices(select, report_quantization)
    }


def _find_sensitive_matrices(
    source: Checkpoint,
    recipe: ProfileRecipe,
    windows: Sequence[TokenArray],
    blocks: Mapping[str, BlockMatrix],
    report_progress: ProgressCallback,
) -> frozenset[str]:
    """Return the most sensitive matrices that fit the mixed-precision budget."""
    from gpt2flow.export.quantization.layerwise import (  # noqa: PLC0415 - as above
        HEAD,
        LayerwiseModel,
    )
    from gpt2flow.export.quantization.sensitivity import (  # noqa: PLC0415 - as above
        choose_mixed_precision,
        measure_sensitivity,
    )

    # The head alone exceeds the budget.
    layers = {name: quantized for name, quantized in blocks.items() if name != HEAD}
    divergence = measure_sensitivity(
        LayerwiseModel(source),
        _truncate(windows, _SENSITIVITY_TOKENS),
        layers,
        lambda done, total: report_progress("sensitivity", done, total),
    )
    # 8-bit codes take twice the bytes of 4-bit ones.
    extra_bytes = {name: quantized.data.nbytes for name, quantized in layers.items()}
    return choose_mixed_precision(
        divergence, extra_bytes, int(recipe.mixed_precision_budget * sum(extra_bytes.values()))
    )


def _truncate(windows: Sequence[TokenArray], tokens: int) -> list[TokenArray]:
    """Return the first windows, with the given number of tokens in total.

    The last window is cut to fit.
    """
    ends = np.cumsum([len(window) for window in windows])
    room_left = tokens - np.concatenate([[0], ends[:-1]])
    return [window[:room] for window, room in zip(windows, room_left, strict=True) if room > 1]
