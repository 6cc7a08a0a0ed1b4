"""What a finished bundle is: its manifest, sizes and operators. Needs neither torch nor onnx."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from gpt2flow.server.bundle.manifest import MODEL_NAME, Manifest, OperatorRecipe, load_bundle

_FP32_BITS: Final = 32


@dataclass(frozen=True, slots=True)
class Inspection:
    """A bundle whose files match its manifest.

    Attributes:
        directory: Where it lies.
        fingerprint: What the server calls it by: the hash of its manifest.
        manifest: Its manifest.
        sizes: Bytes of every file by name, the manifest's own left out.
        storage: How many nodes have a matrix that is stored in which way; some share theirs.
        operators: How many nodes of which kind its graph has; none where onnx is not installed.
    """

    directory: Path
    fingerprint: str
    manifest: Manifest
    sizes: dict[str, int]
    storage: dict[str, int]
    operators: dict[str, int] | None

    def as_json(self) -> dict[str, Any]:
        """Return all of it in types that JSON has."""
        return {
            "directory": str(self.directory),
            "fingerprint": self.fingerprint,
            "manifest": self.manifest.model_dump(mode="json"),
            "sizes": self.sizes,
            "storage": self.storage,
            "operators": self.operators,
        }


def inspect_bundle(directory: Path) -> Inspection:
    """Read a bundle and verifies the hash of every file.

    Raises:
        BundleError: It is missing, damaged or of another format; the message names the file.
    """
    bundle = load_bundle(directory)
    recipes = bundle.manifest.recipe.operators.values()
    return Inspection(
        directory=directory,
        fingerprint=bundle.fingerprint,
        manifest=bundle.manifest,
        sizes={name: (directory / name).stat().st_size for name in bundle.manifest.files},
        storage=dict(Counter(_describe(recipe) for recipe in recipes)),
        operators=_operators(directory / MODEL_NAME),
    )


def _describe(recipe: OperatorRecipe) -> str:
    if recipe.block_size is not None:
        return f"{recipe.bits} bits in blocks of {recipe.block_size}"
    return f"fp{recipe.bits}" if recipe.bits == _FP32_BITS else f"{recipe.bits} bits in columns"


def _operators(model: Path) -> dict[str, int] | None:
    if find_spec("onnx") is None:
        return None
    import onnx  # noqa: PLC0415 - not part of the server's extra

    graph = onnx.load(model, load_external_data=False).graph
    return dict(Counter(_operators_in(graph)).most_common())


def _operators_in(graph: Any) -> Iterator[str]:
    """Yield the operators of a graph and of the branches in it."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators_in(attribute.g)
