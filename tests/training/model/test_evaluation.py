"""Shares of right actions, on turns that can be checked by hand."""

import numpy as np

from gpt2flow.training.model.batches import Batch
from gpt2flow.training.model.evaluation import _turns


def test_an_action_is_right_if_all_its_tokens_are() -> None:
    # Two actions a row, of two tokens and of one; the last row is ordinary text.
    marks = [[0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1]]
    batch = Batch(np.zeros((4, 6), np.int64), np.array(marks, np.bool_))
    right = [[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0, 0, 0]]
    flat = np.array([mark for row in right for mark in row], np.bool_)
    assert _turns(batch, flat) == [(True, True), (True, False), (False, False)]


def test_an_action_may_end_the_row() -> None:
    batch = Batch(np.zeros((1, 4), np.int64), np.array([[0, 0, 1, 1]], np.bool_))
    assert _turns(batch, np.array([True, True])) == [(True, True)]
    assert _turns(batch, np.array([True, False])) == [(False, False)]
