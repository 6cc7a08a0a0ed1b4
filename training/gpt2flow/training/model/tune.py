"""Search for hyper-parameters with short trials, by Optuna."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import BaseTrial, TrialState

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import OutputError, TrainingError
from gpt2flow.training.model.loop import ProgressCallback, StepReport, fit, planned_steps
from gpt2flow.training.text.encoding import EncodedCorpus

# Steps of a trial as a share of those of the full run.
_TRIAL_SHARE = 0.05
# Evaluations of a trial; a poor one is pruned at any of them but the first.
_EVALUATIONS = 5
# Trials that run to their end before any is pruned.
_UNPRUNED = 3
_HEAD_SIZE = 32
_STUDY = "gpt2flow"
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def tune(
    train: EncodedCorpus,
    valid: EncodedCorpus,
    config: TrainingConfig,
    trials: int,
    *,
    storage: Path,
    device: torch.device | None = None,
    on_progress: ProgressCallback = lambda _: None,
) -> TrainingConfig:
    """Search learning rate, weight decay, dropout, and depth against width.

    All trials have about the same number of weights and the same number of steps. The full run
    thus costs about as much with the best settings as with `config`. Trials that are worse than
    the median of the others at the same step are pruned.

    Args:
        train: Training set.
        valid: Validation set, whose loss ranks the trials.
        config: Settings of the first trial; the others vary them.
        trials: Number of trials, those in the storage included.
        storage: SQLite file of Optuna's study; trials in it are not run again.
        device: Device to train on; None is the CPU.
        on_progress: Callback after each step of a trial.

    Returns:
        The settings with the lowest validation loss; those of `config` if every trial diverged.

    Raises:
        OutputError: The storage cannot be opened.
    """
    study = _open_study(storage, config)
    steps = max(1, round(planned_steps(train, config) * _TRIAL_SHARE))
    every = max(1, steps // _EVALUATIONS)

    def run_trial(trial: optuna.Trial) -> float:
        changes = sample_changes(trial, config)
        trial.set_user_attr("changes", changes)
        _, state = fit(
            train,
            valid,
            # Pruning ends a poor trial; its loss is that of its last step.
            config.changed(**changes, save_every=every, patience=0),
            steps=steps,
            device=device,
            on_progress=_with_pruning(trial, on_progress),
        )
        assert state.evaluation is not None  # `fit` evaluates after its last step
        return state.evaluation.loss

    ended = sum(trial.state in _ENDED for trial in study.trials)
    if ended < trials:
        # A diverged trial fails, and the search goes on.
        study.optimize(run_trial, n_trials=trials - ended, catch=(TrainingError,))
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    return config.changed(**study.best_trial.user_attrs["changes"]) if complete else config


def sample_changes(trial: BaseTrial, config: TrainingConfig) -> dict[str, Any]:
    """Return the settings that a trial changes."""
    low, high = max(1, round(config.layers / 2)), max(1, round(config.layers * 1.5))
    layers = trial.suggest_int("layers", low, high)
    # Keeps the number of weights, which is proportional to layers × width².
    width = config.width * (config.layers / layers) ** 0.5
    heads = max(1, round(width / _HEAD_SIZE))
    shape = {"layers": layers, "width": heads * _HEAD_SIZE, "heads": heads}
    rate = trial.suggest_float("learning_rate_factor", 0.2, 3.0, log=True)
    return {
        "learning_rate": float(f"{config.learning_rate * rate:.2g}"),
        "weight_decay": trial.suggest_categorical("weight_decay", (0.1, 0.01, 0.0)),
        "dropout": trial.suggest_categorical("dropout", (0.0, 0.1)),
        **({} if layers == config.layers else shape),
    }


def _open_study(storage: Path, config: TrainingConfig) -> optuna.Study:
    """Open or make the study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=_STUDY,
            storage=f"sqlite:///{storage}",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=config.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=1),
        )
    except Exception as error:  # SQLAlchemy's, which optuna wraps in several ways
        raise OutputError(f"{storage}: {' '.join(str(error).split())[:200]}") from error
    if not study.trials:
        study.enqueue_trial({"layers": config.layers, "learning_rate_factor": 1.0, "dropout": 0.0})
    return study


def _with_pruning(
    trial: optuna.Trial, on_progress: ProgressCallback
) -> Callable[[StepReport], None]:
    """Return a callback that reports evaluations, and ends a poor trial."""
    evaluations = 0

    def report_step(report: StepReport) -> None:
        nonlocal evaluations
        on_progress(report)
        if report.is_evaluated and report.evaluation is not None:
            trial.report(report.evaluation.loss, evaluations)
            evaluations += 1
            if report.step < report.steps and trial.should_prune():
                raise optuna.TrialPruned

    return report_step
