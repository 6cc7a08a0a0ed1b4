"""Samples turns: a situation, a message, and the actions that answer it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice, Result, Situation, document
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.messages import LISTED, MessageMaker, Wish
from gpt2flow.training.corpus.templates import Blank, Template
from gpt2flow.training.corpus.utterances import Language
from gpt2flow.training.errors import CorpusError

Facts = frozenset[str]
Steps = list[tuple[Choice, Result]]

_ATTEMPTS = 50
# Their actions answer a message that wishes for nothing else.
_SMALL_TALK = "conversation"
_CLARIFY = "clarify"
# An answer to no question is no wish: a bare "1042", a bare "tomorrow at nine".
_UNCLEAR_ALONE = ("order", "time")


def reachable(book: FlowBook, start: Facts) -> list[Facts]:
    """Return every state that the actions of customers lead to from `start`."""
    states = [start]
    for facts in states:
        for action in book.legal(facts):
            after = book.apply(action, facts)
            if after not in states:
                states.append(after)
    return states


def is_derivable(book: FlowBook, choice: Choice, message: str) -> bool:
    """Say whether the agent's grammar lets `choice` be written for `message`."""
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


class TurnMaker:
    """Samples turns of all flows in all languages."""

    def __init__(self, book: FlowBook, messages: Mapping[Language, MessageMaker]) -> None:
        self._book = book
        self._legal = cache(book.legal)
        self._messages = messages
        # The first fact is what holds of a customer nobody knows yet.
        self._states = reachable(book, frozenset([next(iter(book.shared.facts))]))
        self._spoken = [name for name, action in book.actions.items() if action.event is None]
        self._events = sorted({a.event for a in book.actions.values() if a.event is not None})
        self._asked = [
            (name, slot)
            for name in self._spoken
            for slot in book.actions[name].required
            if all(maker.said.answers.get(slot) for maker in messages.values())
        ]

    def documents(self, rng: random.Random) -> Iterator[str]:
        """Yield turns without end."""
        while True:
            kind = rng.random()
            if self._events and kind < 0.03:
                yield self._event(rng)
                continue
            maker = self._messages[rng.choice(list(self._messages))]
            if self._asked and kind < 0.16:
                yield self._answer(maker, rng)
            elif kind < 0.175:
                yield self._unclear(maker, rng)
            else:
                yield from self._request(maker, rng)

    def _request(self, maker: MessageMaker, rng: random.Random) -> Iterator[str]:
        """A message with one wish or more, perhaps the same one in two states."""
        target = rng.choice(self._spoken)
        legal = [facts for facts in self._states if target in self._legal(facts)]
        facts = rng.choice(legal if legal and rng.random() < 0.8 else self._states)
        wished = self._companions(target, facts, rng)
        message, wishes = self._write(maker, wished, facts, rng)
        yield self._turn(Situation(facts, self._stale_question(facts, rng)), message, wishes, rng)
        if rng.random() < 0.15:
            yield self._turn(Situation(rng.choice(self._states)), message, wishes, rng)

    def _stale_question(self, facts: Facts, rng: random.Random) -> tuple[str, str] | None:
        """Now and then, a question that the customer's message does not answer."""
        if rng.random() < 0.94:
            return None
        possible = [asked for asked in self._asked if asked[0] in self._legal(facts)]
        return rng.choice(possible) if possible else None

    def _companions(self, target: str, facts: Facts, rng: random.Random) -> list[str]:
        """The target with what else one message may wish for, in order."""
        wished = [target]
        if self._is_small_talk(target):
            return wished
        for _ in range(rng.choices((0, 1, 2), (62, 29, 9))[0]):
            after = self._hoped(wished, facts)
            enabled = set(self._legal(after)) - set(self._legal(facts))
            pools = (enabled, self._related(target), set(self._spoken))
            pool = rng.choices(pools, (4, 2, 4))[0] or set(self._spoken)
            action = rng.choice(sorted(pool))
            at = len(wished) if action in enabled else rng.randint(0, len(wished))
            longer = [*wished[:at], action, *wished[at:]]
            if self._is_sensible(longer, facts):
                wished = longer
        return wished

    def _related(self, action: str) -> set[str]:
        """The other actions that may be about the same product or order."""
        slots = set(LISTED) & set(self._book.actions[action].slots)
        others = set(self._spoken) - {action}
        return {other for other in others if slots & set(self._book.actions[other].slots)}

    def _hoped(self, wished: Sequence[str], facts: Facts) -> Facts:
        """The state if all that is wished for succeeds."""
        for action in wished:
            facts = self._book.apply(self._book.resolve(action, facts), facts)
        return facts

    def _is_sensible(self, wished: Sequence[str], facts: Facts) -> bool:
        """Whether no wish repeats, prevents or comes too early for another."""
        legal, at_last = self._legal(facts), self._legal(self._hoped(wished, facts))
        for i, action in enumerate(wished):
            before = self._legal(self._hoped(wished[:i], facts))
            repeats = action in wished[:i] and not self._is_listed(action)
            prevented = action in legal and action not in before
            early = action not in before and action in at_last
            if repeats or prevented or early or self._is_small_talk(action):
                return False
        return True

    def _is_listed(self, action: str) -> bool:
        return any(slot in LISTED for slot in self._book.actions[action].slots)

    def _answer(self, maker: MessageMaker, rng: random.Random) -> str:
        """A message that gives the slot that was asked for, perhaps with a wish."""
        action, slot = rng.choice(self._asked)
        facts = rng.choice([f for f in self._states if action in self._legal(f)])
        wished = [(action, rng.choice(self._answers(maker, action, slot)))]
        if rng.random() < 0.12:
            more = rng.choice(self._spoken)
            if self._is_sensible([action, more], facts):
                wished.append((more, rng.choice(maker.said.actions[more])))
        message, wishes = self._readable(maker, wished, rng)
        return self._turn(Situation(facts, (action, slot)), message, wishes, rng)

    def _answers(self, maker: MessageMaker, action: str, slot: str) -> list[Template]:
        slots = set(self._book.actions[action].slots)
        return [t for t in maker.said.answers[slot] if slot in t.slots and t.slots <= slots]

    def _unclear(self, maker: MessageMaker, rng: random.Random) -> str:
        """A bare value that nobody asked for."""
        action, slot = rng.choice([asked for asked in self._asked if asked[1] in _UNCLEAR_ALONE])
        message, _ = self._readable(maker, [(action, Template([Blank(slot)]))], rng)
        return self._turn(Situation(rng.choice(self._states)), message, [Wish(_CLARIFY, {})], rng)

    def _event(self, rng: random.Random) -> str:
        """An event, and all actions that answer it."""
        event = rng.choice(self._events)
        answers = [a for a in self._book.actions.values() if a.event == event]
        facts = frozenset(rng.choice(answers).when)
        order = f"SO-{rng.randint(1000, 99999)}"
        start, steps = facts, Steps()
        while legal := self._book.legal(facts, event):
            given = {s: order for s in self._book.actions[legal[0]].slots if s == "order"}
            facts = self._take(Choice(legal[0], dict(given)), facts, steps, rng)
            if steps[-1][1] != "ok":
                break
        return document(self._book.shared, Situation(start), order, steps, event)

    def _write(
        self, maker: MessageMaker, wished: Sequence[str], facts: Facts, rng: random.Random
    ) -> tuple[str, list[Wish]]:
        """Write a message with these wishes; returns them in the order to be done."""
        told = [(action, rng.choice(maker.said.actions[action])) for action in wished]
        # "Ship it to 5 Oak Road, a kettle please": only one order can be meant.
        backwards = rng.random() < 0.15 and not self._is_sensible(wished[::-1], facts)
        if backwards:
            told.reverse()
        message, wishes = self._readable(maker, told, rng, in_order=not backwards)
        return message, sorted(wishes, key=lambda wish: wished.index(wish.action))

    def _readable(
        self,
        maker: MessageMaker,
        told: Sequence[tuple[str, Template]],
        rng: random.Random,
        *,
        in_order: bool = True,
    ) -> tuple[str, list[Wish]]:
        """Write a message from which every argument can be read."""
        for _ in range(_ATTEMPTS):
            message, wishes = maker.message(told, rng, in_order=in_order)
            if message and all(is_derivable(self._book, w.choice, message) for w in wishes):
                return message, wishes
        raise CorpusError(f"what {told} says of its slots cannot be read from {message!r}")

    def _turn(
        self, situation: Situation, message: str, wishes: Sequence[Wish], rng: random.Random
    ) -> str:
        steps = self._steps(situation.facts, wishes, rng)
        return document(self._book.shared, situation, message, steps)

    def _steps(self, facts: Facts, wishes: Sequence[Wish], rng: random.Random) -> Steps:
        """The actions that answer the wishes, in order, and what they come to."""
        steps: Steps = []
        hoped = facts
        unasked: set[str] = set()
        for wish in wishes:
            action = self._book.resolve(wish.action, facts)
            if action in unasked:
                continue  # "cancel my order, log me in": one login serves both
            choice = wish.choice
            if action != wish.action:
                if wish.action in self._legal(hoped):
                    continue  # it needed something that has just failed
                done = any(action == taken.action for taken, _ in steps)
                if done or (self._is_small_talk(action) and len(wishes) > 1):
                    continue
                choice = self._instead(action, wishes)
                unasked.add(action)
            facts = self._take(choice, facts, steps, rng)
            hoped = self._book.apply(action, hoped)
        if not steps:  # small talk after all
            facts = self._take(self._instead(action, wishes), facts, steps, rng)
        return steps

    def _instead(self, action: str, wishes: Sequence[Wish]) -> Choice:
        """An action that nobody asked for, with what the message says of its slots."""
        said = {slot: value for wish in reversed(wishes) for slot, value in wish.arguments.items()}
        slots = self._book.actions[action].slots
        return Choice(action, {slot: said[slot] for slot in slots if slot in said})

    def _take(self, choice: Choice, facts: Facts, steps: Steps, rng: random.Random) -> Facts:
        """Append an action with a result; returns the facts after it."""
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
