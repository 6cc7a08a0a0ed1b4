"""Tuning keeps the best trial, prunes poor ones and skips finished ones."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import OutputError
from gpt2flow.training.model.loop import StepReport, fit, planned_steps
from gpt2flow.training.model.tune import sample_changes, tune
from gpt2flow.training.pipeline import train
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def corpora(documents: list[str]) -> tuple[EncodedCorpus, EncodedCorpus]:
    vocabulary = train_vocabulary(documents, 300)
    return encode(documents[:500], vocabulary), encode(documents[500:560], vocabulary)


def load_study(storage: Path) -> optuna.Study:
    return optuna.load_study(study_name="gpt2flow", storage=f"sqlite:///{storage}")


def test_the_trial_with_the_lowest_loss_wins(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    """Trial 0 has a negligible learning rate and loses."""
    config = tiny.changed(learning_rate=1e-5, seed=3, epochs=4)
    best = tune(*corpora, config, 4, storage=tmp_path / "tune.db")
    study = load_study(tmp_path / "tune.db")
    assert len(study.trials) == 4
    assert study.trials[0].params["learning_rate_factor"] == 1.0
    winner = study.best_trial
    assert best == config.changed(**winner.user_attrs["changes"])
    assert best.learning_rate > config.learning_rate
    steps = max(1, round(planned_steps(corpora[0], config) * 0.05))
    every = max(1, steps // 5)
    _, state = fit(*corpora, best.changed(save_every=every), steps=steps)
    assert state.evaluation is not None
    assert state.evaluation.loss == pytest.approx(winner.value)


def test_finished_trials_are_not_run_again(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    storage = tmp_path / "tune.db"
    tune(*corpora, tiny, 2, storage=storage)
    first = [trial.datetime_complete for trial in load_study(storage).trials]
    reports: list[StepReport] = []
    tune(*corpora, tiny, 2, storage=storage, on_progress=reports.append)
    assert reports == []
    tune(*corpora, tiny, 3, storage=storage, on_progress=reports.append)
    assert reports
    assert [trial.datetime_complete for trial in load_study(storage).trials][:2] == first
    assert len(load_study(storage).trials) == 3


def test_a_diverging_trial_fails_and_the_run_keeps_its_settings(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    wild = tiny.changed(learning_rate=1e18)
    assert tune(*corpora, wild, 1, storage=tmp_path / "wild.db") == wild
    (trial,) = load_study(tmp_path / "wild.db").trials
    assert trial.state is TrialState.FAIL


def test_a_poor_trial_is_pruned(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    """The fourth trial learns nothing, and is worse than the median."""
    storage, config = tmp_path / "tune.db", tiny.changed(epochs=8)
    tune(*corpora, config, 3, storage=storage)
    worst = {"layers": config.layers, "learning_rate_factor": 0.2, "dropout": 0.1}
    load_study(storage).enqueue_trial(worst)
    reports: list[StepReport] = []
    tune(*corpora, config, 4, storage=storage, on_progress=reports.append)
    pruned = [t for t in load_study(storage).trials if t.state is TrialState.PRUNED]
    assert len(pruned) == 1
    assert len(reports) < reports[0].steps


def test_a_storage_that_cannot_be_opened_is_named(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    storage = tmp_path / "tune.db"
    storage.write_text("no database, and long enough to be told from one" * 20)
    with pytest.raises(OutputError, match=r"tune\.db"):
        tune(*corpora, tiny, 1, storage=storage)


def test_trials_have_about_the_same_number_of_weights(tiny: TrainingConfig) -> None:
    config = tiny.changed(layers=6, width=256, heads=8)
    for layers in range(3, 10):
        fixed = {"layers": layers, "learning_rate_factor": 1.0, "weight_decay": 0.1, "dropout": 0.0}
        trial = config.changed(**sample_changes(optuna.trial.FixedTrial(fixed), config))
        assert trial.layers == layers
        assert trial.layers * trial.width**2 == pytest.approx(6 * 256**2, rel=0.25)


def test_a_run_is_trained_with_the_best_settings(
    documents: list[str], tiny: TrainingConfig, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(documents[:300]), encoding="utf-8")
    config = tiny.changed(learning_rate=1e-5)
    facts = train([corpus], tmp_path / "out", config, tune_trials=3)
    best = load_study(tmp_path / "out" / "tune.db").best_trial
    assert facts["config"] == config.changed(**best.user_attrs["changes"]).model_dump()
