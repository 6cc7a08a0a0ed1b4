"""Readings of a message: which one fits the shop best.

The model knows the words of a message, but not what the shop sells. Its second reading may name
a product where the first one names a word that is none.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.naming import is_named, is_negated
from gpt2flow.agent.flows.prompt import DONE, Choice
from gpt2flow.agent.flows.slots import SlotKind, named_orders
from gpt2flow.agent.operations.times import find_time, parse_time
from gpt2flow.agent.shop import CustomerSession, Database, Product
from gpt2flow.agent.shop.matching import match_product, strip_filler
from gpt2flow.agent.turns.execution import ESCALATE, SMALL_TALK
from gpt2flow.agent.turns.execution.arguments import is_plausible
from gpt2flow.agent.turns.state import session_facts

_ADDRESS, _PRODUCT, _TIME = "address", "product", "time"
# Factors for the probability of a reading that hardly makes sense, and of one that the message
# says no to.
_UNLIKELY, _NEGATED = 0.1, 0.02
# What stands before the number of an order, and not of a house.
_BEFORE_ORDER = re.compile(
    r"(?:\b(?:for|of|on|order|number|no\.?)|#|订单号?[是:]?) ?$", re.IGNORECASE
)


class Readings:
    """Judge of the readings of a message.

    Args:
        book: Loaded flows.
        database: Shop database.
        clock: Source of the current time.
    """

    def __init__(self, book: FlowBook, database: Database, clock: Clock) -> None:
        self._book = book
        self._database = database
        self._clock = clock

    def may_follow(self, choice: Choice, message: str) -> bool:
        """Return whether a choice may follow another one in a message."""
        spec = self._book.actions.get(choice.action)
        return spec is None or not spec.later_if_named or is_named(spec.words, message)

    def is_negated(self, choice: Choice, message: str) -> bool:
        """Return whether a message says no to a choice."""
        spec = self._book.actions.get(choice.action)
        return spec is not None and is_negated(spec.words, message)

    def corrected(self, denied: Choice, message: str) -> Choice | None:
        """Return what was denied with the order that a message names besides, if it is one."""
        slots = [s for s in denied.arguments if self._book.slots[s].kind is SlotKind.ORDER]
        others = set(named_orders(message)) - {str(denied.arguments[slot]) for slot in slots}
        if len(slots) != 1 or len(others) != 1:
            return None
        return Choice(denied.action, denied.arguments | {slots[0]: others.pop()})

    def likeliest(
        self, session: str, message: str, choices: Sequence[Choice], *, is_first: bool
    ) -> Choice:
        """Return the likeliest of a message's readings, in the shop's present state.

        Its confidence is its share among all readings, those that the model did not name included.

        Args:
            session: Id of the conversation.
            message: Normalized message.
            choices: Readings with the probabilities that the model gave them; at least one.
            is_first: Whether the reading is the first of its message.

        Raises:
            DatabaseError: The database failed.
        """
        merged = _merge(choices)
        rest = max(0.0, 1.0 - sum(choice.confidence for choice in merged))
        with self._database.translate_errors(), self._database.transaction() as db:
            weighed = [
                choice.confidence * self._weigh(db, session, message, choice, is_first=is_first)
                for choice in merged
            ]
        total = sum(weighed) + rest
        best = max(range(len(merged)), key=weighed.__getitem__)
        return replace(merged[best], confidence=weighed[best] / total if total else 0.0)

    def _weigh(
        self, db: Session, session: str, message: str, choice: Choice, *, is_first: bool
    ) -> float:
        """Return a factor for the probability of a reading."""
        if choice.action == DONE:
            return 1.0
        if self.is_negated(choice, message):
            return _NEGATED
        if choice.action in SMALL_TALK:
            # A message about an order is no greeting.
            is_unlikely = bool(named_orders(message))
        elif choice.action == ESCALATE:
            is_unlikely = not is_first
        else:
            is_unlikely = self._is_pointless(db, session, choice) or not all(
                self._makes_sense(db, message, slot, value)
                for slot, value in choice.arguments.items()
            )
        return _UNLIKELY if is_unlikely else 1.0

    def _is_pointless(self, db: Session, session: str, choice: Choice) -> bool:
        """Return whether nothing of a wish can be carried out now."""
        row = db.get(CustomerSession, session)
        facts = session_facts(db, row) if row is not None else frozenset({"guest"})
        fallback = self._book.fallback(choice.action, facts, choice.arguments.keys())
        if fallback is None or fallback.resume:
            return False
        slots = self._book.actions[fallback.action].slots
        return bool(choice.arguments) and not choice.arguments.keys() & set(slots)

    def _makes_sense(self, db: Session, message: str, slot: str, value: str | int) -> bool:
        """Return whether a value can be what its slot means."""
        now = self._clock()
        if slot == _PRODUCT:
            return not strip_filler(str(value)) or _is_sold(db, str(value))
        if slot == _TIME:
            return parse_time(str(value), now) is not None or find_time(message, now) is not None
        if slot == _ADDRESS and _BEFORE_ORDER.search(message.partition(str(value))[0]):
            return False
        spec = self._book.slots[slot]
        if (words := spec.words.get(str(value))) is not None:
            return is_named(words, message)
        return is_plausible(slot, spec.kind, value)


def _merge(choices: Iterable[Choice]) -> list[Choice]:
    """Return equal readings as one, with the sum of their probabilities."""
    merged = dict[str, Choice]()
    for choice in choices:
        before = merged.get(choice.text)
        confidence = choice.confidence + (before.confidence if before else 0.0)
        merged[choice.text] = replace(choice, confidence=confidence)
    return list(merged.values())


def _is_sold(db: Session, phrase: str) -> bool:
    rows = db.scalars(select(Product).options(selectinload(Product.aliases)))
    match = match_product(phrase, {product.sku: product.names for product in rows})
    return match.sku is not None
