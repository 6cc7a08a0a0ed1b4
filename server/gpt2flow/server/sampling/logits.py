"""The logits of one run of the model."""

from functools import cached_property

import numpy as np

from gpt2flow.server.sampling.filters import Floats, Ids, powers, top_places, total


class LogitsRows:
    """The logits of one run of the model, with what is computed of them only once.

    Attributes:
        values: float32 [rows, vocabulary], or [rows, ids] where the run was for some tokens only.
    """

    def __init__(
        self,
        values: Floats,
        ids: Ids | None = None,
        vocabulary_size: int = 0,
        logsumexp: Floats | None = None,
    ) -> None:
        """Take what a run brought.

        Args:
            values: The logits.
            ids: Of which tokens they are; None is all.
            vocabulary_size: Of how many.
            logsumexp: [rows]; None where it is still to be computed.
        """
        self.values = values
        self._ids = ids
        self._vocabulary_size = vocabulary_size
        self._logsumexp: dict[int, np.float32] = {}
        if logsumexp is not None:
            self._logsumexp.update(enumerate(logsumexp))

    def row(self, row: int) -> Floats:
        """Return the logits of a row: [vocabulary]; of tokens that the run was not for, -inf."""
        values: Floats = self.values[row]
        if self._ids is None:
            return values
        spread = np.full(self._vocabulary_size, -np.inf, np.float32)
        spread[self._ids] = values
        return spread

    @cached_property
    def argmax(self) -> list[int]:
        """The likeliest token of each row."""
        ids: list[int] = self.values.argmax(axis=-1).tolist()
        return ids

    def logsumexp(self, row: int) -> np.float32:
        """Return the logarithm of the sum of exponentials of a row."""
        if row not in self._logsumexp:
            values = self.values[row]
            highest = values[self.argmax[row]]
            # One row at a time stays in the processor's cache, which all rows together do not.
            scaled = powers(values, highest, out=self._scratch)
            self._logsumexp[row] = highest + np.float32(np.log(total(scaled)))
        return self._logsumexp[row]

    def logprob(self, row: int, token_id: int) -> float:
        """Return the natural logarithm of a token's probability."""
        return float(self.values[row, token_id] - self.logsumexp(row))

    def top(self, row: int, count: int) -> list[tuple[int, float]]:
        """Return the likeliest tokens of a row with their log-probabilities, best first."""
        best: list[int] = top_places(self.values[row], count).tolist()
        return [(token_id, self.logprob(row, token_id)) for token_id in best]

    @cached_property
    def _scratch(self) -> Floats:
        return np.empty(self.values.shape[1], np.float32)
