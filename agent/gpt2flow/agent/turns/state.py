"""Reads from the database what is true: the state that the model sees."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from gpt2flow.agent.flows.prompt import Arguments, Situation
from gpt2flow.agent.flows.text import language
from gpt2flow.agent.operations.wording import Language
from gpt2flow.agent.shop import (
    CartLine,
    Checkout,
    CustomerSession,
    Order,
    OrderStatus,
    Shipment,
    Verification,
    order_id,
)

# E-mail addresses and order numbers are Latin in every language.
_NO_LANGUAGE = re.compile(r"\S+@\S+|\bso-?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Opening:
    """How things stand when a turn begins.

    `kept` are the arguments that the customer had given already when the
    agent asked for the slot that it is waiting for.
    """

    situation: Situation
    kept: Arguments
    language: Language

    def kept_for(self, action: str) -> Arguments:
        """What the customer had said already of an action."""
        awaiting = self.situation.awaiting
        return self.kept if awaiting and awaiting[0] == action else {}


def opening_of(db: Session, session_id: str, message: str) -> Opening:
    """The state at the beginning of a turn; a session nobody knows is a guest's."""
    session = db.get(CustomerSession, session_id)
    if session is None:
        return Opening(Situation(frozenset({"guest"})), {}, spoken_language(message, None))
    awaiting = None
    if session.awaiting_action and session.awaiting_slot:
        awaiting = (session.awaiting_action, session.awaiting_slot)
    return Opening(
        Situation(session_facts(db, session), awaiting),
        dict(session.awaiting_arguments or {}),
        spoken_language(message, session.language),
    )


def session_facts(db: Session, session: CustomerSession) -> frozenset[str]:
    """The facts of a conversation."""
    has_code = _has(db, Verification, session.id)
    identity = "member" if session.customer_id else "verifying" if has_code else "guest"
    facts = {identity}
    if _has(db, CartLine, session.id):
        facts.add("cart")
    if _has(db, Checkout, session.id):
        facts.add("confirming")
    return frozenset(facts)


def _has(db: Session, table: type[Verification | CartLine | Checkout], session_id: str) -> bool:
    return bool(db.scalar(select(exists().where(table.session_id == session_id))))


def _order_submitted(db: Session, subject: str) -> frozenset[str]:
    order = db.get_one(Order, order_id(subject))
    if order.status is OrderStatus.SUBMITTED:
        return frozenset({"submitted"})
    shipment = db.get(Shipment, order.id)
    untold = shipment is not None and shipment.details_sent_at is None
    told_of = order.status is OrderStatus.ASSIGNED and untold
    return frozenset({"assigned"} if told_of else ())


# Which facts an event looks at, computed from what it is about.
EVENT_FACTS: dict[str, Callable[[Session, str], frozenset[str]]] = {
    "order_submitted": _order_submitted,
}


def spoken_language(message: str, before: str | None) -> Language:
    """The language of a message; one without words keeps the language of the session."""
    words = _NO_LANGUAGE.sub("", message)
    if before is not None and not any(c.isalpha() for c in words):
        return "zh" if before == "zh" else "en"
    return "zh" if language(message) == "zh" else "en"
