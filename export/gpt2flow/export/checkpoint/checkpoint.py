"""A GPT-2 checkpoint in Hugging Face's format: a directory with its configuration and weights."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME, Architecture, find_activation
from gpt2flow.export.checkpoint.vocabulary import read_vocabulary
from gpt2flow.export.checkpoint.weight_files import weight_files
from gpt2flow.export.errors import CheckpointError
from gpt2flow.files.documents import read_json, read_object
from gpt2flow.server.bundle.manifest import file_sha256

if TYPE_CHECKING:
    from gpt2flow.export.checkpoint.weights import Weights

GENERATION_CONFIG_NAME: Final = "generation_config.json"
_TRAINING_NAME: Final = "training.json"
# What a checkpoint in OpenAI's own format has in place of a configuration.
_OPENAI_NAME: Final = "hparams.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose configuration, vocabulary and weights fit together.

    Attributes:
        directory: Where it lies.
        architecture: The shape of the model.
        weights: Its weights; every one has the right shape and finite numbers.
        tokenizer: Its vocabulary.
        tokenizer_json: The bytes of the `tokenizer.json` that it has, or that was made of older
            files.
        generation_config: What `generation_config.json` holds, or would hold.
        training: The facts of `training.json`, none if there is no such file.
        sha256: Hash of what `sha256sum` prints for configuration, vocabulary and weights, in the
            order of their names.
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
        """How many numbers were trained; those of a tied head count once."""
        return sum(math.prod(shape) for shape in self.architecture.weight_shapes().values())


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint and checks that it is a whole GPT-2.

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
        hint = f"; {_OPENAI_NAME} is of OpenAI's own format, which has to be converted first"
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
    files = weight_files(directory)
    # Torch takes seconds to import; what is wrong so far is told before.
    from gpt2flow.export.checkpoint.weights import open_weights  # noqa: PLC0415 - as the line above says

    return Checkpoint(
        directory=directory,
        architecture=architecture,
        weights=open_weights(files, architecture),
        tokenizer=vocabulary.tokenizer,
        tokenizer_json=vocabulary.json,
        generation_config=_generation_config(directory, architecture),
        training=read_object(directory / _TRAINING_NAME, CheckpointError),
        sha256=_hash([directory / CONFIG_NAME, *vocabulary.files, *files.paths]),
    )


def _generation_config(directory: Path, architecture: Architecture) -> dict[str, Any]:
    defaults = {
        "bos_token_id": architecture.bos_token_id,
        "eos_token_id": architecture.eos_token_id,
    }
    return read_object(directory / GENERATION_CONFIG_NAME, CheckpointError) or defaults


def _hash(files: list[Path]) -> str:
    lines = [f"{file_sha256(file)}  {file.name}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
