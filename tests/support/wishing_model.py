"""Model that answers with what the customers of a scenario want."""

import re
from collections.abc import Iterator

from tests.support.scripted_model import OneReading

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, DONE, Choice, normalize
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.agent.scenarios import Scenario
from gpt2flow.agent.scenarios.format import Turn
from gpt2flow.agent.turns.model import ModelAnswer

_AWAITING = re.compile(r"awaiting (\w+) (\w+)")
_CODE = "000000"
_YES = ("yes", "是的")


class WishingModel(OneReading):
    """Perfect model of one scenario, which reads its customers' minds."""

    def __init__(self, book: FlowBook, scenario: Scenario) -> None:
        self._book = book
        self._turns = list(scenario.turns)

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        del grammar, session
        head, _, done = prompt.partition("<|act|>")
        position = done.count("<|result|>")
        choices = list(self._event(head) if "<|event|>" in head else self._message(head))
        choice = choices[position] if position < len(choices) else Choice(DONE)
        return ModelAnswer(choice.text, 1.0, 20, 8, "wishing")

    def _event(self, head: str) -> Iterator[Choice]:
        state, _, event = head.removeprefix("<|state|>").partition("<|event|>")
        facts, name = frozenset(state.split()), event.split()[0]
        while legal := self._book.legal(facts, name):
            yield Choice(legal[0])
            facts = self._book.apply(legal[0], facts)

    def _message(self, head: str) -> Iterator[Choice]:
        state, _, message = head.partition("<|user|>")
        turn = next((turn for turn in self._turns if _says(turn, message)), None)
        if turn is not None:
            for wish in turn.wants or []:
                arguments = dict(wish.arguments)
                if wish.action == "verify":
                    arguments["code"] = (candidates(SlotKind.CODE, message) or [_CODE])[0]
                yield Choice(wish.action, arguments)
        elif (asked := _AWAITING.search(state)) and asked[2] == CONFIRMATION:
            yield Choice("affirm" if message in _YES else "deny")
        elif asked:
            yield Choice(asked[1], {asked[2]: self._value(asked[2], message)})

    def _value(self, slot: str, message: str) -> str | int:
        spec = self._book.slots[slot]
        if spec.kind is SlotKind.ENUM:
            names = spec.names.items()
            return next(value for value, words in names if message in words.values())
        if spec.kind is SlotKind.SPAN:
            return message
        found = candidates(spec.kind, message)[0]
        return int(found) if spec.kind is SlotKind.INTEGER else found


def _says(turn: Turn, message: str) -> bool:
    parts = [re.escape(normalize(part)) for part in re.split(r"\{code\}", turn.text)]
    pattern = r"\s*\d{6}\s*".join(parts)
    # The agent reads a message in capitals in lower case.
    return re.fullmatch(pattern, message, re.IGNORECASE) is not None
