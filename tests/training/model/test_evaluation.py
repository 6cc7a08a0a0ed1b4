"""Scores of hand-made turns."""

import numpy as np

from gpt2flow.training.model.batches import Batch
from gpt2flow.training.model.evaluation import _score_turns


def test_an_action_is_correct_if_all_its_tokens_are() -> None:
    # Rows of two actions, of two tokens and one; the last row is ordinary text.
    masks = [[0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1]]
    batch = Batch(np.zeros((4, 6), np.int64), np.array(masks, np.bool_))
    correct = [[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0, 0, 0]]
    flat = np.array([token for row in correct for token in row], np.bool_)
    assert _score_turns(batch, flat) == [(True, True), (True, False), (False, False)]


def test_an_action_may_end_its_row() -> None:
    batch = Batch(np.zeros((1, 4), np.int64), np.array([[0, 0, 1, 1]], np.bool_))
    assert _score_turns(batch, np.array([True, True])) == [(True, True)]
    assert _score_turns(batch, np.array([True, False])) == [(False, False)]
