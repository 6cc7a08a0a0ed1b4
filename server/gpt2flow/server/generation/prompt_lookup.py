"""Speculative decoding by prompt lookup: drafts that repeat an earlier passage.

A draft is the passage that followed the same tokens before, in the prompt or the output. It costs
nothing but the run that verifies it: the model runs over all its tokens at once, and keeps those
that it would have produced itself. The method is prompt lookup decoding (Saxena, 2023).
"""

from collections.abc import Sequence as Items
from typing import Final

_NGRAMS: Final = (3, 2)
_MAX_LENGTH: Final = 32
_MAX_PAUSE: Final = 64


class PromptLookup:
    """Source of drafts for one sequence, which adapts to their acceptance.

    After a draft that is rejected as a whole, proposals pause, each time for twice as many steps.
    So drafting ceases where a text does not repeat itself. A draft that is accepted as a whole
    doubles the length of the next one.

    Attributes:
        drafted: Number of draft tokens that were verified.
        accepted: Number of draft tokens that were accepted.
    """

    def __init__(self, tokens: Items[int], length: int) -> None:
        """Index a prompt.

        Args:
            tokens: Token ids of the prompt.
            length: Usual number of tokens of a draft: as many as the model verifies at little
                more than the cost of one.
        """
        self.drafted = 0
        self.accepted = 0
        self._usual_length = length
        self._length = length
        self._pause = 0
        self._skips = 0
        self._tokens: list[int] = []
        # Per size of n-gram: position after the last occurrence of each.
        self._positions: list[dict[tuple[int, ...], int]] = [{} for _ in _NGRAMS]
        self.extend(tokens)

    def __len__(self) -> int:
        """Return the number of indexed tokens."""
        return len(self._tokens)

    def extend(self, tokens: Items[int]) -> None:
        """Index appended tokens."""
        for token in tokens:
            end = len(self._tokens)
            for size, positions in zip(_NGRAMS, self._positions, strict=True):
                if end >= size:
                    positions[tuple(self._tokens[end - size : end])] = end
            self._tokens.append(token)

    def propose(self, limit: int) -> list[int]:
        """Return a draft of at most `limit` tokens; often none."""
        if self._skips:
            self._skips -= 1
            return []
        for size, positions in zip(_NGRAMS, self._positions, strict=True):
            start = positions.get(tuple(self._tokens[-size:]))
            if start is not None:
                return self._copy(start, min(self._length, limit))
        return []

    def record(self, drafted: int, accepted: int) -> None:
        """Record the verified and the accepted tokens of a draft."""
        self.drafted += drafted
        self.accepted += accepted
        if accepted == 0:
            self._pause = min(max(1, 2 * self._pause), _MAX_PAUSE)
            self._skips = self._pause
            self._length = self._usual_length
        else:
            self._pause = 0
            whole = accepted == drafted
            self._length = min(2 * self._length, _MAX_LENGTH) if whole else self._usual_length

    def _copy(self, start: int, count: int) -> list[int]:
        """Return `count` tokens from `start` on; past the end, repeat them."""
        copied = self._tokens[start : start + count]
        while copied and len(copied) < count:
            copied.append(copied[len(copied) - (len(self._tokens) - start)])
        return copied
