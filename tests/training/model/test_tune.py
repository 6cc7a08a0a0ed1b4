"""Tuning keeps the best trial and skips finished ones."""

import json
import math
from pathlib import Path

import pytest

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.evaluation import Evaluation
from gpt2flow.training.model.loop import fit, planned_steps
from gpt2flow.training.model.tune import sample_trial, tune
from gpt2flow.training.pipeline import train
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def corpora(documents: list[str]) -> tuple[EncodedCorpus, EncodedCorpus]:
    vocabulary = train_vocabulary(documents, 300)
    return encode(documents[:500], vocabulary), encode(documents[500:560], vocabulary)


def test_the_trial_with_the_lowest_loss_wins(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    """Trial 0 has a negligible learning rate and loses."""
    config = tiny.changed(learning_rate=1e-7, seed=3, epochs=4)
    best = tune(*corpora, config, 4, results=tmp_path / "tune.json")
    trials = json.loads((tmp_path / "tune.json").read_text())
    assert len(trials) == 4
    assert trials[0]["changes"] == {}
    winner = min(trials, key=lambda trial: trial["loss"])
    assert best == config.changed(**winner["changes"])
    assert best != config
    _, state = fit(*corpora, best, steps=winner["steps"])
    assert isinstance(state.evaluation, Evaluation)
    assert state.evaluation.loss == pytest.approx(winner["loss"])


def test_finished_trials_are_not_run_again(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    results = tmp_path / "tune.json"
    tune(*corpora, tiny, 2, results=results)
    first = json.loads(results.read_text())
    first[1]["loss"] = -1.0
    results.write_text(json.dumps(first))
    best = tune(*corpora, tiny, 3, results=results)
    assert best == tiny.changed(**first[1]["changes"])
    assert json.loads(results.read_text())[:2] == first
    assert len(json.loads(results.read_text())) == 3


def test_a_diverging_trial_loses(
    corpora: tuple[EncodedCorpus, EncodedCorpus], tiny: TrainingConfig, tmp_path: Path
) -> None:
    results = tmp_path / "tune.json"
    steps = max(1, round(planned_steps(corpora[0], tiny) * 0.05))
    results.write_text(json.dumps([{"changes": {}, "steps": steps, "loss": math.inf}]))
    assert tune(*corpora, tiny, 2, results=results) == tiny.changed(**sample_trial(tiny, 1))
    wild = tiny.changed(learning_rate=1e18)
    tune(*corpora, wild, 1, results=tmp_path / "wild.json")
    (trial,) = json.loads((tmp_path / "wild.json").read_text())
    assert trial["loss"] == math.inf


def test_trials_have_about_the_same_number_of_weights(tiny: TrainingConfig) -> None:
    config = tiny.changed(layers=6, width=256, heads=8)
    for number in range(50):
        trial = config.changed(**sample_trial(config, number))
        assert trial.layers * trial.width**2 == pytest.approx(6 * 256**2, rel=0.25)
        assert sample_trial(config, number) == sample_trial(config, number)


def test_a_run_is_trained_with_the_best_settings(
    documents: list[str], tiny: TrainingConfig, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(documents[:300]), encoding="utf-8")
    config = tiny.changed(learning_rate=1e-7)
    facts = train([corpus], tmp_path / "out", config, tune_trials=3)
    trials = json.loads((tmp_path / "out" / "tune.json").read_text())
    best = min(trials, key=lambda trial: trial["loss"])
    assert facts["config"] == config.changed(**best["changes"]).model_dump()
