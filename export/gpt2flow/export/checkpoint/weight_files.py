"""Where the weights of a checkpoint lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpt2flow.export.errors import CheckpointError
from gpt2flow.files.documents import read_object

# Where a checkpoint has its weights in several formats, transformers too takes the first.
_SINGLE_FILES: Final = ("model.safetensors", "pytorch_model.bin")
# Other libraries' weights, which transformers converts.
_FOREIGN_FILES: Final = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that hold the weights of a checkpoint.

    Attributes:
        paths: The files, shards in the order of their names.
        places: The name of the shard that is to hold a tensor, by the tensor's name; empty where
            there are no shards.
    """

    paths: list[Path]
    places: Mapping[str, str] = field(default_factory=dict)


def weight_files(directory: Path) -> WeightFiles:
    """Return the weight files of a checkpoint.

    Raises:
        CheckpointError: There are none, or an index names a shard that is not there.
    """
    for name in _SINGLE_FILES:
        if (directory / name).is_file():
            return WeightFiles([directory / name])
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    names = ", no ".join(_SINGLE_FILES)
    foreign = [name for name in _FOREIGN_FILES if (directory / name).is_file()]
    hint = f"; {foreign[0]} has to be converted first" if foreign else ""
    raise CheckpointError(f"{directory} has no weights: no {names}, and no shards of either{hint}")


def _shards(index: Path) -> WeightFiles:
    places = read_object(index, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} is not an index of shards: it has no weight_map")
    for tensor, name in places.items():
        # A checkpoint is often somebody else's: it must not reach for files elsewhere.
        if not isinstance(name, str) or name in {"", ".", ".."} or Path(name).name != name:
            raise CheckpointError(
                f"{index}: {tensor} is in {name!r}, which is not the name of a file beside it"
            )
    shards = [index.parent / name for name in sorted(set(places.values()))]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing; {index.name} names it")
    return WeightFiles(shards, places)
