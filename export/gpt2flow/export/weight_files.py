"""Where the weights of a checkpoint lie."""

import json
from pathlib import Path
from typing import Final

from gpt2flow.export.errors import CheckpointError, one_line

_SINGLE_FILES: Final = ("model.safetensors", "pytorch_model.bin")


def weight_files(directory: Path) -> list[Path]:
    """Returns the weight files of a checkpoint, shards in the order of their names.

    Raises:
        CheckpointError: There are none, or an index names a shard that is not there.
    """
    for name in _SINGLE_FILES:
        if (directory / name).is_file():
            return [directory / name]
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    names = ", no ".join(_SINGLE_FILES)
    raise CheckpointError(f"{directory} has no weights: no {names}, and no shards of either")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {one_line(error)}") from error
    shards = [index.parent / name for name in names]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing; {index.name} names it")
    return shards
