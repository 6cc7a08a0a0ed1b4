"""What is decided about a serving graph before it is written: blocks, exceptions, scales."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.graph.cache import CacheScales
from gpt2flow.export.graph.serving_graph import storage_for_few
from gpt2flow.export.quantization.calibration import calibrate_cache
from gpt2flow.export.quantization.rounding import BlockMatrix, Quantizer, round_to_nearest
from gpt2flow.export.recipe import KvCache, Method, ProfileRecipe, Storage
from gpt2flow.export.verification.reference import ReferenceModel

Report = Callable[[str, int, int], None]
"""Told the stage of the export, how much of it is done, and how much there is."""

# The range of keys and values, and the order of matrices by sensitivity, need less text than
# the blocks of GPTQ.
_CACHE_TOKENS: Final = 4096
_SENSITIVITY_TOKENS: Final = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """What a serving graph is made by, beside its recipe.

    Attributes:
        cache_scales: Those of an int8 KV cache; None: it is float32.
        quantizer: Makes the blocks of matrices.
        kept: Names of matrices that have 8 bits whatever the recipe says.
    """

    cache_scales: CacheScales | None = None
    quantizer: Quantizer = round_to_nearest
    kept: frozenset[str] = field(default=frozenset())


def make_plan(
    source: Checkpoint,
    recipe: ProfileRecipe,
    reference: ReferenceModel,
    windows: Sequence[TokenArray],
    report: Report,
) -> Plan:
    """Calibrate the cache, quantizes the layers where that takes a text, and picks exceptions.

    Args:
        source: The checkpoint.
        recipe: What is wanted.
        reference: The reference graph of the checkpoint.
        windows: The tokens to calibrate with; none are needed where nothing is calibrated.
        report: Told what is being done.
    """
    scales = None
    if recipe.kv_cache is KvCache.INT8:
        scales = calibrate_cache(
            reference,
            source.architecture,
            _first(windows, _CACHE_TOKENS),
            lambda done, total: report("calibrate", done, total),
        )
    if recipe.method is Method.RTN and not recipe.kept_share:
        return Plan(scales)
    blocks = _blocks(source, recipe, windows, report)
    kept = _kept(source, recipe, windows, blocks, report) if recipe.kept_share else frozenset()
    return Plan(scales, _Prepared(blocks), kept)


class _Prepared:
    """Hands out blocks that were made before; rounds what they are not asked for to 8 bits."""

    def __init__(self, blocks: Mapping[str, BlockMatrix]) -> None:
        self._blocks = blocks

    def __call__(self, name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
        prepared = self._blocks.get(name)
        if prepared is not None and prepared.bits == storage.bits:
            return prepared
        return round_to_nearest(name, weight, storage)


def _blocks(
    source: Checkpoint, recipe: ProfileRecipe, windows: Sequence[TokenArray], report: Report
) -> dict[str, BlockMatrix]:
    """Return the blocks of all matrices of the layers, by the method of the recipe."""
    # Torch and transformers take seconds to import.
    from gpt2flow.export.quantization.hqq import half_quadratic  # noqa: PLC0415 - as above
    from gpt2flow.export.quantization.layerwise import (  # noqa: PLC0415 - as above
        LayerwiseModel,
        gptq_weights,
    )

    def tell(done: int, total: int) -> None:
        report("quantize", done, total)

    model = LayerwiseModel(source)

    def storage_of(name: str, inputs: int) -> Storage:
        return storage_for_few(recipe, frozenset(), name, inputs)

    if recipe.method is Method.GPTQ:
        return gptq_weights(model, windows, storage_of, tell)
    one = half_quadratic if recipe.method is Method.HQQ else round_to_nearest
    return {
        name: one(name, weight, storage)
        for name, weight, storage in model.matrices(storage_of, tell)
    }


def _kept(
    source: Checkpoint,
    recipe: ProfileRecipe,
    windows: Sequence[TokenArray],
    blocks: Mapping[str, BlockMatrix],
    report: Report,
) -> frozenset[str]:
    """Return the names of the most sensitive matrices, as many as the recipe has bytes for."""
    from gpt2flow.export.quantization.layerwise import (  # noqa: PLC0415 - as above
        HEAD,
        LayerwiseModel,
    )
    from gpt2flow.export.quantization.sensitivity import (  # noqa: PLC0415 - as above
        choose_kept,
        measure_sensitivity,
    )

    # The head is larger than any budget.
    layers = {name: quantized for name, quantized in blocks.items() if name != HEAD}
    divergence = measure_sensitivity(
        LayerwiseModel(source),
        _first(windows, _SENSITIVITY_TOKENS),
        layers,
        lambda done, total: report("sensitivity", done, total),
    )
    # In 8 bits, a matrix has twice the bytes.
    extra = {name: quantized.data.nbytes for name, quantized in layers.items()}
    return choose_kept(divergence, extra, int(recipe.kept_share * sum(extra.values())))


def _first(windows: Sequence[TokenArray], tokens: int) -> list[TokenArray]:
    """Return windows from the start, the last one cut, that have so many tokens together."""
    ends = np.cumsum([len(window) for window in windows])
    rest = tokens - np.concatenate([[0], ends[:-1]])
    return [window[:room] for window, room in zip(windows, rest, strict=True) if room > 1]
