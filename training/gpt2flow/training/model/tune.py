"""Random search for hyper-parameters, on a short budget."""

import json
import random
from pathlib import Path
from typing import Any

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import TrainingError
from gpt2flow.training.model.checkpoints import write_atomically
from gpt2flow.training.model.loop import Watch, fit, planned_steps
from gpt2flow.training.text.encoding import EncodedCorpus

# Of the steps of the whole run, those that a trial takes.
_TRIAL_SHARE = 0.05
_HEAD_SIZE = 32


def tune(
    train: EncodedCorpus,
    valid: EncodedCorpus,
    config: TrainingConfig,
    trials: int,
    *,
    results: Path,
    watch: Watch = lambda _: None,
) -> TrainingConfig:
    """Search learning rate, weight decay, dropout, and depth against width.

    All trials have about the same number of weights and take the same number of
    steps, so that the run that follows costs what `config` would have cost.

    Args:
        train: what trials train on.
        valid: what they are judged on.
        config: the settings of the first trial, which the others vary.
        trials: how many.
        results: a JSON file, written after each trial; trials that it holds
            already are not run again.
        watch: called after each step of a trial.

    Returns:
        The settings with the lowest loss on `valid`.
    """
    steps = max(1, round(planned_steps(train, config) * _TRIAL_SHARE))
    done = _read(results)
    for number in range(trials):
        changes = draw_trial(config, number)
        key = {"changes": changes, "steps": steps}
        if any(trial.items() >= key.items() for trial in done):
            continue
        done.append({**key, "loss": _loss(train, valid, config.changed(**changes), steps, watch)})
        write_atomically(results, json.dumps(done, indent=2) + "\n")
    best = min(done[:trials], key=lambda trial: float(trial["loss"]))
    return config.changed(**best["changes"])


def draw_trial(config: TrainingConfig, number: int) -> dict[str, Any]:
    """Return the settings that a trial changes; trial 0 changes none."""
    if number == 0:
        return {}
    rng = random.Random(f"{config.seed} {number}")
    layers = max(1, round(config.layers * 2 ** rng.uniform(-1, 0.6)))
    # The weights of the layers are in proportion to layers × width².
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


def _loss(
    train: EncodedCorpus, valid: EncodedCorpus, config: TrainingConfig, steps: int, watch: Watch
) -> float:
    """The loss on `valid` after some steps; infinite if training broke down."""
    try:
        _, state = fit(train, valid, config, steps=steps, watch=watch)
    except TrainingError:
        return float("inf")
    assert state.evaluation is not None  # fit ends with one
    return state.evaluation.loss


def _read(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    done: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))
    return done
