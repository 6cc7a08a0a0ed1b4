"""Random search for hyper-parameters with short trials."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel

from gpt2flow.files.atomic import write_atomically
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import TrainingError
from gpt2flow.training.model.checkpoints import TrainerState
from gpt2flow.training.model.loop import ProgressCallback, fit, planned_steps
from gpt2flow.training.text.encoding import EncodedCorpus

# Steps of a trial as a share of those of the full run.
_TRIAL_SHARE = 0.05
_HEAD_SIZE = 32


def tune(
    train: EncodedCorpus,
    valid: EncodedCorpus,
    config: TrainingConfig,
    trials: int,
    *,
    results: Path,
    device: torch.device | None = None,
    on_progress: ProgressCallback = lambda _: None,
) -> TrainingConfig:
    """Search learning rate, weight decay, dropout, and depth against width.

    All trials have about the same number of weights and the same number of steps. The full run
    thus costs about as much with the best settings as with `config`.

    Args:
        train: Training set.
        valid: Validation set, whose loss ranks the trials.
        config: Settings of the first trial; the others vary them.
        trials: Number of trials.
        results: JSON file of finished trials, rewritten after each one. Trials in it are not
            run again.
        device: Device to train on; None is the CPU.
        on_progress: Callback after each step of a trial.

    Returns:
        The settings with the lowest validation loss.
    """
    steps = max(1, round(planned_steps(train, config) * _TRIAL_SHARE))
    done = _read_trials(results)
    for number in range(trials):
        changes = sample_trial(config, number)
        key = {"changes": changes, "steps": steps}
        if any(trial.items() >= key.items() for trial in done):
            continue
        run = partial(fit, train, valid, config.changed(**changes), steps=steps, device=device)
        loss = _run_trial(partial(run, on_progress=on_progress))
        done.append({**key, "loss": loss})
        write_atomically(results, json.dumps(done, indent=2) + "\n")
    best = min(done[:trials], key=lambda trial: float(trial["loss"]))
    return config.changed(**best["changes"])


def sample_trial(config: TrainingConfig, number: int) -> dict[str, Any]:
    """Return the settings that a trial changes.

    They depend on `config` and `number` alone. Trial 0 changes none.
    """
    if number == 0:
        return {}
    rng = random.Random(f"{config.seed} {number}")
    layers = max(1, round(config.layers * 2 ** rng.uniform(-1, 0.6)))
    # Keeps the number of weights, which is proportional to layers × width².
    width = config.width * (config.layers / layers) ** 0.5
    heads = max(1, round(width / _HEAD_SIZE))
    return {
        "learning_rate": float(f"{config.learning_rate * 10 ** rng.uniform(-0.7, 0.5):.2g}"),
        "weight_decay": rng.choice((0.0, 0.01, 0.1)),
        "dropout": rng.choice((0.0, 0.0, 0.1)),
        "layers": layers,
        "width": heads * _HEAD_SIZE,
        "heads": heads,
    }


def _run_trial(run: Callable[[], tuple[GPT2LMHeadModel, TrainerState]]) -> float:
    """Train, and return the validation loss, infinite on divergence."""
    try:
        _, state = run()
    except TrainingError:
        return float("inf")
    assert state.evaluation is not None  # `fit` evaluates after its last step
    return state.evaluation.loss


def _read_trials(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    done: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))
    return done
