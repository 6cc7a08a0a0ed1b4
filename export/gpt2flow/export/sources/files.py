"""Files of checkpoints and adapters, by name."""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME
from gpt2flow.export.checkpoint.hints import ADAPTER_CONFIG_NAME
from gpt2flow.export.checkpoint.special_ids import GENERATION_CONFIG_NAME
from gpt2flow.export.checkpoint.weight_files import WEIGHT_NAMES, index_name
from gpt2flow.server.bundle.manifest import TOKENIZER_NAME

ADAPTER_WEIGHT_NAMES: Final = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of an adapter's weights, in PEFT's order of precedence."""

# Files that hold a vocabulary, and files that change what it means.
_VOCABULARIES: Final = (TOKENIZER_NAME, "vocab.json", "merges.txt", "vocab.txt")
_BESIDE: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SENTENCE_PIECE_SUFFIX: Final = ".model"
# Files of the training that wrote the checkpoint, and texts to measure it on.
_OTHERS: Final = (GENERATION_CONFIG_NAME, "training.json", "eval.txt", "calibration.txt")


def is_adapter(names: Collection[str]) -> bool:
    """Return whether a directory is an adapter without a model.

    Args:
        names: Names of its files.
    """
    weights = {each for name in WEIGHT_NAMES for each in (name, index_name(name))}
    return ADAPTER_CONFIG_NAME in names and not weights & set(names)


def is_small_file(name: str, names: Collection[str]) -> bool:
    """Return whether an export reads a file, other than weights.

    Args:
        name: Name of the file.
        names: Names of all files of its directory.
    """
    if name.endswith(_SENTENCE_PIECE_SUFFIX):
        return "/" not in name and TOKENIZER_NAME not in names
    return name in (CONFIG_NAME, ADAPTER_CONFIG_NAME, *_VOCABULARIES, *_BESIDE, *_OTHERS)


def copy_beside_weights(base: Path, adapter: Path, target: Path) -> None:
    """Copy tokenizer, texts and generation config of a merged model.

    An adapter's own files come before those of its base. Its tokenizer replaces all of the base's.
    """
    own_tokenizer = any(map(_is_vocabulary, adapter.iterdir()))
    for source in (base, adapter):
        for path in sorted(source.iterdir()):
            tokenizer = _is_vocabulary(path) or path.name in _BESIDE
            if tokenizer and own_tokenizer != (source == adapter):
                continue
            if tokenizer or path.name in _OTHERS:
                shutil.copyfile(path, target / path.name)


def _is_vocabulary(path: Path) -> bool:
    return path.name in _VOCABULARIES or path.suffix == _SENTENCE_PIECE_SUFFIX
