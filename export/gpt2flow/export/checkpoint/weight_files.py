"""Weight files of a checkpoint: one file, or shards with an index."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpt2flow.export.checkpoint.hints import directory_hint
from gpt2flow.export.errors import CheckpointError
from gpt2flow.files.documents import read_object

WEIGHT_NAMES: Final = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in one file, in transformers' order of precedence."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Files that hold the weights of a checkpoint.

    Attributes:
        paths: Paths of the files; shards are in the order of their names.
        weight_map: Name of the shard for each tensor, as listed by the index; empty without one.
    """

    paths: list[Path]
    weight_map: Mapping[str, str] = field(default_factory=dict)


def find_weight_files(directory: Path) -> WeightFiles:
    """Return the weight files of a checkpoint.

    Raises:
        CheckpointError: There are none, or an index names a shard that does not exist.
    """
    for name in WEIGHT_NAMES:
        if (directory / name).is_file():
            return WeightFiles([directory / name])
        index = directory / index_name(name)
        if index.is_file():
            return _find_shards(index)
    names = ", no ".join(WEIGHT_NAMES)
    raise CheckpointError(
        f"{directory} has no weights: no {names}, and no shards of either"
        f"{directory_hint(directory)}"
    )


def index_name(name: str) -> str:
    """Return the name of a sharded weight file's index."""
    return f"{name}.index.json"


def read_weight_map(index: Path) -> dict[str, str]:
    """Return the name of the shard for each tensor.

    Raises:
        CheckpointError: The index is damaged, or names a file in another directory.
    """
    weight_map = read_object(index, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} is not an index of shards: it has no weight_map")
    for tensor, name in weight_map.items():
        # Checkpoints are untrusted input: an index must not reach files outside its directory.
        if not isinstance(name, str) or name in {"", ".", ".."} or Path(name).name != name:
            raise CheckpointError(
                f"{index}: {tensor} is in {name!r}, which is not the name of a file beside it"
            )
    return weight_map


def _find_shards(index: Path) -> WeightFiles:
    weight_map = read_weight_map(index)
    shards = [index.parent / name for name in sorted(set(weight_map.values()))]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing; {index.name} names it")
    return WeightFiles(shards, weight_map)
