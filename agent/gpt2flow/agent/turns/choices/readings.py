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
from gpt2flow.agent.flows.slots import LAST_ORDER, SlotKind, named_orders, negated
from gpt2flow.agent.operations.times import find_time, parse_time
from gpt2flow.agent.shop import CustomerSession, Database, Order, Product, order_id
from gpt2flow.agent.shop.matching import match_product, strip_filler
from gpt2flow.agent.turns.execution import ESCALATE, SMALL_TALK
from gpt2flow.agent.turns.execution.arguments import is_plausible
from gpt2flow.agent.turns.state import session_facts

_ADDRESS, _PRODUCT, _TIME = "address", "product", "time"
# Factors for the probability of a reading that hardly makes sense, of one whose value has other
# names, and of one that the message says no to.
_UNLIKELY, _UNNAMED, _NEGATED = 0.1, 0.3, 0.02
# What stands before the number of an order, and not of a house.
_BEFORE_ORDER = re.compile(r"(?:\b(?:for|of|order)|#|订单号?[是:]?) ?$", re.IGNORECASE)


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
        """Return whether a message negates a choice that has a question."""
        spec = self._book.actions.get(choice.action)
        return spec is not None and spec.question is not None and is_negated(spec.words, message)

    def corrected(self, session: str, message: str, denied: Choice) -> Choice | None:
        """Return what was denied with the other order that a message names.

        There is none unless exactly one is named besides, and it is the customer's. A text that
        was denied with the order may be the wrong one.

        Args:
            session: Id of the conversation.
            message: Normalized message.
            denied: Choice that the message denies.

        Raises:
            DatabaseError: The database failed.
        """
        kinds = {slot: self._book.slots[slot].kind for slot in denied.arguments}
        slots = [slot for slot, kind in kinds.items() if kind is SlotKind.ORDER]
        if len(slots) != 1 or SlotKind.SPAN in kinds.values():
            return None
        before = str(denied.arguments[slots[0]])
        others = set(named_orders(message)) - negated(SlotKind.ORDER, message) - {before}
        if before == LAST_ORDER or len(others) != 1:
            return None
        number = others.pop()
        with self._database.translate_errors(), self._database.transaction() as db:
            row, order = db.get(CustomerSession, session), db.get(Order, order_id(number))
            if row is None or order is None or order.customer_id != row.customer_id:
                return None
        return Choice(denied.action, denied.arguments | {slots[0]: number})

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
        if is_unlikely:
            return _UNLIKELY
        return 1.0 if self._is_named(choice, message) else _UNNAMED

    def _is_named(self, choice: Choice, message: str) -> bool:
        """Return whether a message names each value that has words."""
        words = (
            self._book.slots[slot].words.get(str(value)) for slot, value in choice.arguments.items()
        )
        return all(is_named(each, message) for each in words if each)

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
        if slot == _ADDRESS and _begins_with_order(str(value), message):
            return False
        return is_plausible(slot, self._book.slots[slot].kind, value)


def _begins_with_order(address: str, message: str) -> bool:
    """Return whether an address begins with the number of an order."""
    before, found, _ = message.casefold().partition(address.casefold())
    orders = tuple(order.removeprefix("SO-") for order in named_orders(message))
    return bool(found) and address.startswith(orders) and bool(_BEFORE_ORDER.search(before))


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
