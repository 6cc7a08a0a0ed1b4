"""Manifest of a bundle, built from the results of its export."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.graph.head_padding import padded_head_size
from gpt2flow.export.recipe import KvCache, Profile, ProfileRecipe, Storage
from gpt2flow.export.verification.optimum_graph import PACKAGE
from gpt2flow.server.bundle.manifest import (
    HubModel,
    Manifest,
    ModelShape,
    OperatorRecipe,
    Quality,
    Recipe,
    Source,
    file_sha256,
)

_TOOLS: Final = (
    "gpt2flow",
    "onnx",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
)


def describe_recipe(
    profile: Profile,
    recipe: ProfileRecipe,
    storage: Mapping[str, Storage],
    kept: frozenset[str],
    calibration: str | None,
) -> Recipe:
    """Return the manifest's record of how a serving graph is stored.

    Args:
        profile: Profile of the bundle.
        recipe: Recipe that the graph was written by.
        storage: Storage format of each node's matrix.
        kept: Names of the matrices that mixed precision keeps in 8 bits.
        calibration: Name and hash of the calibration text, None without calibration.
    """
    return Recipe(
        profile=profile,
        kv_cache=recipe.kv_cache,
        default_bits=recipe.body.bits,
        block_size=recipe.body.block_size,
        method=recipe.method if recipe.quantized else None,
        kept=sorted(kept),
        calibration=calibration,
        operators={
            name: OperatorRecipe(bits=stored.bits, block_size=stored.block_size)
            for name, stored in storage.items()
        },
    )


def describe_reference(recipe: ProfileRecipe) -> Recipe:
    """Return the manifest's record of how Optimum's graph is stored."""
    return Recipe(profile=Profile.REFERENCE, kv_cache=KvCache.FP32, default_bits=recipe.body.bits)


def describe_bundle(
    directory: Path,
    source: Checkpoint,
    models: Sequence[HubModel],
    recipe: Recipe,
    quality: Quality | None,
) -> Manifest:
    """Return the manifest of a bundle.

    Args:
        directory: Directory of the bundle, complete but for the manifest; every file is hashed.
        source: Checkpoint that the bundle was made from.
        models: Models of a hub that it comes from.
        recipe: Storage of weights and cache.
        quality: Measured quality, None if it was not measured.
    """
    architecture = source.architecture
    return Manifest(
        created_by={tool: version(tool) for tool in _tools(recipe)},
        source=Source(
            checkpoint_sha256=source.sha256, parameters=source.parameters, models=list(models)
        ),
        recipe=recipe,
        shape=ModelShape(
            layers=architecture.layers,
            heads=architecture.heads,
            head_size=padded_head_size(architecture),
            hidden_size=architecture.hidden_size,
            context_length=architecture.context_length,
            vocabulary_size=architecture.vocabulary_size,
            eos_token_ids=list(source.special_ids.eos),
            bos_token_id=source.special_ids.bos,
        ),
        quality=quality,
        training=source.training,
        warnings=list(source.warnings),
        files={path.name: file_sha256(path) for path in sorted(directory.iterdir())},
    )


def _tools(recipe: Recipe) -> list[str]:
    """Return the packages that a bundle is made with, in alphabetical order."""
    optimum = [PACKAGE] if recipe.profile == Profile.REFERENCE else []
    return sorted([*_TOOLS, *optimum])
