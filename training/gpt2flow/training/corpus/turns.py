"""Random turns: a state, a message, and the actions that answer it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments, Choice, PromptState, Result, document
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.messages import LISTABLE_SLOTS, Intent, MessageGenerator
from gpt2flow.training.corpus.templates import Placeholder, Template
from gpt2flow.training.corpus.utterances import Language
from gpt2flow.training.errors import CorpusError

Facts = frozenset[str]
Steps = list[tuple[Choice, Result]]

_MAX_ATTEMPTS = 50
# Flow whose actions answer a message alone, never beside those of another flow.
_SMALL_TALK = "conversation"
_CLARIFY = "clarify"
# Slots whose bare value, such as "1042" or "tomorrow at nine", is no request without a question.
_AMBIGUOUS_SLOTS = ("order", "time")


def reachable(book: FlowBook, start: Facts) -> list[Facts]:
    """Return every state that customers' actions reach from `start`, inclusive."""
    states = [start]
    for facts in states:
        for action in book.legal(facts):
            after = book.apply(action, facts)
            if after not in states:
                states.append(after)
    return states


def is_derivable(book: FlowBook, choice: Choice, message: str) -> bool:
    """Return whether the agent's grammar for `message` admits `choice`."""
    for name, value in choice.arguments.items():
        slot = book.slots[name]
        if slot.kind is SlotKind.SPAN:
            found = bool(value) and str(value) in message
        elif slot.kind is SlotKind.ENUM:
            found = value in slot.values
        else:
            found = str(value) in candidates(slot.kind, message)
        if not found:
            return False
    return True


class TurnGenerator:
    """Generator of random turns of all flows in all languages."""

    def __init__(self, book: FlowBook, messages: Mapping[Language, MessageGenerator]) -> None:
        """Enumerate the states, events and questions of the flows.

        Args:
            book: Flows of the turns.
            messages: Message generator of each language.
        """
        self._book = book
        self._legal = cache(book.legal)
        self._messages = messages
        # By convention the first declared fact is the state of an unidentified customer.
        self._states = reachable(book, frozenset([next(iter(book.shared.facts))]))
        self._user_actions = [name for name, action in book.actions.items() if action.event is None]
        self._events = sorted({a.event for a in book.actions.values() if a.event is not None})
        self._questions = [
            (name, slot)
            for name in self._user_actions
            for slot in book.actions[name].required
            if all(generator.utterances.answers.get(slot) for generator in messages.values())
        ]

    def documents(self, rng: random.Random) -> Iterator[str]:
        """Yield random turns, without end."""
        while True:
            kind = rng.random()
            if self._events and kind < 0.03:
                yield self._sample_event_turn(rng)
                continue
            generator = self._messages[rng.choice(list(self._messages))]
            if self._questions and kind < 0.16:
                yield self._sample_answer_turn(generator, rng)
            elif kind < 0.175:
                yield self._sample_ambiguous_turn(generator, rng)
            else:
                yield from self._sample_request_turns(generator, rng)

    def _sample_request_turns(
        self, generator: MessageGenerator, rng: random.Random
    ) -> Iterator[str]:
        """Yield a turn of requests, sometimes again in another state."""
        target = rng.choice(self._user_actions)
        legal = [facts for facts in self._states if target in self._legal(facts)]
        facts = rng.choice(legal if legal and rng.random() < 0.8 else self._states)
        actions = self._add_requests(target, facts, rng)
        message, intents = self._write_message(generator, actions, facts, rng)
        state = PromptState(facts, self._sample_stale_question(facts, rng))
        yield self._finish_turn(state, message, intents, rng)
        if rng.random() < 0.15:
            yield self._finish_turn(PromptState(rng.choice(self._states)), message, intents, rng)

    def _sample_stale_question(self, facts: Facts, rng: random.Random) -> tuple[str, str] | None:
        """Return an earlier question that the message ignores, usually None."""
        if rng.random() < 0.94:
            return None
        legal = self._legal(facts)
        possible = [(action, slot) for action, slot in self._questions if action in legal]
        return rng.choice(possible) if possible else None

    def _add_requests(self, target: str, facts: Facts, rng: random.Random) -> list[str]:
        """Return the target action with further actions for one message, in order."""
        actions = [target]
        if self._is_small_talk(target):
            return actions
        for _ in range(rng.choices((0, 1, 2), (62, 29, 9))[0]):
            after = self._state_after(actions, facts)
            enabled = set(self._legal(after)) - set(self._legal(facts))
            pools = (enabled, self._related_actions(target), set(self._user_actions))
            pool = rng.choices(pools, (4, 2, 4))[0] or set(self._user_actions)
            action = rng.choice(sorted(pool))
            at = len(actions) if action in enabled else rng.randint(0, len(actions))
            longer = [*actions[:at], action, *actions[at:]]
            if self._is_coherent(longer, facts):
                actions = longer
        return actions

    def _related_actions(self, action: str) -> set[str]:
        """Return the other actions with a product or order in common."""
        slots = set(LISTABLE_SLOTS) & set(self._book.actions[action].slots)
        others = set(self._user_actions) - {action}
        return {other for other in others if slots & set(self._book.actions[other].slots)}

    def _state_after(self, actions: Sequence[str], facts: Facts) -> Facts:
        """Return the state after all requested actions succeed."""
        for action in actions:
            facts = self._book.apply(self._book.resolve(action, facts), facts)
        return facts

    def _is_coherent(self, actions: Sequence[str], facts: Facts) -> bool:
        """Return whether no action repeats, precludes or precedes its enabler."""
        legal, finally_legal = self._legal(facts), self._legal(self._state_after(actions, facts))
        for i, action in enumerate(actions):
            before = self._legal(self._state_after(actions[:i], facts))
            repeats = action in actions[:i] and not self._is_listable(action)
            is_precluded = action in legal and action not in before
            is_early = action not in before and action in finally_legal
            if repeats or is_precluded or is_early or self._is_small_talk(action):
                return False
        return True

    def _is_listable(self, action: str) -> bool:
        return any(slot in LISTABLE_SLOTS for slot in self._book.actions[action].slots)

    def _sample_answer_turn(self, generator: MessageGenerator, rng: random.Random) -> str:
        """Return a turn that answers a question, perhaps with a further request."""
        action, slot = rng.choice(self._questions)
        facts = rng.choice([f for f in self._states if action in self._legal(f)])
        requests = [(action, rng.choice(self._answer_templates(generator, action, slot)))]
        if rng.random() < 0.12:
            more = rng.choice(self._user_actions)
            if self._is_coherent([action, more], facts):
                requests.append((more, rng.choice(generator.utterances.actions[more])))
        message, intents = self._write_derivable(generator, requests, rng)
        return self._finish_turn(PromptState(facts, (action, slot)), message, intents, rng)

    def _answer_templates(
        self, generator: MessageGenerator, action: str, slot: str
    ) -> list[Template]:
        answers = generator.utterances.answers[slot]
        slots = set(self._book.actions[action].slots)
        return [answer for answer in answers if slot in answer.slots and answer.slots <= slots]

    def _sample_ambiguous_turn(self, generator: MessageGenerator, rng: random.Random) -> str:
        """Return a turn with a bare value that answers no question."""
        action, slot = rng.choice([q for q in self._questions if q[1] in _AMBIGUOUS_SLOTS])
        requests = [(action, Template([Placeholder(slot)]))]
        message, _ = self._write_derivable(generator, requests, rng)
        state = PromptState(rng.choice(self._states))
        return self._finish_turn(state, message, [Intent(_CLARIFY, {})], rng)

    def _sample_event_turn(self, rng: random.Random) -> str:
        """Return a turn with an event and all actions that answer it."""
        event = rng.choice(self._events)
        answers = [a for a in self._book.actions.values() if a.event == event]
        facts = frozenset(rng.choice(answers).when)
        order = f"SO-{rng.randint(1000, 99999)}"
        start, steps = facts, Steps()
        while legal := self._book.legal(facts, event):
            given = {s: order for s in self._book.actions[legal[0]].slots if s == "order"}
            facts = self._append_step(Choice(legal[0], dict(given)), facts, steps, rng)
            if steps[-1][1] != "ok":
                break
        return document(self._book.shared, PromptState(start), order, steps, event)

    def _write_message(
        self, generator: MessageGenerator, actions: Sequence[str], facts: Facts, rng: random.Random
    ) -> tuple[str, list[Intent]]:
        """Write a message that requests actions.

        Returns:
            The message, and its intents in order of execution.
        """
        requests = [
            (action, rng.choice(generator.utterances.actions[action])) for action in actions
        ]
        # Reversed text such as "Ship it to 5 Oak Road, a kettle please" is unambiguous if only one
        # order of execution makes sense.
        backwards = rng.random() < 0.15 and not self._is_coherent(actions[::-1], facts)
        if backwards:
            requests.reverse()
        message, intents = self._write_derivable(generator, requests, rng, in_order=not backwards)
        return message, sorted(intents, key=lambda intent: actions.index(intent.action))

    def _write_derivable(
        self,
        generator: MessageGenerator,
        requests: Sequence[tuple[str, Template]],
        rng: random.Random,
        *,
        in_order: bool = True,
    ) -> tuple[str, list[Intent]]:
        """Write a message from which every argument can be derived.

        Raises:
            CorpusError: No attempt gives such a message.
        """
        for _ in range(_MAX_ATTEMPTS):
            message, intents = generator.generate(requests, rng, in_order=in_order)
            if message and all(
                is_derivable(self._book, intent.choice, message) for intent in intents
            ):
                return message, intents
        raise CorpusError(
            f"no message of {_MAX_ATTEMPTS} lets the agent derive the arguments of {requests}; "
            f"the last is {message!r}"
        )

    def _finish_turn(
        self, state: PromptState, message: str, intents: Sequence[Intent], rng: random.Random
    ) -> str:
        steps = self._answer_intents(state.facts, intents, rng)
        return document(self._book.shared, state, message, steps)

    def _answer_intents(self, facts: Facts, intents: Sequence[Intent], rng: random.Random) -> Steps:
        """Return the actions that answer the intents, in order, with random results."""
        steps: Steps = []
        expected = facts
        fallbacks: set[str] = set()
        for intent in intents:
            action = self._book.resolve(intent.action, facts)
            if action in fallbacks:
                continue  # one login serves "cancel my order, log me in"
            choice = intent.choice
            if action != intent.action:
                if intent.action in self._legal(expected):
                    continue  # an action that it depends on has failed
                done = any(action == taken.action for taken, _ in steps)
                if done or (self._is_small_talk(action) and len(intents) > 1):
                    continue
                choice = self._fallback_choice(action, intents)
                fallbacks.add(action)
            facts = self._append_step(choice, facts, steps, rng)
            expected = self._book.apply(action, expected)
        if not steps:  # every fallback was small talk, skipped beside other intents
            facts = self._append_step(self._fallback_choice(action, intents), facts, steps, rng)
        return steps

    def _fallback_choice(self, action: str, intents: Sequence[Intent]) -> Choice:
        """Return a choice of a fallback action, with values from all intents."""
        values: Arguments = {}
        for intent in reversed(intents):
            values |= intent.arguments
        slots = self._book.actions[action].slots
        return Choice(action, {slot: values[slot] for slot in slots if slot in values})

    def _append_step(self, choice: Choice, facts: Facts, steps: Steps, rng: random.Random) -> Facts:
        """Append an action with a random result; return the resulting facts."""
        action = self._book.actions[choice.action]
        refusable = any(outcome.result == "refused" for outcome in action.outcomes.values())
        result: Result = "ok"
        if set(action.required) - set(choice.arguments):
            result = "asked"
        elif refusable and rng.random() < 0.18:
            result = "refused"
        steps.append((choice, result))
        return self._book.apply(choice.action, facts) if result == "ok" else facts

    def _is_small_talk(self, action: str) -> bool:
        return self._book.flow_of[action].flow == _SMALL_TALK
