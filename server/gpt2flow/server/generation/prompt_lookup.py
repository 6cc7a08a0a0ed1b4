"""Speculative decoding by prompt lookup: drafts that repeat an earlier passage.

A draft is the passage that followed the same tokens before, in the prompt or the output. It costs
nothing but the run that verifies it: the model runs over all its tokens at once, and keeps those
that it would have produced itself. The method is prompt lookup decoding (Saxena, 2023).
"""

import math
from collections.abc import Sequence as Items
from typing import Final

_NGRAMS: Final = (3, 2)
_MAX_LENGTH: Final = 32
_MAX_PAUSE: Final = 64
# Weight of the latest draft in the acceptance rate.
_RECENT: Final = 0.3
# Share of the rejections that a step without a draft forgets.
_FORGOTTEN: Final = 0.02


class PromptLookup:
    """Source of drafts for one sequence, which adapts to their acceptance.

    After a draft that is rejected as a whole, proposals pause, each time for twice as many steps.
    So drafting ceases where a text does not repeat itself. A draft that is accepted as a whole
    doubles the length of the next one. A draft is no longer than pays at the acceptance rate so
    far.

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
        self._rate = 1.0
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

    def propose(self, limit: int, break_even: float = 0.0) -> list[int]:
        """Return a draft, often an empty one.

        Args:
            limit: Most tokens of the draft.
            break_even: Acceptance rate from which a draft token pays, from 0 to 1.
        """
        if self._skips:
            self._skips -= 1
            return []
        for size, positions in zip(_NGRAMS, self._positions, strict=True):
            start = positions.get(tuple(self._tokens[-size:]))
            if start is not None:
                return self._copy(start, min(self._length, limit, self._worth(break_even)))
        return []

    def record(self, drafted: int, accepted: int) -> None:
        """Record the verified and the accepted tokens of a draft."""
        self.drafted += drafted
        self.accepted += accepted
        self._rate += _RECENT * (accepted / drafted - self._rate)
        if accepted == 0:
            self._pause = min(max(1, 2 * self._pause), _MAX_PAUSE)
            self._skips = self._pause
            self._length = self._usual_length
        else:
            self._pause = 0
            whole = accepted == drafted
            self._length = min(2 * self._length, _MAX_LENGTH) if whole else self._usual_length

    def _worth(self, break_even: float) -> int:
        """Return the number of draft tokens that pay.

        The n-th token of a draft is accepted only if all before it are: at rate ** n.
        """
        if self._rate <= break_even:
            # Forget slowly, since a text may begin to repeat itself.
            self._rate += _FORGOTTEN * (1 - self._rate)
            return 0
        if break_even <= 0 or self._rate >= 1:
            return _MAX_LENGTH
        return int(math.log(break_even) / math.log(self._rate))

    def _copy(self, start: int, count: int) -> list[int]:
        """Return `count` tokens from `start` on; past the end, repeat them."""
        copied = self._tokens[start : start + count]
        while copied and len(copied) < count:
            copied.append(copied[len(copied) - (len(self._tokens) - start)])
        return copied
