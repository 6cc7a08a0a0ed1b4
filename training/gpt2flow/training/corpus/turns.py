"""Random turns: a context, a message, and the wishes in it."""

import random
from collections.abc import Iterator, Mapping, Sequence

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.flows.grammar import admits, takers_of_code
from gpt2flow.agent.flows.prompt import Choice, PromptState, Result, document
from gpt2flow.training.corpus.contexts import ContextSampler, Facts
from gpt2flow.training.corpus.messages import (
    DEFAULT_MIX,
    Intent,
    MessageGenerator,
    Mix,
)
from gpt2flow.training.corpus.request_writer import Request
from gpt2flow.training.corpus.requests import RequestSampler
from gpt2flow.training.corpus.sources.labelled import LabelledMessages
from gpt2flow.training.corpus.sources.templates import Placeholder, Template, sample_usual
from gpt2flow.training.corpus.sources.utterances import Language
from gpt2flow.training.errors import CorpusError

Steps = list[tuple[Choice, Result]]

_MAX_ATTEMPTS = 50
_CLARIFY = "clarify"
_AFFIRM, _DENY = "affirm", "deny"
_ORDER_ANSWERS = ("confirm_order", "decline_order")
# Slots whose bare value, such as "1042" or "tomorrow at nine", is no request without a question.
_AMBIGUOUS_SLOTS = ("order", "time")
# Kinds of turns; the others are requests.
_EVENT_SHARE = 0.02
_ANSWER_SHARE = 0.11
_AMBIGUOUS_SHARE = 0.015
_FOLLOW_UP_SHARE = 0.13
_CONFIRMATION_SHARE = 0.08
_RETRACTED_SHARE = 0.04
_LABELLED_SHARE = 0.08
_COMBINED_SHARE = 0.2
_NO: dict[Language, tuple[str, ...]] = {
    "en": ("no, ", "No, ", "no ", "nope, ", "NO! ", "no. "),
    "zh": ("不是,", "不,", "不对,", "不是 ", "no, ", "不是。"),
}
# Requests in a state in which they are legal.
_LEGAL_SHARE = 0.7


class TurnGenerator:
    """Generator of random turns of all flows in all languages."""

    def __init__(
        self,
        book: FlowBook,
        messages: Mapping[Language, MessageGenerator],
        labelled: LabelledMessages | None = None,
        mix: Mix = DEFAULT_MIX,
    ) -> None:
        """Enumerate the events and questions of the flows.

        Args:
            book: Flows of the turns.
            messages: Message generator of each language.
            labelled: Messages of real customers; None uses generated ones alone.
            mix: Shares of messages with several wishes.
        """
        self._labelled = labelled or LabelledMessages()
        self._book = book
        self._messages = messages
        self._events = sorted({a.event for a in book.actions.values() if a.event is not None})
        self._questions = [
            (name, slot)
            for name in book.wishes
            for slot in book.actions[name].required
            if all(generator.utterances.answers.get(slot) for generator in messages.values())
        ]
        self._contexts = ContextSampler(book, self._questions)
        self._requests = RequestSampler(book, self._contexts, mix.more_wishes)

    def documents(self, rng: random.Random) -> Iterator[str]:
        """Yield random turns, without end."""
        makers = (
            (self._sample_event_turn, _EVENT_SHARE),
            (self._sample_answer_turn, _ANSWER_SHARE),
            (self._sample_ambiguous_turn, _AMBIGUOUS_SHARE),
            (self._sample_follow_up_turn, _FOLLOW_UP_SHARE),
            (self._sample_confirmation_turn, _CONFIRMATION_SHARE),
            (self._sample_labelled_turn, _LABELLED_SHARE),
            (self._sample_combined_turn, _COMBINED_SHARE),
        )
        shares = [share for _, share in makers]
        choices = [*(make for make, _ in makers), self._sample_request_turn]
        weights = [*shares, 1 - sum(shares)]
        while True:
            generator = self._messages[rng.choice(list(self._messages))]
            make = rng.choices(choices, weights)[0]
            if (turn := make(generator, rng)) is not None:
                yield turn

    def _sample_request_turn(self, generator: MessageGenerator, rng: random.Random) -> str:
        """Return a turn of requests, in any state."""
        target = rng.choice(self._requests.requestable)
        likely = rng.random() < _LEGAL_SHARE
        facts = self._legal_facts(target, rng) if likely else rng.choice(self._contexts.states)
        actions = self._requests.sample(target, facts, rng)
        message, intents = self._write_message(generator, actions, facts, rng)
        return self._finish_turn(self._contexts.sample(facts, rng), message, intents, rng)

    def _sample_follow_up_turn(self, generator: MessageGenerator, rng: random.Random) -> str | None:
        """Return a turn that refers to an earlier action, if possible."""
        if not generator.utterances.follow_ups:
            return None
        by_action = generator.utterances.follow_ups
        follow_up = rng.choice(by_action[rng.choice(list(by_action))])
        states = self._contexts.states
        earlier, result = follow_up.after
        facts = rng.choice(
            [self._book.apply(earlier, f) for f in states if earlier in self._contexts.legal(f)]
            if result == "ok"
            else [f for f in states if earlier in self._contexts.legal(f)]
        )
        requests = [(follow_up.action, follow_up.template)]
        requests += self._maybe_one_more(generator, [follow_up.action], facts, rng)
        message, intents = self._write_derivable(generator, requests, rng)
        slots = self._book.actions[earlier].required
        if result == "asked" and slots:
            awaiting = (earlier, rng.choice(slots))
            state = self._contexts.sample(facts, rng, awaiting=awaiting)
        else:
            state = self._contexts.sample(facts, rng, latest=follow_up.after)
        return self._finish_turn(state, message, intents, rng)

    def _sample_confirmation_turn(
        self, generator: MessageGenerator, rng: random.Random
    ) -> str | None:
        """Return a turn that answers "did you mean …?", if possible."""
        if not self._contexts.confirmable:
            return None
        proposed = rng.choice(self._contexts.confirmable)
        facts = self._legal_facts(proposed, rng)
        answer = rng.choice((_AFFIRM, _DENY))
        templates = generator.utterances.actions
        requests = [(answer, sample_usual(templates[answer], rng))]
        if answer == _DENY and rng.random() < 0.25:
            # "No, where is 1042, and log me out": the customer says all of it once more.
            alike = rng.random() < 0.5
            wish = proposed if alike else rng.choice(self._requests.requestable)
            wishes = self._requests.sample(wish, facts, rng)
            message, intents = self._write_message(generator, wishes, facts, rng)
            message = rng.choice(_NO[generator.language]) + message
        elif answer == _DENY and rng.random() < 0.45:
            # "No, SO-2213" or "no, an exchange": the right wish takes the place of the no.
            alike = rng.random() < 0.6
            wish = proposed if alike else rng.choice(self._requests.requestable)
            message, intents = self._write_derivable(
                generator,
                [(wish, sample_usual(self._wordings(generator, wish, brief=alike), rng))],
                rng,
                retracted=requests[0] if rng.random() < 0.3 else None,
            )
        else:
            if answer == _AFFIRM:
                requests += self._maybe_one_more(generator, [proposed], facts, rng)
            message, intents = self._write_derivable(generator, requests, rng)
        state = self._contexts.sample_unsure(proposed, facts, rng)
        return self._finish_turn(state, message, intents, rng)

    def _sample_labelled_turn(self, generator: MessageGenerator, rng: random.Random) -> str | None:
        """Return a turn with a real customer's message, if possible."""
        labelled = self._labelled.sample(generator.language, rng)
        filled = labelled and generator.fill(labelled, rng)
        if not filled:
            return None
        message, intents = filled
        if not all(admits(self._book, intent.choice, message) for intent in intents):
            return None
        action = intents[0].action
        if action in (_AFFIRM, _DENY):
            proposed = rng.choice(self._contexts.confirmable)
            state = self._contexts.sample_unsure(proposed, self._legal_facts(proposed, rng), rng)
            return self._finish_turn(state, message, intents, rng)
        # A mere "perfect, thanks" submits an order only where one waits for it.
        likely = action in _ORDER_ANSWERS or rng.random() < _LEGAL_SHARE
        facts = self._legal_facts(action, rng) if likely else rng.choice(self._contexts.states)
        return self._finish_turn(self._contexts.sample(facts, rng), message, intents, rng)

    def _sample_combined_turn(self, generator: MessageGenerator, rng: random.Random) -> str | None:
        """Return a turn with one wording of several wishes, if possible."""
        if not generator.utterances.combinations:
            return None
        combination = rng.choice(generator.utterances.combinations)
        action = combination.actions[0]
        likely = rng.random() < _LEGAL_SHARE
        facts = self._legal_facts(action, rng) if likely else rng.choice(self._contexts.states)
        requests: list[Request] = [combination]
        requests += self._maybe_one_more(generator, combination.actions, facts, rng)
        message, intents = self._write_derivable(generator, requests, rng)
        return self._finish_turn(self._contexts.sample(facts, rng), message, intents, rng)

    def _legal_facts(self, action: str, rng: random.Random) -> Facts:
        """Return a state in which an action is legal, if possible."""
        states = self._contexts.states
        legal = [facts for facts in states if action in self._contexts.legal(facts)]
        return rng.choice(legal or states)

    def _wordings(self, generator: MessageGenerator, action: str, *, brief: bool) -> list[Template]:
        """Return wordings of a request, brief ones if possible."""
        required = self._book.actions[action].required
        brief_ones = [
            template
            for slot in required
            for template in self._answer_templates(generator, action, slot)
        ]
        return brief_ones if brief and brief_ones else generator.utterances.actions[action]

    def _maybe_one_more(
        self, generator: MessageGenerator, actions: Sequence[str], facts: Facts, rng: random.Random
    ) -> list[tuple[str, Template]]:
        """Return one more request after some actions, or none."""
        if rng.random() < 0.12:
            more = rng.choice(self._requests.requestable)
            if all(self._requests.is_coherent([each, more], facts) for each in actions):
                return [(more, sample_usual(generator.utterances.actions[more], rng))]
        return []

    def _sample_answer_turn(self, generator: MessageGenerator, rng: random.Random) -> str | None:
        """Return a turn that answers a question, if possible."""
        if not self._questions:
            return None
        action, slot = rng.choice(self._questions)
        facts = self._legal_facts(action, rng)
        requests = [(action, sample_usual(self._answer_templates(generator, action, slot), rng))]
        requests += self._maybe_one_more(generator, [action], facts, rng)
        message, intents = self._write_derivable(generator, requests, rng)
        state = self._contexts.sample(facts, rng, awaiting=(action, slot))
        return self._finish_turn(state, message, intents, rng)

    def _answer_templates(
        self, generator: MessageGenerator, action: str, slot: str
    ) -> list[Template]:
        answers = generator.utterances.answers[slot]
        slots = set(self._book.actions[action].slots)
        return [answer for answer in answers if slot in answer.slots and answer.slots <= slots]

    def _sample_ambiguous_turn(self, generator: MessageGenerator, rng: random.Random) -> str | None:
        """Return a turn with a bare value that answers no question."""
        questions = [q for q in self._questions if q[1] in _AMBIGUOUS_SLOTS]
        if not questions:
            return None
        action, slot = rng.choice(questions)
        requests = [(action, Template([Placeholder(slot)]))]
        message, _ = self._write_derivable(generator, requests, rng)
        legal = self._contexts.legal
        # Where a code is awaited, six digits are one.
        states = [
            facts
            for facts in self._contexts.states
            if not takers_of_code(self._book, legal(facts), message)
        ]
        state = PromptState(rng.choice(states))
        return self._finish_turn(state, message, [Intent(_CLARIFY, {})], rng)

    def _sample_event_turn(self, generator: MessageGenerator, rng: random.Random) -> str | None:
        """Return a turn with an event and all actions that answer it."""
        del generator
        if not self._events:
            return None
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
            (action, sample_usual(generator.utterances.actions[action], rng)) for action in actions
        ]
        # Reversed text such as "Ship it to 5 Oak Road, a kettle please" is unambiguous if only one
        # order of execution makes sense.
        backwards = rng.random() < 0.15 and not self._requests.is_coherent(actions[::-1], facts)
        if backwards:
            requests.reverse()
        message, intents = self._write_derivable(
            generator,
            requests,
            rng,
            in_order=not backwards,
            retracted=self._maybe_retracted(generator, actions, rng),
        )
        return message, sorted(intents, key=lambda intent: actions.index(intent.action))

    def _maybe_retracted(
        self, generator: MessageGenerator, actions: Sequence[str], rng: random.Random
    ) -> tuple[str, Template] | None:
        """Return a request that the customer takes back at once, usually None."""
        if not generator.utterances.retractions or self._requests.is_small_talk(actions[0]):
            return None
        if rng.random() > _RETRACTED_SHARE:
            return None
        others = [
            a
            for a in self._requests.requestable
            if a not in actions and not self._requests.is_small_talk(a)
        ]
        if not others:
            return None
        other = rng.choice(others)
        return other, sample_usual(generator.utterances.actions[other], rng)

    def _write_derivable(
        self,
        generator: MessageGenerator,
        requests: Sequence[Request],
        rng: random.Random,
        *,
        in_order: bool = True,
        retracted: tuple[str, Template] | None = None,
    ) -> tuple[str, list[Intent]]:
        """Write a message from which every argument can be derived.

        Raises:
            CorpusError: No attempt gives such a message.
        """
        for _ in range(_MAX_ATTEMPTS):
            message, intents = generator.generate(
                requests, rng, in_order=in_order, retracted=retracted
            )
            if message and all(admits(self._book, intent.choice, message) for intent in intents):
                return message, intents
        raise CorpusError(
            f"no message of {_MAX_ATTEMPTS} lets the agent derive the arguments of {requests}; "
            f"the last is {message!r}"
        )

    def _finish_turn(
        self, state: PromptState, message: str, intents: Sequence[Intent], rng: random.Random
    ) -> str:
        """Return the turn in which the model names each wish.

        A wish that is not legal is named all the same: the agent resolves it.
        """
        facts, steps = state.facts, Steps()
        for intent in intents:
            facts = self._append_step(intent.choice, facts, steps, rng)
        return document(self._book.shared, state, message, steps)

    def _append_step(self, choice: Choice, facts: Facts, steps: Steps, rng: random.Random) -> Facts:
        """Append an action with a random result; return the resulting facts."""
        action = self._book.actions[choice.action]
        if not holds(action.when, facts):
            steps.append((choice, "blocked"))
            return facts
        result = self._contexts.sample_result(choice.action, rng)
        if set(action.required) - set(choice.arguments):
            result = "asked"
        steps.append((choice, result))
        return self._book.apply(choice.action, facts) if result == "ok" else facts
