"""Mean of the weights of several checkpoints."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gpt2flow.files.atomic import TargetError, atomic_directory
from gpt2flow.files.documents import read_object
from gpt2flow.training.errors import ConfigError, OutputError

_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer.json"
_FACTS = "training.json"
# The metadata that transformers requires.
_METADATA = {"format": "pt"}


def average_checkpoints(checkpoints: Sequence[Path], out: Path) -> int:
    """Write a checkpoint whose weights are the mean of those of others.

    The mean of checkpoints along one way of training often generalizes better than the last of
    them (Izmailov et al. 2018, arXiv:1803.05407). Everything but the weights is the last one's.

    Args:
        checkpoints: Directories of at least two checkpoints with the same sizes and vocabulary.
        out: Directory to write; it must not exist.

    Returns:
        The number of parameters.

    Raises:
        ConfigError: The checkpoints are fewer than two, unreadable, or do not fit together.
        OutputError: The directory exists, or cannot be written.
    """
    if len(checkpoints) < 2:
        raise ConfigError(f"{len(checkpoints)} checkpoints, and a mean needs at least two")
    last = checkpoints[-1]
    every = [_load(path) for path in checkpoints]
    for path, weights in zip(checkpoints, every, strict=True):
        _check_fit(path, weights, last, every[-1])
    mean = {
        name: torch.stack([weights[name].float() for weights in every]).mean(0).contiguous()
        for name in every[-1]
    }
    facts = read_object(last / _FACTS, ConfigError)
    facts["averaged_sha256"] = [_digest(path / _WEIGHTS) for path in checkpoints]
    try:
        with atomic_directory(out) as directory:
            for file in last.iterdir():
                if file.is_file() and file.name not in (_WEIGHTS, _FACTS):
                    shutil.copy2(file, directory / file.name)
            save_file(mean, directory / _WEIGHTS, metadata=_METADATA)
            text = json.dumps(facts, indent=2, ensure_ascii=False)
            (directory / _FACTS).write_text(text, encoding="utf-8")
    except (TargetError, OSError) as error:
        raise OutputError(str(error)) from error
    return sum(weight.numel() for weight in mean.values())


def _load(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path / _WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: no readable {_WEIGHTS}: {error}") from error


def _check_fit(path: Path, weights: dict[str, Any], last: Path, model: dict[str, Any]) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    if shapes != {name: tuple(weight.shape) for name, weight in model.items()}:
        raise ConfigError(f"{path} has other sizes than {last}")
    if _digest(path / _TOKENIZER) != _digest(last / _TOKENIZER):
        raise ConfigError(f"{path} has another vocabulary than {last}")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
