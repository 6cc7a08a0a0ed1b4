"""Accumulated gradients equal those of one batch; patience keeps the best weights."""

import random

import numpy as np
import pytest
import torch

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import ConfigError
from gpt2flow.training.model.batches import Batch
from gpt2flow.training.model.checkpoints import TrainerState
from gpt2flow.training.model.evaluation import evaluate
from gpt2flow.training.model.loop import StepReport, _update, fit, planned_steps
from gpt2flow.training.model.model import new_model
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

_WORDS = ("one", "two", "three", "four", "five", "once", "fish", "alive")


def _rhymes(count: int) -> EncodedCorpus:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(_WORDS, k=6)) for _ in range(count)]
    return encode(texts, train_vocabulary(texts, 280))


@pytest.fixture
def config(tiny: TrainingConfig) -> TrainingConfig:
    return tiny.changed(vocabulary_size=280, packed_share=0.0)


def test_accumulating_batches_equals_one_batch_of_them(config: TrainingConfig) -> None:
    """Batches of unequal numbers of targets would show a mean of means."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 280, (5, 16))
    mask = np.zeros(ids.shape, np.bool_)
    mask[0, 2:5] = mask[1, 1:] = mask[2, 2:] = True
    parts = [Batch(ids[:1], mask[:1]), Batch(ids[1:4], mask[1:4]), Batch(ids[4:], mask[4:])]

    def weights_after(batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
        torch.manual_seed(1)
        model = new_model(config, 0)
        # Plain descent shows the gradient; AdamW's first step shows little but its sign.
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        return _update(model, optimizer, batches, config), model.state_dict()

    loss, weights = weights_after(parts)
    expected_loss, expected = weights_after([Batch(ids, mask)])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)


def test_an_accumulated_run_takes_fewer_steps_over_the_same_tokens(config: TrainingConfig) -> None:
    corpus = _rhymes(200)
    accumulated = config.changed(accumulate_steps=4)
    assert planned_steps(corpus, accumulated) == -(-planned_steps(corpus, config) // 4)
    _, one = fit(corpus, corpus, config)
    _, other = fit(corpus, corpus, accumulated)
    assert other.step == planned_steps(corpus, accumulated)
    assert other.tokens == one.tokens


def test_patience_ends_a_run_and_keeps_the_weights_of_the_lowest_loss(
    config: TrainingConfig,
) -> None:
    config = config.changed(epochs=200, save_every=2, learning_rate=0.3, patience=3)
    corpus, valid = _rhymes(100), _rhymes(20)
    reports: list[StepReport] = []
    model, state = fit(corpus, valid, config, on_progress=reports.append)
    losses = [entry["loss"] for entry in state.history]
    assert state.step == reports[-1].step < reports[-1].steps
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    assert evaluate(model, valid, config).loss == pytest.approx(min(losses), rel=1e-6)


def test_without_patience_a_run_goes_to_its_end_with_its_last_weights(
    config: TrainingConfig,
) -> None:
    config = config.changed(epochs=20, save_every=2, learning_rate=0.3)
    corpus = _rhymes(100)
    model, state = fit(corpus, corpus, config)
    assert state.step == planned_steps(corpus, config)
    assert evaluate(model, corpus, config).loss == pytest.approx(state.history[-1]["loss"])


def test_an_equal_loss_is_no_better_one() -> None:
    history = [{"step": step, "loss": loss} for step, loss in ((2, 3.0), (4, 1.0), (6, 1.0))]
    state = TrainerState(step=6, history=history)
    assert state.best_step == 4
    assert state.is_stalled(1)
    assert not state.is_stalled(2)
    assert not state.is_stalled(0)
    assert not TrainerState().is_stalled(1)


@pytest.mark.parametrize("change", [{"accumulate_steps": 0}, {"patience": -1}])
def test_a_setting_out_of_range_is_named(config: TrainingConfig, change: dict[str, int]) -> None:
    (name,) = change
    with pytest.raises(ConfigError, match=f"field {name}: .* greater than"):
        config.changed(**change)
