"""Logits of one run of the model."""

from functools import cached_property

import numpy as np

from gpt2flow.native.rows import log_sum_exp
from gpt2flow.server.sampling.filters import Floats, Ids, top_places


class LogitsRows:
    """Logits of one run, with cached statistics of each row.

    A head may have rows without a token. Their logits count for log-probabilities, as in
    transformers, but they are never produced.

    Attributes:
        values: Logits, float32 [rows, vocabulary]; or [rows, ids] if they are restricted.
    """

    def __init__(
        self,
        values: Floats,
        ids: Ids | None = None,
        vocabulary_size: int = 0,
        missing: Ids | None = None,
    ) -> None:
        """Take the outputs of a run.

        Args:
            values: Logits, [rows, vocabulary] or [rows, ids]; those of `missing` are changed.
            ids: Token ids that the logits are restricted to; None is all.
            vocabulary_size: Number of tokens, at most that of the head's rows, which is the
                default. Needed with `ids`.
            missing: Ids below that number without a token; None is none.
        """
        self.values = values
        self._ids = ids
        self._vocabulary_size = vocabulary_size or values.shape[-1]
        self._logsumexp: dict[int, np.float32] = {}
        # A view, without cost.
        self._producible = values if ids is not None else values[:, : self._vocabulary_size]
        if missing is not None and ids is None:
            self._logsumexp = {row: log_sum_exp(each) for row, each in enumerate(values)}
            values[:, missing] = -np.inf

    def row(self, row: int) -> Floats:
        """Return the logits of a row's tokens, [vocabulary]; -inf where not computed."""
        values: Floats = self._producible[row]
        if self._ids is None:
            return values
        full = np.full(self._vocabulary_size, -np.inf, np.float32)
        full[self._ids] = values
        return full

    def copy_row(self, row: int) -> "LogitsRows":
        """Return one row on its own, which outlives the run."""
        copied = LogitsRows(self.values[row : row + 1].copy(), self._ids, self._vocabulary_size)
        copied._logsumexp[0] = self.logsumexp(row)
        return copied

    @cached_property
    def argmax(self) -> list[int]:
        """Column of the highest logit of each row."""
        ids: list[int] = self._producible.argmax(axis=-1).tolist()
        return ids

    def logsumexp(self, row: int) -> np.float32:
        """Return the log-sum-exp of a row."""
        if row not in self._logsumexp:
            self._logsumexp[row] = log_sum_exp(self.values[row])
        return self._logsumexp[row]

    def logprob(self, row: int, token_id: int) -> float:
        """Return the natural logarithm of a token's probability."""
        return float(self.values[row, token_id] - self.logsumexp(row))

    def top(self, row: int, count: int) -> list[tuple[int, float]]:
        """Return the likeliest tokens of a row with their log-probabilities, best first."""
        best: list[int] = top_places(self._producible[row], count).tolist()
        found = [(token_id, self.logprob(row, token_id)) for token_id in best]
        return [(token_id, logprob) for token_id, logprob in found if logprob > -np.inf]
