"""Contexts of turns: the state, the open question and the earlier actions."""

import random
from collections.abc import Sequence
from functools import cache

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, MAX_PAST, PromptState, Result

Facts = frozenset[str]

# Fact that the agent asked "did you mean …?".
UNSURE = "unsure"
_PAST_LENGTHS, _PAST_WEIGHTS = range(MAX_PAST + 1), (30, 25, 25, 20)


def reachable(book: FlowBook, start: Facts) -> list[Facts]:
    """Return every state that customers' actions reach from `start`, inclusive."""
    states = [start]
    for facts in states:
        for action in book.legal(facts):
            after = book.apply(action, facts)
            if after not in states:
                states.append(after)
    return states


class ContextSampler:
    """Sampler of states with a plausible past.

    Attributes:
        states: States that customers reach, without an open "did you mean …?".
        confirmable: Actions about which the agent may ask that.
    """

    def __init__(self, book: FlowBook, questions: Sequence[tuple[str, str]]) -> None:
        """Enumerate the states of the flows.

        Args:
            book: Flows of the turns.
            questions: Actions and slots that the agent asks for.
        """
        self._book = book
        self._questions = questions
        self.legal = cache(book.legal)
        # By convention the first declared fact is the state of an unidentified customer.
        self.states = reachable(book, frozenset([next(iter(book.shared.facts))]))
        self.confirmable = [name for name in book.wishes if book.actions[name].question is not None]

    def sample(
        self,
        facts: Facts,
        rng: random.Random,
        *,
        awaiting: tuple[str, str] | None = None,
        latest: tuple[str, str] | None = None,
    ) -> PromptState:
        """Return a state with these facts.

        Args:
            facts: Facts that hold.
            rng: Random generator.
            awaiting: Open question. None samples one that the message ignores, in a few cases.
            latest: Latest action and its result. None samples it.
        """
        past = self.sample_past(facts, rng)
        if awaiting is not None:
            past = [*past, self._sample_asking(awaiting[0], facts, rng)]
        elif latest is not None:
            past = [*past, latest]
        elif rng.random() < 0.06:
            awaiting = self._sample_stale_question(facts, rng)
            past = [*past, (awaiting[0], "asked")] if awaiting else past
        return PromptState(facts, awaiting, tuple(past[-MAX_PAST:]))

    def sample_unsure(self, action: str, facts: Facts, rng: random.Random) -> PromptState:
        """Return a state with "did you mean …?" open about an action."""
        return self.sample(facts | {UNSURE}, rng, awaiting=(action, CONFIRMATION))

    def sample_past(self, facts: Facts, rng: random.Random) -> list[tuple[str, str]]:
        """Return earlier actions with their results, oldest first."""
        length = rng.choices(_PAST_LENGTHS, _PAST_WEIGHTS)[0]
        legal = self.legal(facts - {UNSURE})
        actions = (
            rng.choice(legal if rng.random() < 0.85 else self._book.wishes) for _ in range(length)
        )
        return [
            (action, self.sample_result(action, rng) if action in legal else "blocked")
            for action in actions
        ]

    def sample_result(self, action: str, rng: random.Random) -> Result:
        """Return a result that an action with all its slots may have."""
        outcomes = self._book.actions[action].outcomes.values()
        refusable = any(outcome.result == "refused" for outcome in outcomes)
        return "refused" if refusable and rng.random() < 0.18 else "ok"

    def _sample_asking(self, asking: str, facts: Facts, rng: random.Random) -> tuple[str, str]:
        """Return the action that asked, or a wish that it stands for."""
        wishes = [
            wish
            for wish in self._book.wishes
            if (fallback := self._book.fallback(wish, facts)) and fallback.action == asking
        ]
        if wishes and rng.random() < 0.5:
            return rng.choice(wishes), "blocked"
        return asking, "asked"

    def _sample_stale_question(self, facts: Facts, rng: random.Random) -> tuple[str, str] | None:
        """Return an earlier question that the message ignores."""
        legal = self.legal(facts)
        possible = [(action, slot) for action, slot in self._questions if action in legal]
        return rng.choice(possible) if possible else None
