"""Life of a case: opening, changes, and deadlines."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.messages import tell_customer, tell_staff, without_secrets
from gpt2flow.agent.flows.case_rules import CaseRules
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.report import Timer
from gpt2flow.agent.shop import INBOX, Case, CaseEvent, CaseKind, CaseStatus, CustomerSession

# Actors that are no person.
AGENT = "agent"
CUSTOMER = "customer"
_REMINDED, _ESCALATED = 1, 2
# Cases that the shop owes its customer, who may not know of them.
_LASTING = (CaseKind.NO_COURIER, CaseKind.FAILURE)


def open_case(db: Session, case: Case, rules: CaseRules) -> list[Timer]:
    """Add a new case to the shop.

    Returns:
        The timer of its next change, if it has one.
    """
    db.add(case)
    db.flush()
    record(db, case, AGENT, "opened", case.created_at, text=case.note)
    if case.status is CaseStatus.SCHEDULED:
        case.attention_at = case.due_at
    elif case.status in INBOX:
        enter_inbox(case, case.status, rules, case.created_at)
    return timers(case)


def proposal_of(choice: Choice, call: str, secrets: Collection[str]) -> dict[str, Any]:
    """Return what the model proposed, as a case keeps it.

    Args:
        choice: Choice of the model.
        call: Key of the call of the model, which is that of the action.
        secrets: Slots whose values a case must not hold.
    """
    return {
        "action": choice.action,
        "arguments": without_secrets(choice.arguments, secrets),
        "confidence": round(choice.confidence, 3),
        "call": call,
    }


def enter_inbox(case: Case, status: CaseStatus, rules: CaseRules, now: datetime) -> None:
    """Put a case into the inbox; its deadlines begin."""
    case.status, case.urgency, case.inbox_since = status, 0, now
    case.attention_at = now + timedelta(minutes=rules.deadlines[_key(status)].remind)


def leave_inbox(case: Case, status: CaseStatus) -> None:
    """Give a case a status outside of the inbox, without deadlines."""
    case.status, case.urgency, case.attention_at = status, 0, None


def lock_case(db: Session, case_id: int) -> Case | None:
    """Return a case, locked for a change; None if there is none.

    The session of its conversation is locked first, as in a turn: two that lock the same rows in
    another order would wait for each other.
    """
    case = db.get(Case, case_id)
    if case is None:
        return None
    if case.session_id is not None:
        db.get(CustomerSession, case.session_id, with_for_update=True)
    db.refresh(case, with_for_update=True)
    return case


def record(
    db: Session,
    case: Case,
    actor: str,
    change: str,
    now: datetime,
    *,
    text: str | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Write a change of a case into its history.

    Args:
        db: Session on the shop.
        case: Case, in its state after the change.
        actor: Who made the change.
        change: Kind of change.
        now: Time of the change.
        text: Reason or reply, in words.
        details: Values of the change.
    """
    db.add(
        CaseEvent(
            case_id=case.id,
            actor=actor,
            change=change,
            status=case.status,
            text=text,
            details=details,
            created_at=now,
        )
    )


def timers(case: Case) -> list[Timer]:
    """Return the timer of a case's next change, if it has one."""
    return [Timer(case=case.id, due=case.attention_at)] if case.attention_at is not None else []


def advance(db: Session, case: Case, rules: CaseRules, now: datetime) -> None:
    """Make the change of a case that is due, if one is.

    A scheduled case falls due. One in the inbox that nobody has taken is reminded of, then
    escalated, and then expires. Each waits for the one before, however long no agent ran. A case
    that the customer cannot open again is escalated over and over instead of expiring.

    Args:
        db: Session on the shop, whose transaction has locked the case.
        case: Case to look after.
        rules: Deadlines and messages.
        now: Current time.
    """
    if case.attention_at is None or now < case.attention_at:
        return
    if case.status is CaseStatus.SCHEDULED:
        enter_inbox(case, CaseStatus.DUE, rules, now)
        record(db, case, AGENT, "due", now)
        tell_staff(db, case, rules, "due", now)
    elif case.status not in INBOX or case.assignee is not None:
        case.attention_at = None
    elif case.urgency < _ESCALATED or case.kind in _LASTING:
        _raise_urgency(db, case, rules, now)
    else:
        leave_inbox(case, CaseStatus.EXPIRED)
        record(db, case, AGENT, "expired", now)
        tell_staff(db, case, rules, "lapsed", now)
        tell_customer(db, case, rules, "expired", now)


def release_session(db: Session, case: Case) -> None:
    """Let the agent answer the customer of a conversation again.

    Another person may have been handed the same conversation; then that one attends it.
    """
    session = db.get(CustomerSession, case.session_id) if case.session_id else None
    if case.kind is not CaseKind.HAND_OVER or session is None:
        return
    other = attended_case(db, session.id)
    session.attended_by = other.assignee if other is not None else None


def attended_case(db: Session, session_id: str, by: str | None = None) -> Case | None:
    """Return the newest conversation of a session that a person has taken.

    Args:
        db: Session on the shop.
        session_id: Id of the conversation.
        by: Name of the person; None is anybody.
    """
    query = select(Case).where(
        Case.session_id == session_id,
        Case.kind == CaseKind.HAND_OVER,
        Case.assignee.is_not(None),
        Case.status.in_(INBOX),
    )
    if by is not None:
        query = query.where(Case.assignee == by)
    return db.scalar(query.order_by(Case.id.desc()).limit(1))


def waiting_case(db: Session, session: CustomerSession) -> Case | None:
    """Return this customer's conversation that waits for a person.

    Two cases would be reminded of twice, and the customer would hear of both.
    """
    query = select(Case).where(
        Case.session_id == session.id, Case.kind == CaseKind.HAND_OVER, Case.status.in_(INBOX)
    )
    cases = db.scalars(query.order_by(Case.id.desc()))
    return next((case for case in cases if case.customer_id in (None, session.customer_id)), None)


def _raise_urgency(db: Session, case: Case, rules: CaseRules, now: datetime) -> None:
    deadlines = rules.deadlines[_key(case.status)]
    case.urgency = min(case.urgency + 1, _ESCALATED)
    is_reminder = case.urgency == _REMINDED
    minutes = deadlines.escalate if is_reminder else deadlines.expire
    case.attention_at = now + timedelta(minutes=minutes)
    change = "reminded" if is_reminder else "escalated"
    record(db, case, AGENT, change, now)
    tell_staff(db, case, rules, "reminded" if is_reminder else "escalated", now)


def _key(status: CaseStatus) -> Any:
    """Return the key of a status in the rules."""
    assert status in INBOX
    return status.value
