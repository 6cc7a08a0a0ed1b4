"""Inspection of a finished bundle: manifest, sizes, operators.

Needs neither torch nor onnx; without onnx, operators are not counted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt2flow.native import load_operators
from gpt2flow.server.bundle.manifest import MODEL_NAME, Manifest, OperatorRecipe, load_bundle


@dataclass(frozen=True, slots=True)
class Inspection:
    """A bundle whose files match its manifest.

    Attributes:
        directory: Directory of the bundle.
        fingerprint: Hash of the manifest, by which the server identifies the bundle.
        manifest: Manifest of the bundle.
        sizes: Size in bytes of every file but the manifest, by file name.
        storage: Number of nodes per way of storing a matrix; nodes that share a matrix all count.
        operators: Number of nodes per operator, None if onnx is not installed.
        kernels: Kernels that the operators would run on here.
    """

    directory: Path
    fingerprint: str
    manifest: Manifest
    sizes: dict[str, int]
    storage: dict[str, int]
    operators: dict[str, int] | None
    kernels: str

    def as_json(self) -> dict[str, Any]:
        """Return the inspection as JSON-serializable types."""
        return {
            "directory": str(self.directory),
            "fingerprint": self.fingerprint,
            "manifest": self.manifest.model_dump(mode="json"),
            "sizes": self.sizes,
            "storage": self.storage,
            "operators": self.operators,
            "kernels": self.kernels,
        }


def inspect_bundle(directory: Path) -> Inspection:
    """Read a bundle and verify the hash of every file.

    Raises:
        BundleError: The bundle is missing, damaged or of another format; the message names the
            file.
    """
    bundle = load_bundle(directory)
    recipes = bundle.manifest.recipe.operators.values()
    return Inspection(
        directory=directory,
        fingerprint=bundle.fingerprint,
        manifest=bundle.manifest,
        sizes={name: (directory / name).stat().st_size for name in bundle.manifest.files},
        storage=dict(Counter(_describe_storage(recipe) for recipe in recipes)),
        operators=_count_operators(directory / MODEL_NAME),
        kernels=str(load_operators()),
    )


def _describe_storage(recipe: OperatorRecipe) -> str:
    """Return a short description of how a matrix is stored."""
    if recipe.block_size is not None:
        return f"{recipe.bits} bits in blocks of {recipe.block_size}"
    return f"fp{recipe.bits}"


def _count_operators(model: Path) -> dict[str, int] | None:
    if find_spec("onnx") is None:
        return None
    import onnx  # noqa: PLC0415 - not in the `server` extra

    graph = onnx.load(model, load_external_data=False).graph
    return dict(Counter(_operator_types(graph)).most_common())


def _operator_types(graph: Any) -> Iterator[str]:
    """Yield the operator of every node in a graph and its subgraphs."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operator_types(attribute.g)
