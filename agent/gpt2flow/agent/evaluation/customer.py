"""Scripted customers, who answer the agent's questions."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, language
from gpt2flow.agent.flows.slots import LAST_ORDER, SlotKind, named_orders
from gpt2flow.agent.report import ActionReport, TurnReport
from gpt2flow.agent.scenarios.format import Scenario, Turn, Wish
from gpt2flow.agent.scenarios.understanding import same_value

# Answers to the agent's questions after one scripted turn.
MAX_ANSWERS = 4
_CODE = re.compile(r"(?<!\d)\d{6}(?!\d)")
_PLACEHOLDER = "{code}"
# Fewest letters beside a code that are a request, and no "here it comes".
_REQUEST_LETTERS = {"en": 25, "zh": 10}
_YES: dict[str, str] = {"en": "yes", "zh": "是的"}
_NO: dict[str, str] = {"en": "no, ", "zh": "不是, "}


class NoCodeError(Exception):
    """Message that quotes a verification code before one was sent."""


@dataclass
class ScriptedCustomer:
    """Customer of one session, as the turns so far describe them.

    Attributes:
        turn: Latest scripted turn.
        request: Text of the latest turn that says more than a verification code.
        wants: Wishes of all turns so far.
        knows: Values of all turns so far, by slot.
    """

    turn: Turn
    request: str = ""
    wants: list[Wish] = field(default_factory=list)
    knows: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Answer of a customer to a question of the agent.

    Attributes:
        text: Text of the message.
        kind: `slot` answers a missing value; the others answer "did you mean …?".
    """

    text: str
    kind: Literal["slot", "yes", "no"]


class Script:
    """Customers of one scenario.

    Args:
        book: Loaded flows.
        names: Names of the products, by stock-keeping unit.
        scenario: Scenario that is played.
    """

    def __init__(
        self, book: FlowBook, names: Mapping[str, Collection[str]], scenario: Scenario
    ) -> None:
        self._book = book
        self._names = names
        self._says_wants = any(turn.wants is not None for turn in scenario.turns)
        self._customers: dict[str, ScriptedCustomer] = {}
        self._codes: list[str] = []

    def begin(self, turn: Turn) -> None:
        """Take in what a scripted turn says about its customer."""
        customer = self._customers.setdefault(turn.session, ScriptedCustomer(turn))
        customer.turn = turn
        if _says_more_than_code(turn) or not customer.request:
            customer.request = turn.text
        customer.wants += turn.wants or []
        customer.knows.update(turn.knows)

    def note(self, report: TurnReport) -> None:
        """Take in the verification codes that a turn sent."""
        for action in report.actions:
            outcome = self._book.actions[action.action].outcomes.get(action.outcome or "")
            if outcome and outcome.message and _PLACEHOLDER in outcome.message["en"]:
                self._codes += _CODE.findall(" ".join(m.text for m in action.messages))[-1:]

    def fill(self, text: str) -> str:
        """Replace `{code}` by the last verification code.

        Raises:
            NoCodeError: No code was sent.
        """
        if _PLACEHOLDER not in text:
            return text
        if not self._codes:
            raise NoCodeError(f"no verification code was sent before {text!r}")
        return text.replace(_PLACEHOLDER, self._codes[-1])

    def answer(self, report: TurnReport) -> Answer | None:
        """Return the answer to a turn's last question, if any."""
        asked = [action for action in report.actions if action.asked is not None]
        if not asked or (customer := self._customers.get(report.session)) is None:
            return None
        question = asked[-1]
        if question.asked == CONFIRMATION:
            return self._confirm(customer, question)
        value = self._known(customer, question)
        if value is None:
            return None
        return Answer(self._word(str(question.asked), value, report.language), "slot")

    def wishes(self, session: str) -> list[Wish] | None:
        """Return a customer's wishes so far, None if the scenario has none."""
        customer = self._customers.get(session)
        return customer.wants if customer is not None and self._says_wants else None

    def fulfils(self, wish: Wish, action: ActionReport) -> bool:
        """Return whether an action is the wish, values included."""
        said = " ".join(message.text for message in action.messages)
        return wish.action == action.action and all(
            slot in action.used and self._agree(slot, str(value), str(action.used[slot]), said)
            for slot, value in wish.arguments.items()
            if value != _PLACEHOLDER
        )

    def _agree(self, slot: str, wished: str, used: str, said: str) -> bool:
        """Return whether two values agree; `last` is the order said."""
        if self._book.slots[slot].kind is SlotKind.ORDER and LAST_ORDER in (wished, used):
            orders = named_orders(said)
            return wished in (LAST_ORDER, *orders) or not orders
        return same_value(self._book, self._names, slot, wished, used)

    def _confirm(self, customer: ScriptedCustomer, question: ActionReport) -> Answer:
        """Answer "did you mean …?"."""
        spoken = language(customer.turn.text)
        wishes = self.wishes(customer.turn.session)
        if wishes is None or any(self.fulfils(wish, question) for wish in wishes):
            return Answer(_YES[spoken], "yes")
        return Answer(_NO[spoken] + customer.request, "no")

    def _known(self, customer: ScriptedCustomer, question: ActionReport) -> str | int | None:
        slot = str(question.asked)
        if slot in customer.knows:
            return customer.knows[slot]
        wished = (w for w in customer.turn.wants or [] if w.action == question.action)
        return next((w.arguments[slot] for w in wished if slot in w.arguments), None)

    def _word(self, slot: str, value: str | int, spoken: str) -> str:
        """Return a value as a customer would write it."""
        names = self._book.slots[slot].names.get(str(value))
        return names["zh" if spoken == "zh" else "en"] if names else str(value)


def _says_more_than_code(turn: Turn) -> bool:
    """Return whether a turn says more than the code that it quotes."""
    if _PLACEHOLDER not in turn.text:
        return True
    letters = sum(map(str.isalpha, turn.text.replace(_PLACEHOLDER, "")))
    return letters >= _REQUEST_LETTERS[language(turn.text)]
