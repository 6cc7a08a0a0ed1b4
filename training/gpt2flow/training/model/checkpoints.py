"""Checkpoints of a training run, written atomically to survive a kill."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from gpt2flow.files.atomic import TargetError, atomic_directory
from gpt2flow.training.errors import OutputError
from gpt2flow.training.model.evaluation import Evaluation
from gpt2flow.training.model.model import no_progress_bars
from gpt2flow.training.model.optimizer import Optimizer, load_optimizer
from gpt2flow.training.text.vocabulary import save_vocabulary

_PREFIX = "step-"
_TRAINER = "trainer"


@dataclass
class TrainerState:
    """Progress of a run, stored in each checkpoint.

    Attributes:
        step: Number of finished steps.
        seconds: Time spent in them, evaluations excluded.
        tokens: Number of tokens processed, padding included.
        history: Step and figures of each evaluation, in order.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best_step(self) -> int | None:
        """First step with the lowest validation loss, None before an evaluation."""
        if not self.history:
            return None
        best: int = min(self.history, key=lambda entry: entry["loss"])["step"]
        return best

    def is_stalled(self, patience: int) -> bool:
        """Return whether the last `patience` evaluations were no better; 0 is never."""
        after = sum(1 for entry in self.history if entry["step"] > (self.best_step or 0))
        return patience > 0 and after >= patience

    @property
    def evaluation(self) -> Evaluation | None:
        """Latest evaluation, None before the first."""
        if not self.history:
            return None
        return Evaluation.model_validate({k: v for k, v in self.history[-1].items() if k != "step"})


def save_model(directory: Path, model: GPT2LMHeadModel, tokenizer: Tokenizer) -> None:
    """Write model and tokenizer in the Hugging Face format."""
    with no_progress_bars():
        model.save_pretrained(directory)
    save_vocabulary(tokenizer, directory, model.config.n_positions)


def save_checkpoint(
    directory: Path,
    tokenizer: Tokenizer,
    model: GPT2LMHeadModel,
    optimizer: Optimizer,
    state: TrainerState,
    *,
    keep_best: bool = False,
) -> None:
    """Write checkpoint `step-N` to a directory and delete the older ones.

    Args:
        directory: Directory of the checkpoints.
        tokenizer: Tokenizer to store with the model.
        model: Model.
        optimizer: Optimizer, whose state is stored too.
        state: Progress of the run.
        keep_best: Keep the checkpoint with the lowest validation loss, too.

    Raises:
        OutputError: The directory cannot be written.
    """
    path = _checkpoint_path(directory, state.step)
    kept = {path}
    if keep_best and state.best_step is not None:
        kept.add(_checkpoint_path(directory, state.best_step))
    try:
        with atomic_directory(path) as staging:
            save_model(staging, model, tokenizer)
            trainer = staging / _TRAINER
            trainer.mkdir()
            torch.save(optimizer.state_dict(), trainer / "optimizer.pt")
            torch.save(_random_states(), trainer / "rng.pt")
            (trainer / "state.json").write_text(json.dumps(vars(state)), encoding="utf-8")
    except TargetError as error:
        raise OutputError(str(error)) from error
    for older in directory.glob(f"{_PREFIX}*"):
        if older not in kept:
            shutil.rmtree(older)


def latest_checkpoint(directory: Path) -> Path | None:
    """Return the newest checkpoint in a directory, None if there is none."""
    return max(directory.glob(f"{_PREFIX}*"), default=None)


def load_best_weights(
    directory: Path, state: TrainerState, model: GPT2LMHeadModel
) -> dict[str, torch.Tensor] | None:
    """Return the weights of the checkpoint with the lowest validation loss.

    Args:
        directory: Directory of the checkpoints.
        state: Progress of the run; None is returned before its first evaluation.
        model: Model that the weights are for; its device receives them.

    Raises:
        OutputError: The checkpoint cannot be read.
    """
    if state.best_step is None:
        return None
    path = _checkpoint_path(directory, state.best_step)
    try:
        weights = _weights(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{path}: cannot resume from this checkpoint: {error}") from error
    return {name: weight.to(model.device) for name, weight in weights.items()}


def load_checkpoint(path: Path, model: GPT2LMHeadModel, optimizer: Optimizer) -> TrainerState:
    """Restore model, optimizer and torch's random generators, all in place.

    Returns:
        The progress of the run when the checkpoint was written.

    Raises:
        OutputError: The checkpoint cannot be read.
    """
    try:
        weights = _weights(path)
        model.load_state_dict(weights)
        states = torch.load(path / _TRAINER / "optimizer.pt", map_location=model.device)
        load_optimizer(optimizer, states)
        _restore_random_states(torch.load(path / _TRAINER / "rng.pt"))
        state = json.loads((path / _TRAINER / "state.json").read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{path}: cannot resume from this checkpoint: {error}") from error
    return TrainerState(**state)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    with no_progress_bars():
        weights: dict[str, torch.Tensor] = GPT2LMHeadModel.from_pretrained(path).state_dict()
    return weights


def _checkpoint_path(directory: Path, step: int) -> Path:
    return directory / f"{_PREFIX}{step:07d}"


def _random_states() -> list[torch.Tensor]:
    """Return the states of torch's generators: the CPU's, then each GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _restore_random_states(states: list[torch.Tensor]) -> None:
    """Restore the states of the generators that this machine has."""
    torch.set_rng_state(states[0])
    for device, state in zip(range(torch.cuda.device_count()), states[1:], strict=False):
        torch.cuda.set_rng_state(state, device)
