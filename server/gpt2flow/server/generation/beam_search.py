"""Beam search: which hypotheses live on, which have ended, when to stop.

The semantics, float32 arithmetic included, are those of transformers'
`GenerationMixin._beam_search` (4.57), for one prompt.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.sequence import FinishReason, Sequence
from gpt2flow.server.params import BeamSearchParams, EarlyStopping

State = TypeVar("State")


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis(Generic[State]):
    """A running hypothesis; it never changes, a longer one takes its place.

    Attributes:
        sequence: Its tokens and its slot.
        score: Sum of the processed log-probabilities of its produced tokens.
        state: What else belongs to it; the search does not look at it.
    """

    sequence: Sequence
    score: np.float32
    state: State


@dataclass(frozen=True, slots=True)
class Continuation(Generic[State]):
    """A hypothesis with one token more.

    Attributes:
        parent: The hypothesis.
        token_id: The token.
        score: Of both.
        state: What belongs to both.
        reason: Why the hypothesis ends with this token; None when it goes on.
    """

    parent: Hypothesis[State]
    token_id: int
    score: np.float32
    state: State
    reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Ended(Generic[State]):
    """A hypothesis that ended: what it produced, why it ended, what it is ranked by."""

    tokens: list[int]
    state: State
    reason: FinishReason
    score: float


class BeamSearch(Generic[State]):
    """One search.

    Attributes:
        width: How many continuations `expand` wants to choose among.
        running: The hypotheses that go on, best first.
        ended: The best that have ended, best first; at most `num_beams`.
        done: Whether the search is over.
    """

    def __init__(
        self,
        params: BeamSearchParams,
        max_new_tokens: int,
        ending_ids: int,
        first: Hypothesis[State],
    ) -> None:
        """Start with one hypothesis, which has the prompt only.

        Args:
            params: The options.
            max_new_tokens: Tokens of the longest hypothesis.
            ending_ids: How many tokens end a hypothesis by themselves.
            first: The hypothesis.
        """
        self._params = params
        self._max_new_tokens = max_new_tokens
        # Even when every ending token is among the best, enough others are.
        self.width = max(2, 1 + ending_ids) * params.num_beams
        self.running = [first]
        self.ended: list[Ended[State]] = []
        self.done = False

    def expand(self, continuations: Items[Continuation[State]]) -> list[Continuation[State]]:
        """Choose among the continuations of all running hypotheses.

        Args:
            continuations: The best `width` of them, best first.

        Returns:
            Those that run on, best first; none when the search is over.
        """
        beams, length = self._params.num_beams, self.running[0].sequence.new_tokens + 1
        for each in continuations[:beams]:  # Those behind only take the place of those that end.
            if each.reason is not None:
                tokens = [*each.parent.sequence.tokens, each.token_id]
                self._end(tokens, each.state, each.reason, each.score)
        running = [each for each in continuations if each.reason is None][:beams]
        self.done = not running or self._cannot_improve(running[0].score, length)
        return [] if self.done else running

    def stop(self, reason: FinishReason) -> None:
        """End the search; the hypotheses that run end where they are."""
        for each in self.running:
            self._end(each.sequence.tokens, each.state, reason, each.score)
        self.done = True

    def place(
        self,
        running: Items[Continuation[State]],
        cache: SlotCache,
        slots: Items[int],
    ) -> None:
        """Make chosen continuations the running hypotheses, each in one of the slots.

        The first child of a hypothesis inherits its slot; the others take those
        of hypotheses that have no children, and what is not equal there already
        is copied.
        """
        childless = {id(each): each for each in self.running}
        heirs: set[int] = set()
        for continuation in running:
            childless.pop(id(continuation.parent), None)
        vacant = [(each.sequence.slot, each.sequence) for each in childless.values()]
        taken = {each.sequence.slot for each in self.running}
        unused = [slot for slot in slots if slot not in taken]
        children = []
        for continuation in running:
            parent = continuation.parent.sequence
            slot = parent.slot
            if id(parent) in heirs:
                slot, former = vacant.pop() if vacant else (unused.pop(), None)
                shared = 0 if former is None else _common_length(former, parent)
                cache.fork(parent.slot, slot, shared)
            heirs.add(id(parent))
            sequence = Sequence(
                [*parent.tokens, continuation.token_id],
                prompt_length=parent.prompt_length,
                slot=slot,
                logits_from=parent.logits_from,
            )
            children.append(Hypothesis(sequence, continuation.score, continuation.state))
        self.running = children

    def _end(
        self, tokens: Items[int], state: State, reason: FinishReason, score: np.float32
    ) -> None:
        produced = list(tokens[self.running[0].sequence.prompt_length :])
        rank = self._rank(score, len(produced))
        self.ended.append(Ended(produced, state, reason, float(rank)))
        self.ended.sort(key=lambda each: -each.score)
        del self.ended[self._params.num_beams :]

    def _rank(self, score: np.float32, length: int) -> np.float32:
        """Return what a hypothesis of so many produced tokens is ranked by."""
        # Extreme penalties leave the range of the numbers, and nothing to rank by.
        with np.errstate(over="ignore", divide="ignore"):
            divisor = np.float32(np.float64(max(length, 1)) ** self._params.length_penalty)
            return np.float32(score / divisor)

    def _cannot_improve(self, best_running: np.float32, length: int) -> bool:
        """Whether no running hypothesis is expected to get among the ended ones."""
        if len(self.ended) < self._params.num_beams:
            return False
        early_stopping = self._params.early_stopping
        if early_stopping is EarlyStopping.FIRST:
            return True
        if early_stopping is EarlyStopping.NEVER and self._params.length_penalty > 0:
            length = self._max_new_tokens
        return bool(self._rank(best_running, length) <= self.ended[-1].score)


def _common_length(one: Sequence, other: Sequence) -> int:
    """Return how many leading tokens two sequences after the same prompt share."""
    start = one.prompt_length
    for at, (left, right) in enumerate(
        zip(one.tokens[start:], other.tokens[start:], strict=False), start
    ):
        if left != right:
            return at
    return min(len(one.tokens), len(other.tokens))
