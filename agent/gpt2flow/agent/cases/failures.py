"""Cases of work that could neither be finished nor undone."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import CUSTOMER, open_case, record, timers, waiting_case
from gpt2flow.agent.cases.messages import tell_customer
from gpt2flow.agent.cases.pictures import Stop, record_stop
from gpt2flow.agent.flows.case_rules import CaseMessage, CaseRules
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

MODEL_UNAVAILABLE: Final = "model_unavailable"
"""Reason of a case that the model's silence opened."""
SCREEN_STOPPED: Final = "screen_stopped"
"""Reason of a case that a stop at a screen opened."""


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
    # An undo that stopped at a screen has a case already.
    case = _failure(db, order, Case.reason.in_((key, SCREEN_STOPPED)))
    return timers(case) if case else _open_failure(db, rules, order, key, now)[1]


def report_stopped_event(
    db: Session, rules: CaseRules, session: CustomerSession, number: str, stop: Stop
) -> list[Timer]:
    """Hand an order whose event stopped at a screen to a person.

    The customer is informed.

    Args:
        db: Session on the shop.
        rules: Messages, and how cases are looked after.
        session: Conversation in which the event was raised, locked for update.
        number: Number of the order.
        stop: What stopped, and how.

    Returns:
        The timer of the case.
    """
    order = db.get_one(Order, order_id(number))
    case = _failure(db, order, Case.reason == SCREEN_STOPPED, Case.status.in_(INBOX))
    if case is not None:
        new_timers = timers(case)
    else:
        case, new_timers = _open_failure(
            db, rules, order, SCREEN_STOPPED, stop.at, session_id=session.id
        )
    record_stop(db, case, stop)
    return new_timers


def _failure(db: Session, order: Order, *conditions: ColumnElement[bool]) -> Case | None:
    """Return the newest case of an order's failure under some conditions."""
    query = select(Case).where(
        Case.kind == CaseKind.FAILURE, Case.order_id == order.id, *conditions
    )
    return db.scalar(query.order_by(Case.id.desc()).limit(1))


def _open_failure(
    db: Session,
    rules: CaseRules,
    order: Order,
    reason: str,
    now: datetime,
    *,
    session_id: str | None = None,
) -> tuple[Case, list[Timer]]:
    """Open the case of an order's failure, and inform the customer."""
    case = Case(
        kind=CaseKind.FAILURE,
        status=CaseStatus.OPEN,
        session_id=session_id,
        customer_id=order.customer_id,
        order_id=order.id,
        reason=reason,
        amount=order.total,
        created_at=now,
    )
    new_timers = open_case(db, case, rules)
    tell_customer(db, case, rules, "undo_failed", now)
    return case, new_timers


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
        Case.session_id == session.id, Case.reason == MODEL_UNAVAILABLE, Case.status.in_(INBOX)
    )
    case = db.scalar(query.limit(1))
    if case is not None:
        record(db, case, CUSTOMER, "written", now, text=message)
        return [], timers(case)
    case = _hand_over(session, MODEL_UNAVAILABLE, message, now)
    new_timers = open_case(db, case, rules)
    return [_answer(db, case, rules, "unavailable", now)], new_timers


def report_stopped_message(
    db: Session,
    rules: CaseRules,
    session: CustomerSession,
    message: str,
    stop: Stop,
    *,
    proposal: dict[str, Any],
    answers: bool,
) -> tuple[list[MessageSent], list[Timer]]:
    """Hand a session to a person after a stop at a screen.

    A stop joins the conversation's case that waits already, if there is one.

    Args:
        db: Session on the shop.
        rules: Messages, and how cases are looked after.
        session: Conversation, locked for update.
        message: Message that was handled.
        stop: What stopped, and how.
        proposal: What the model proposed.
        answers: Whether the customer is told.

    Returns:
        What the customer is told, and the timer of the case.
    """
    case = waiting_case(db, session)
    if case is not None:
        case.customer_id = session.customer_id
        new_timers = timers(case)
    else:
        case = _hand_over(session, SCREEN_STOPPED, message, stop.at)
        case.proposal = proposal
        new_timers = open_case(db, case, rules)
    record_stop(db, case, stop)
    return [_answer(db, case, rules, "stopped", stop.at)] if answers else [], new_timers


def _hand_over(session: CustomerSession, reason: str, message: str, now: datetime) -> Case:
    return Case(
        kind=CaseKind.HAND_OVER,
        status=CaseStatus.OPEN,
        session_id=session.id,
        customer_id=session.customer_id,
        reason=reason,
        note=message,
        created_at=now,
    )


def _answer(
    db: Session, case: Case, rules: CaseRules, message: CaseMessage, now: datetime
) -> MessageSent:
    """Write a message about a case, for the report of the turn."""
    told = tell_customer(db, case, rules, message, now)
    told.contact, told.delivery = None, Delivery.ANSWERED
    return MessageSent(to=None, language=told.language, text=told.text)
