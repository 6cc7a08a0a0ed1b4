"""Requests that one message may make together."""

import random
from collections.abc import Sequence

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.training.corpus.contexts import ContextSampler, Facts
from gpt2flow.training.corpus.request_writer import LISTABLE_SLOTS

# Answers to the agent's questions, which are no requests on their own.
_ANSWERS = ("affirm", "deny")


class RequestSampler:
    """Sampler of actions that a customer may request in one message.

    Attributes:
        requestable: Actions that a message may request on its own.
    """

    def __init__(
        self, book: FlowBook, contexts: ContextSampler, more_wishes: Sequence[float]
    ) -> None:
        """Bind the flows.

        Args:
            book: Flows of the turns.
            contexts: Sampler of the states, which knows what is legal.
            more_wishes: Weights of no further request, one, and two.
        """
        self._book = book
        self._contexts = contexts
        self._more_wishes = more_wishes
        self.requestable = [name for name in book.wishes if name not in _ANSWERS]

    def sample(self, target: str, facts: Facts, rng: random.Random) -> list[str]:
        """Return the target action with further actions for one message, in order."""
        actions = [target]
        if self.is_small_talk(target):
            return actions
        for _ in range(rng.choices((0, 1, 2), self._more_wishes)[0]):
            after = self._state_after(actions, facts)
            enabled = set(self._contexts.legal(after)) - set(self._contexts.legal(facts))
            pools = (enabled, self._related_actions(target), set(self.requestable))
            pool = rng.choices(pools, (4, 2, 4))[0] or set(self.requestable)
            action = rng.choice(sorted(pool))
            at = len(actions) if action in enabled else rng.randint(0, len(actions))
            longer = [*actions[:at], action, *actions[at:]]
            if self.is_coherent(longer, facts):
                actions = longer
        return actions

    def _related_actions(self, action: str) -> set[str]:
        """Return the other actions with a product or order in common."""
        slots = set(LISTABLE_SLOTS) & set(self._book.actions[action].slots)
        others = set(self.requestable) - {action}
        return {other for other in others if slots & set(self._book.actions[other].slots)}

    def _state_after(self, actions: Sequence[str], facts: Facts) -> Facts:
        """Return the state after all requested actions succeed."""
        for action in actions:
            facts = self._book.apply(self._book.resolve(action, facts), facts)
        return facts

    def is_coherent(self, actions: Sequence[str], facts: Facts) -> bool:
        """Return whether no action repeats, precludes or precedes its enabler."""
        legal, finally_legal = (
            self._contexts.legal(facts),
            self._contexts.legal(self._state_after(actions, facts)),
        )
        for i, action in enumerate(actions):
            before = self._contexts.legal(self._state_after(actions[:i], facts))
            repeats = action in actions[:i] and not self._may_repeat(action)
            is_precluded = action in legal and action not in before
            is_early = action not in before and action in finally_legal
            if repeats or is_precluded or is_early or self.is_small_talk(action):
                return False
        return True

    def _may_repeat(self, action: str) -> bool:
        """Return whether a message may ask for an action twice."""
        slots = self._book.actions[action].slots
        return any(
            slot in LISTABLE_SLOTS or self._book.slots[slot].kind is SlotKind.ENUM for slot in slots
        )

    def is_small_talk(self, action: str) -> bool:
        """Return whether an action answers a message alone."""
        return self._book.actions[action].opens
