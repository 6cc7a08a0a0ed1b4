"""Checkpoint of a GPT-2: a directory in Hugging Face's format."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME, Architecture, find_activation
from gpt2flow.export.checkpoint.vocabulary import read_vocabulary
from gpt2flow.export.checkpoint.weight_files import find_weight_files
from gpt2flow.export.errors import CheckpointError
from gpt2flow.files.documents import read_json, read_object
from gpt2flow.server.bundle.manifest import file_sha256

if TYPE_CHECKING:
    from gpt2flow.export.checkpoint.weights import Weights

GENERATION_CONFIG_NAME: Final = "generation_config.json"
_TRAINING_NAME: Final = "training.json"
# Configuration file of OpenAI's original format.
_OPENAI_NAME: Final = "hparams.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Checkpoint whose configuration, vocabulary and weights are consistent.

    Attributes:
        directory: Directory of the checkpoint.
        architecture: Architecture of the model.
        weights: Weights of the model, all of the expected shape and finite.
        tokenizer: Tokenizer of the model.
        tokenizer_json: Bytes of `tokenizer.json`, either read or built from older files.
        generation_config: Content of `generation_config.json`, or its defaults.
        training: Content of `training.json`, empty if there is no such file.
        sha256: Hash of the lines that `sha256sum` prints for configuration, vocabulary and
            weights, in the order of the files' names.
    """

    directory: Path
    architecture: Architecture
    weights: "Weights"
    tokenizer: Tokenizer
    tokenizer_json: bytes
    generation_config: dict[str, Any]
    training: dict[str, Any]
    sha256: str

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
        raise CheckpointError(f"{directory} is not a directory")
    if not (directory / CONFIG_NAME).is_file():
        hint = f"; {_OPENAI_NAME} is in OpenAI's own format; convert it first"
        raise CheckpointError(
            f"{directory / CONFIG_NAME} is missing"
            + (hint if (directory / _OPENAI_NAME).is_file() else "")
        )
    architecture = Architecture.from_config(read_json(directory / CONFIG_NAME, CheckpointError))
    find_activation(architecture.activation_function)
    vocabulary = read_vocabulary(directory, architecture)
    end = architecture.eos_token_id
    if vocabulary.tokenizer.id_to_token(end) is None:
        raise CheckpointError(
            f"{CONFIG_NAME}: eos_token_id is {end}; the vocabulary has no token of that id"
        )
    files = find_weight_files(directory)
    # Importing torch takes seconds, so all cheaper checks come first.
    from gpt2flow.export.checkpoint.weights import open_weights  # noqa: PLC0415 - as above

    return Checkpoint(
        directory=directory,
        architecture=architecture,
        weights=open_weights(files, architecture),
        tokenizer=vocabulary.tokenizer,
        tokenizer_json=vocabulary.json,
        generation_config=_generation_config(directory, architecture),
        training=read_object(directory / _TRAINING_NAME, CheckpointError),
        sha256=_hash_files([directory / CONFIG_NAME, *vocabulary.files, *files.paths]),
    )


def _generation_config(directory: Path, architecture: Architecture) -> dict[str, Any]:
    defaults = {
        "bos_token_id": architecture.bos_token_id,
        "eos_token_id": architecture.eos_token_id,
    }
    return read_object(directory / GENERATION_CONFIG_NAME, CheckpointError) or defaults


def _hash_files(files: list[Path]) -> str:
    lines = [f"{file_sha256(file)}  {file.name}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
