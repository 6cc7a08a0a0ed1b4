"""Cases of work that could neither be finished nor undone."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import CUSTOMER, open_case, record, timers
from gpt2flow.agent.cases.messages import tell_customer
from gpt2flow.agent.flows.case_rules import CaseRules
from gpt2flow.agent.report import MessageSent, Timer
from gpt2flow.agent.shop import (
    INBOX,
    Case,
    CaseKind,
    CaseStatus,
    CustomerSession,
    Delivery,
    Order,
)
from gpt2flow.agent.shop.tables.orders import order_id

# Reason of a case that the model's silence opened.
_OUTAGE = "model_unavailable"


def report_failed_undo(
    db: Session, rules: CaseRules, key: str, number: str, now: datetime
) -> list[Timer]:
    """Hand an order whose action could not be undone to a person.

    The customer is informed.

    Args:
        db: Session on the shop.
        rules: Messages, and how cases are looked after.
        key: Idempotency key of the compensation; a second call for it finds the case.
        number: Number of the order.
        now: Current time.

    Returns:
        The timer of the case.
    """
    order = db.get_one(Order, order_id(number))
    case = db.scalar(select(Case).where(Case.kind == CaseKind.FAILURE, Case.reason == key))
    if case is not None:
        return timers(case)
    case = Case(
        kind=CaseKind.FAILURE,
        status=CaseStatus.OPEN,
        customer_id=order.customer_id,
        order_id=order.id,
        reason=key,
        amount=order.total,
        created_at=now,
    )
    new_timers = open_case(db, case, rules)
    tell_customer(db, case, rules, "undo_failed", now)
    return new_timers


def report_outage(
    db: Session, rules: CaseRules, session: CustomerSession, message: str, now: datetime
) -> tuple[list[MessageSent], list[Timer]]:
    """Hand a session to a person because the model does not answer.

    Args:
        db: Session on the shop.
        rules: Messages, and how cases are looked after.
        session: Conversation, locked for update.
        message: Message that the model did not answer.
        now: Current time.

    Returns:
        What the customer is told, which is nothing if an open case says so already, and the timer
        of the case.
    """
    query = select(Case).where(
        Case.session_id == session.id, Case.reason == _OUTAGE, Case.status.in_(INBOX)
    )
    case = db.scalar(query.limit(1))
    if case is not None:
        record(db, case, CUSTOMER, "written", now, text=message)
        return [], timers(case)
    case = Case(
        kind=CaseKind.HAND_OVER,
        status=CaseStatus.OPEN,
        session_id=session.id,
        customer_id=session.customer_id,
        reason=_OUTAGE,
        note=message,
        created_at=now,
    )
    new_timers = open_case(db, case, rules)
    language = "zh" if session.language == "zh" else "en"
    told = tell_customer(db, case, rules, "unavailable", now)
    # The report of the turn hands it over.
    told.contact, told.delivery = None, Delivery.ANSWERED
    return [MessageSent(to=None, language=language, text=told.text)], new_timers
