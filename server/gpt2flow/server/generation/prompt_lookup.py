"""Guesses what comes next: what followed the same tokens before, in the prompt or the output.

A guess costs nothing but the run that checks it: the model runs over all tokens
of it at once, and keeps those that it would have produced itself. The method is
prompt lookup decoding (Saxena, 2023).
"""

from collections.abc import Sequence as Items
from typing import Final

_NGRAMS: Final = (3, 2)
_LONGEST: Final = 32
_LONGEST_PAUSE: Final = 64


class PromptLookup:
    """The guesses for one sequence, and whether they are worth their while.

    After a guess of which nothing came true the next one waits, each time twice
    as long; so where a text does not repeat itself, guessing stops. A guess that
    came true as a whole makes the next one twice as long.

    Attributes:
        drafted: Tokens that were guessed and checked.
        accepted: Of these, tokens that came true.
    """

    def __init__(self, tokens: Items[int], length: int) -> None:
        """Learn a prompt.

        Args:
            tokens: The prompt.
            length: Tokens that a guess has as a rule: as many as the model
                checks at little more than the cost of one.
        """
        self.drafted = 0
        self.accepted = 0
        self._usual_length = length
        self._length = length
        self._pause = 0
        self._waits = 0
        self._tokens: list[int] = []
        # By the last tokens, what stands behind their last occurrence: the place of it.
        self._places: list[dict[tuple[int, ...], int]] = [{} for _ in _NGRAMS]
        self.extend(tokens)

    def __len__(self) -> int:
        """Return how many tokens it knows."""
        return len(self._tokens)

    def extend(self, tokens: Items[int]) -> None:
        """Learn what was appended."""
        for token in tokens:
            end = len(self._tokens)
            for size, places in zip(_NGRAMS, self._places, strict=True):
                if end >= size:  # What ends before this token is followed by it.
                    places[tuple(self._tokens[end - size : end])] = end
            self._tokens.append(token)

    def propose(self, limit: int) -> list[int]:
        """Return the tokens that may come next, at most so many; often none."""
        if self._waits:
            self._waits -= 1
            return []
        for size, places in zip(_NGRAMS, self._places, strict=True):
            place = places.get(tuple(self._tokens[-size:]))
            if place is not None:
                return self._copy(place, min(self._length, limit))
        return []

    def _copy(self, place: int, count: int) -> list[int]:
        """Return what stands from a place on; where the end is reached, the copy goes on."""
        copied = self._tokens[place : place + count]
        while copied and len(copied) < count:
            copied.append(copied[len(copied) - (len(self._tokens) - place)])
        return copied

    def record(self, drafted: int, accepted: int) -> None:
        """Note how many tokens of a guess were checked, and how many came true."""
        self.drafted += drafted
        self.accepted += accepted
        if accepted == 0:
            self._pause = min(max(1, 2 * self._pause), _LONGEST_PAUSE)
            self._waits = self._pause
            self._length = self._usual_length
        else:
            self._pause = 0
            whole = accepted == drafted
            self._length = min(2 * self._length, _LONGEST) if whole else self._usual_length
