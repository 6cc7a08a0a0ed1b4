"""Checkpoints: written whole or not at all, found again after a kill."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from gpt2flow.training.errors import OutputError
from gpt2flow.training.model.evaluation import Evaluation
from gpt2flow.training.text.vocabulary import save_vocabulary

_PREFIX = "step-"
_TRAINER = "trainer"


@dataclass
class TrainerState:
    """What training needs beside the weights to go on as if nothing had happened."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def evaluation(self) -> Evaluation | None:
        """The latest evaluation."""
        if not self.history:
            return None
        return Evaluation.model_validate({k: v for k, v in self.history[-1].items() if k != "step"})


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a directory to write into, which becomes `path` when all is written.

    A `path` that is there already is replaced.
    """
    draft = path.with_name(f".{path.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    for file in draft.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    shutil.rmtree(path, ignore_errors=True)
    draft.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def save_model(directory: Path, model: GPT2LMHeadModel, tokenizer: Tokenizer) -> None:
    """Write model and vocabulary as transformers loads them."""
    model.save_pretrained(directory, safe_serialization=True)
    save_vocabulary(tokenizer, directory, model.config.n_positions)


def save_checkpoint(
    folder: Path,
    tokenizer: Tokenizer,
    model: GPT2LMHeadModel,
    optimizer: torch.optim.Optimizer,
    state: TrainerState,
) -> None:
    """Write `folder/step-N`, then deletes the older ones."""
    path = folder / f"{_PREFIX}{state.step:07d}"
    with atomic_directory(path) as draft:
        save_model(draft, model, tokenizer)
        trainer = draft / _TRAINER
        trainer.mkdir()
        torch.save(optimizer.state_dict(), trainer / "optimizer.pt")
        torch.save(torch.get_rng_state(), trainer / "rng.pt")
        (trainer / "state.json").write_text(json.dumps(vars(state)), encoding="utf-8")
    for older in folder.glob(f"{_PREFIX}*"):
        if older != path:
            shutil.rmtree(older)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder."""
    return max(folder.glob(f"{_PREFIX}*"), default=None)


def load_checkpoint(
    path: Path, model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer
) -> TrainerState:
    """Put model, optimizer and torch's random generator back to where they were.

    Raises:
        OutputError: the checkpoint cannot be read.
    """
    try:
        weights = GPT2LMHeadModel.from_pretrained(path).state_dict()
        model.load_state_dict(weights)
        optimizer.load_state_dict(torch.load(path / _TRAINER / "optimizer.pt"))
        torch.set_rng_state(torch.load(path / _TRAINER / "rng.pt"))
        state = json.loads((path / _TRAINER / "state.json").read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{path}: cannot resume from it: {error}") from error
    return TrainerState(**state)
