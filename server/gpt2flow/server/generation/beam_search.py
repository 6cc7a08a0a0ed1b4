"""Beam search: which hypotheses live on, which have ended, when to stop.

The semantics, float32 arithmetic included, are those of transformers'
`GenerationMixin._beam_search` (4.57), for one prompt.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from gpt2flow.server.engine.kv_cache import SlotCache, common_length
from gpt2flow.server.engine.sequence import FinishReason, Sequence
from gpt2flow.server.generation.output import Output
from gpt2flow.server.params import BeamSearchParams, EarlyStopping


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """Running hypothesis; it never changes, a longer one takes its place.

    Attributes:
        sequence: Its tokens and its slot.
        output: Its text, constraint and log-probabilities.
        score: Sum of the processed log-probabilities of its new tokens.
    """

    sequence: Sequence
    output: Output
    score: np.float32


@dataclass(frozen=True, slots=True, eq=False)
class Continuation:
    """Hypothesis with one more token, which may have ended it.

    Attributes:
        parent: The hypothesis.
        output: Output of the parent with the token appended.
        score: Score of both together.
    """

    parent: Hypothesis
    output: Output
    score: np.float32


@dataclass(frozen=True, slots=True)
class Ended:
    """Hypothesis that has ended, and the score that ranks it."""

    output: Output
    score: float


class BeamSearch:
    """One search.

    Attributes:
        width: Number of continuations that `expand` chooses among.
        running: Hypotheses that go on, best first.
        ended: Best hypotheses that have ended, best first; at most `num_beams`.
        done: Whether the search is over.
    """

    def __init__(
        self, params: BeamSearchParams, max_new_tokens: int, ending_ids: int, first: Hypothesis
    ) -> None:
        """Start with one hypothesis, of the prompt alone.

        Args:
            params: The options.
            max_new_tokens: Tokens of the longest hypothesis.
            ending_ids: Number of tokens that end a hypothesis by themselves.
            first: The hypothesis.
        """
        self._params = params
        self._max_new_tokens = max_new_tokens
        # Even when every ending token is among the best, enough others are.
        self.width = max(2, 1 + ending_ids) * params.num_beams
        self.running = [first]
        self.ended: list[Ended] = []
        self.done = False

    def expand(self, continuations: Items[Continuation]) -> list[Continuation]:
        """Choose among the continuations of all running hypotheses.

        Args:
            continuations: The best `width` of them, best first; those behind the last one that
                can run on may be left out.

        Returns:
            Continuations that run on, best first; none when the search is over.
        """
        beams = self._params.num_beams
        for each in continuations[:beams]:  # Those behind only take the place of those that end.
            if each.output.finish_reason is not None:
                self._end(each.output, each.score)
        running = [each for each in continuations if each.output.finish_reason is None][:beams]
        self.done = not running or self._cannot_improve(running[0])
        return [] if self.done else running

    def stop(self, reason: FinishReason) -> None:
        """End the search; running hypotheses end where they are."""
        for each in self.running:
            each.output.interrupt(reason)
            self._end(each.output, each.score)
        self.done = True

    def place(self, running: Items[Continuation], cache: SlotCache, slots: Items[int]) -> None:
        """Make chosen continuations the running hypotheses, each in one of the slots.

        The first child of a hypothesis inherits its slot. The others take slots of hypotheses
        without children, to which the differing positions are copied.
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
                shared = 0 if former is None else common_length(former.tokens, parent.tokens)
                cache.fork(parent.slot, slot, shared)
            heirs.add(id(parent))
            sequence = Sequence(
                continuation.output.tokens,
                prompt_length=parent.prompt_length,
                slot=slot,
                logits_from=parent.logits_from,
            )
            children.append(Hypothesis(sequence, continuation.output, continuation.score))
        self.running = children

    def _end(self, output: Output, score: np.float32) -> None:
        self.ended.append(Ended(output, float(self._rank(score, output.new_tokens))))
        self.ended.sort(key=lambda each: -each.score)
        del self.ended[self._params.num_beams :]

    def _rank(self, score: np.float32, length: int) -> np.float32:
        """Return the length-penalized score of a hypothesis of `length` tokens."""
        # Extreme penalties leave the range of float32, and nothing to rank by.
        with np.errstate(over="ignore", divide="ignore"):
            divisor = np.float32(np.float64(max(length, 1)) ** self._params.length_penalty)
            return np.float32(score / divisor)

    def _cannot_improve(self, best: Continuation) -> bool:
        """Return whether no running hypothesis is expected to outrank an ended one."""
        if len(self.ended) < self._params.num_beams:
            return False
        early_stopping = self._params.early_stopping
        if early_stopping is EarlyStopping.FIRST:
            return True
        length = best.output.new_tokens
        if early_stopping is EarlyStopping.NEVER and self._params.length_penalty > 0:
            length = self._max_new_tokens
        return bool(self._rank(best.score, length) <= self.ended[-1].score)
