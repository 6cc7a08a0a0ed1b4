"""Predictions of first actions are counted, named, and those of the model."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.evaluation import evaluate
from gpt2flow.training.model.loop import fit
from gpt2flow.training.reports.confusion import Prediction, review_turns, summarize
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

_ACTIONS = {"hello": "greet", "shoes please": "find_product", "my order": "find_order"}


def _turn(message: str, action: str) -> str:
    steps = f'{{"action":"{action}","query":"{message}"}}<|result|>ok<|act|>{{"action":"done"}}'
    return f"<|state|>guest<|user|>{message}<|act|>{steps}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary([_turn(*item) for item in _ACTIONS.items()] * 30, 300)


@pytest.fixture
def config(tiny: TrainingConfig) -> TrainingConfig:
    return tiny.changed(
        vocabulary_size=300, context_length=128, packed_share=0.0, learning_rate=0.01, epochs=60
    )


def _corpus(tokenizer: Tokenizer, *pairs: tuple[str, str]) -> EncodedCorpus:
    return encode([_turn(*pair) for pair in pairs], tokenizer)


def test_what_a_model_has_learned_wrongly_is_found(
    tokenizer: Tokenizer, config: TrainingConfig
) -> None:
    """Training on swapped labels decides the predictions."""
    swapped = [("hello", "greet"), ("shoes please", "find_order"), ("my order", "find_order")]
    trained = _corpus(tokenizer, *swapped * 10)
    model, _ = fit(trained, trained, config)
    valid = _corpus(tokenizer, *_ACTIONS.items())
    model.train()
    review = review_turns(model, valid, tokenizer, config)
    assert model.training
    assert review is not None
    assert set(review.actions) == set(_ACTIONS.values())
    assert {name: (each.turns, each.right) for name, each in review.actions.items()} == {
        "greet": (1, 1),
        "find_product": (1, 0),
        "find_order": (1, 1),
    }
    assert review.actions["find_product"].most_often == ("find_order", 1)
    (miss,) = review.misses
    assert miss.prompt == "<|state|>guest<|user|>shoes please<|act|>"
    assert miss.expected == '{"action":"find_product","query":"shoes please"}'
    assert miss.predicted.startswith('{"action":"find_')
    assert miss.predicted.endswith("…")
    evaluation = evaluate(model, valid, config)
    assert evaluation.first_actions == pytest.approx(2 / 3)


def test_the_share_of_right_turns_is_that_of_the_evaluation(
    tokenizer: Tokenizer, config: TrainingConfig
) -> None:
    """Models after few steps are right in some turns alone."""
    rng = np.random.default_rng(1)
    pairs = [tuple(rng.permutation(list(_ACTIONS.items()))[0]) for _ in range(40)]
    corpus = _corpus(tokenizer, *((str(a), str(b)) for a, b in pairs))
    for epochs in (2, 6, 12):
        torch.manual_seed(1)
        model, state = fit(corpus, corpus, config.changed(epochs=epochs))
        review = review_turns(model, corpus, tokenizer, config)
        assert review is not None
        assert state.evaluation is not None
        figures = review.actions.values()
        assert sum(each.turns for each in figures) == 40
        right = sum(each.right for each in figures)
        assert right / 40 == pytest.approx(state.evaluation.first_actions)


def test_ordinary_text_has_no_review(tokenizer: Tokenizer, config: TrainingConfig) -> None:
    corpus = encode(["shoes please hello", "my order hello"], tokenizer)
    model, _ = fit(corpus, corpus, config.changed(epochs=1))
    assert review_turns(model, corpus, tokenizer, config) is None


def _prediction(expected: str, predicted: str) -> Prediction:
    return Prediction("<|state|>", f'{{"action":"{expected}', f'{{"action":"{predicted}')


def test_a_miss_is_named_by_the_action_that_its_beginning_may_become() -> None:
    review = summarize(
        [
            *[_prediction('cart"}', 'cart"}')] * 3,
            *[_prediction('cancel_order","order":1}', 'cancel_order","order":1}')] * 2,
            # A beginning of two actions, of which one is more frequent.
            _prediction('greet"}', "ca…"),
            # A beginning of one.
            _prediction('greet"}', "can…"),
            # A whole name that is the beginning of no action.
            _prediction('greet"}', 'ca"…'),
            # No action starts like this.
            _prediction('greet"}', "zz…"),
            # The name is right, and a slot is wrong.
            _prediction('cancel_order","order":1}', 'cancel_order","order":2…'),
            Prediction("<|state|>", '{"action":"done"}', "?…"),
        ]
    )
    assert next(iter(review.actions)) == "greet"
    greet, cancel = review.actions["greet"], review.actions["cancel_order"]
    assert greet.taken_for == {"cart": 1, "cancel_order": 1, "ca": 1, "zz…": 1}
    assert (cancel.turns, cancel.right, cancel.wrong, cancel.wrong_slots) == (3, 2, 1, 1)
    assert cancel.most_often is None
    assert review.actions["done"].most_often == ("…", 1)
    assert len(review.misses) == 6


@pytest.mark.parametrize("misses, examples", [(0, 0), (1, 1), (20, 20), (21, 11), (399, 20)])
def test_examples_are_spread_over_all_misses(misses: int, examples: int) -> None:
    wrong = [Prediction(str(i), '{"action":"greet"}', '{"action":"x…') for i in range(misses)]
    found = summarize([_prediction('greet"}', 'greet"}'), *wrong]).misses
    assert len(found) == examples
    if misses == 399:
        assert [each.prompt for each in found[:3]] == ["0", "20", "40"]
