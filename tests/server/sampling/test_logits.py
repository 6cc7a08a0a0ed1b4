"""Logits of heads that have rows without a token."""

import numpy as np
import pytest

from gpt2flow.server.sampling.logits import LogitsRows

TOKENS, HEAD = 200, 256
MISSING = np.array([3, 77, 199])


def logits(seed: int = 0) -> np.ndarray:
    """Return random logits, [3, HEAD], whose greatest have no token."""
    values = np.random.default_rng(seed).normal(size=(3, HEAD)).astype(np.float32)
    values[:, TOKENS:] += 9
    values[:, MISSING] += 7
    return values


def logprobs(values: np.ndarray) -> np.ndarray:
    """Return log-probabilities over all rows of a head."""
    wide = values.astype(np.float64)
    result: np.ndarray = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return result


@pytest.mark.parametrize("missing", [None, MISSING], ids=["padded", "padded, with gaps"])
def test_an_id_without_a_token_is_neither_best_nor_an_alternative(
    missing: np.ndarray | None,
) -> None:
    expected = logits()[:, :TOKENS]
    if missing is not None:
        expected[:, missing] = -np.inf
    rows = LogitsRows(logits(), vocabulary_size=TOKENS, missing=missing)
    assert rows.argmax == expected.argmax(axis=-1).tolist()
    for row in range(3):
        np.testing.assert_array_equal(rows.row(row), expected[row])
        order = np.argsort(-expected[row], kind="stable")
        assert [token_id for token_id, _ in rows.top(row, 20)] == order[:20].tolist()
        every = rows.top(row, TOKENS)
        assert len(every) == TOKENS - (0 if missing is None else len(missing))


@pytest.mark.parametrize("missing", [None, MISSING], ids=["padded", "padded, with gaps"])
def test_log_probabilities_are_normalized_over_the_whole_head(missing: np.ndarray | None) -> None:
    expected = logprobs(logits())
    rows = LogitsRows(logits(), vocabulary_size=TOKENS, missing=missing)
    for row in range(3):
        one = rows.copy_row(row)
        for token_id in (0, 5, 198):
            assert rows.logprob(row, token_id) == pytest.approx(expected[row, token_id], abs=1e-5)
            assert one.logprob(0, token_id) == rows.logprob(row, token_id)
        for token_id, logprob in rows.top(row, 5):
            assert logprob == pytest.approx(expected[row, token_id], abs=1e-5)


def test_restricted_logits_are_those_of_their_ids() -> None:
    ids = np.array([0, 5, 198])
    rows = LogitsRows(logits()[:, ids], ids, TOKENS, MISSING)
    expected = np.full(TOKENS, -np.inf, np.float32)
    expected[ids] = logits()[1, ids]
    np.testing.assert_array_equal(rows.row(1), expected)


def test_a_head_without_further_rows_is_used_as_it_is() -> None:
    values = logits()
    rows = LogitsRows(values)
    assert np.shares_memory(rows.row(1), values)
    assert rows.argmax == values.argmax(axis=-1).tolist()
    padded = LogitsRows(values, vocabulary_size=TOKENS)
    assert np.shares_memory(padded.row(1), values)
