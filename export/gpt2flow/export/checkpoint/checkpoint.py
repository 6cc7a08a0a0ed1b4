"""Checkpoint of a GPT-2: a directory in Hugging Face's format."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer

from gpt2flow.export.checkpoint.architecture import (
    CONFIG_NAME,
    Architecture,
    complete_config,
    find_activation,
)
from gpt2flow.export.checkpoint.hints import ADAPTER_CONFIG_NAME, directory_hint, file_hint
from gpt2flow.export.checkpoint.special_ids import (
    GENERATION_CONFIG_NAME,
    SpecialIds,
    find_special_ids,
    parse_generation_config,
)
from gpt2flow.export.checkpoint.vocabulary import Vocabulary, read_vocabulary
from gpt2flow.export.checkpoint.weight_files import find_weight_files
from gpt2flow.export.errors import CheckpointError
from gpt2flow.files.documents import read_json, read_object
from gpt2flow.server.bundle.manifest import file_sha256

if TYPE_CHECKING:
    from gpt2flow.export.checkpoint.weights import Weights

_TRAINING_NAME: Final = "training.json"
# Most tokens that a warning lists.
_LISTED: Final = 5


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Checkpoint whose configuration, vocabulary and weights are consistent.

    Attributes:
        directory: Directory of the checkpoint.
        architecture: Architecture of the model.
        weights: Weights of the model, all of the expected shape and finite.
        config_json: Bytes of `config.json`, with the `model_type` that old ones lack.
        special_ids: Tokens that begin and end a text.
        tokenizer: Tokenizer of the model.
        tokenizer_json: Bytes of `tokenizer.json`, either read or built from older files.
        generation_config: Content of `generation_config.json`, or its defaults.
        training: Content of `training.json`, empty if there is no such file.
        sha256: Hash of the lines that `sha256sum` prints for configuration, vocabulary and
            weights, in the order of the files' names.
        warnings: Lines about what was left out or assumed.
    """

    directory: Path
    architecture: Architecture
    config_json: bytes
    special_ids: SpecialIds
    weights: "Weights"
    tokenizer: Tokenizer
    tokenizer_json: bytes
    generation_config: dict[str, Any]
    training: dict[str, Any]
    sha256: str
    warnings: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of trained parameters; a tied head counts once."""
        return sum(math.prod(shape) for shape in self.architecture.weight_shapes().values())


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint and check that it is a complete GPT-2.

    Raises:
        CheckpointError: It is not; the message names the file, the field or the weight.
    """
    try:
        return _read(directory)
    except OSError as error:
        path = error.filename or directory
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _read(directory: Path) -> Checkpoint:
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory{file_hint(directory)}")
    if not (directory / CONFIG_NAME).is_file():
        raise CheckpointError(f"{directory / CONFIG_NAME} is missing{directory_hint(directory)}")
    config = read_json(directory / CONFIG_NAME, CheckpointError)
    architecture = Architecture.from_config(config)
    find_activation(architecture.activation_function)
    files = find_weight_files(directory)
    # Reading the vocabulary imports transformers, which takes seconds: cheaper checks come first.
    vocabulary = read_vocabulary(directory, architecture)
    special_ids = _special_ids(directory, config, architecture, vocabulary)
    # So does importing torch.
    from gpt2flow.export.checkpoint.weights import open_weights  # noqa: PLC0415 - as above

    weights = open_weights(files, architecture)
    return Checkpoint(
        directory=directory,
        architecture=architecture,
        config_json=_config_json(directory / CONFIG_NAME, config),
        special_ids=special_ids,
        weights=weights,
        tokenizer=vocabulary.tokenizer,
        tokenizer_json=vocabulary.json,
        generation_config=_generation_config(directory, special_ids),
        training=read_object(directory / _TRAINING_NAME, CheckpointError),
        sha256=_hash_files([directory / CONFIG_NAME, *vocabulary.files, *files.paths]),
        warnings=(
            *_warnings(directory, config, weights),
            *_vocabulary_warnings(architecture, vocabulary),
            *special_ids.warnings,
        ),
    )


def _special_ids(
    directory: Path, config: dict[str, Any], architecture: Architecture, vocabulary: Vocabulary
) -> SpecialIds:
    """Return the tokens that begin and end a text."""

    def has_token(token_id: int) -> bool:
        in_range = 0 <= token_id < architecture.vocabulary_size
        return in_range and vocabulary.tokenizer.id_to_token(token_id) is not None

    path = directory / GENERATION_CONFIG_NAME
    if path.is_file():
        stated = read_object(path, CheckpointError)
        eos, bos = parse_generation_config(stated)
        found = find_special_ids(path.name, eos, bos, has_token, stated.keys())
    else:
        eos, bos = architecture.eos_token_ids, architecture.bos_token_id
        found = find_special_ids(CONFIG_NAME, eos, bos, has_token, config.keys())
    return found if found.bos is not None else replace(found, bos=vocabulary.bos_token_id)


def _generation_config(directory: Path, special_ids: SpecialIds) -> dict[str, Any]:
    """Return the content of `generation_config.json`, made of the special ids without one."""
    if (directory / GENERATION_CONFIG_NAME).is_file():
        return read_object(directory / GENERATION_CONFIG_NAME, CheckpointError)
    eos = list(special_ids.eos)
    ids = {"bos_token_id": special_ids.bos, "eos_token_id": eos[0] if len(eos) == 1 else eos}
    return {name: value for name, value in ids.items() if value not in (None, [])}


def _config_json(path: Path, config: dict[str, Any]) -> bytes:
    """Return the bytes of `config.json`, completed if needed."""
    complete = complete_config(config)
    return path.read_bytes() if complete == config else json.dumps(complete, indent=2).encode()


def _warnings(directory: Path, config: dict[str, Any], weights: "Weights") -> Iterator[str]:
    if "model_type" not in config:
        yield f"{CONFIG_NAME}: model_type is missing; its other fields are of 'gpt2'"
    if weights.wrapper:
        yield f"the names of the weights start with {weights.wrapper!r}, which is left out"
    if (directory / ADAPTER_CONFIG_NAME).is_file():
        yield f"{ADAPTER_CONFIG_NAME}: the adapter beside the model is not exported"


def _vocabulary_warnings(architecture: Architecture, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield what only one of the tokenizer and the model has."""
    file, size = vocabulary.files[0].name, architecture.vocabulary_size
    if left_out := vocabulary.left_out:
        names = ", ".join(map(repr, left_out[:_LISTED])) + ", …" * (len(left_out) > _LISTED)
        yield f"{file}: tokens that the model of {size} entries lacks are left out: {names}"
    used = len(set(vocabulary.tokenizer.get_vocab(with_added_tokens=True).values()))
    if used < size:
        yield (
            f"{file} has {used} tokens, and the model {size} entries; those without a token are "
            "never produced"
        )


def _hash_files(files: list[Path]) -> str:
    lines = [f"{file_sha256(file)}  {file.name}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
