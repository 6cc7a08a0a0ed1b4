"""Life of a case: its opening, its changes, and what happens if nobody takes it."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from gpt2flow.agent.cases.messages import tell_customer, tell_staff
from gpt2flow.agent.flows.case_rules import CaseRules
from gpt2flow.agent.report import Timer
from gpt2flow.agent.shop import INBOX, Case, CaseEvent, CaseStatus, CustomerSession

# Actors that are no person.
AGENT = "agent"
CUSTOMER = "customer"
_REMINDED, _ESCALATED = 1, 2


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


def enter_inbox(case: Case, status: CaseStatus, rules: CaseRules, now: datetime) -> None:
    """Put a case into the inbox; its deadlines begin."""
    case.status, case.urgency, case.inbox_since = status, 0, now
    case.attention_at = now + timedelta(minutes=rules.deadlines[_key(status)].remind)


def leave_inbox(case: Case, status: CaseStatus) -> None:
    """Give a case a status outside of the inbox; nothing happens by itself any more."""
    case.status, case.attention_at = status, None


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
    escalated, and then expires. Each waits for the one before, however long no agent ran.

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
    elif case.urgency < _ESCALATED:
        _raise_urgency(db, case, rules, now)
    else:
        leave_inbox(case, CaseStatus.EXPIRED)
        record(db, case, AGENT, "expired", now)
        release_session(db, case)
        tell_customer(db, case, rules, "expired", now)


def release_session(db: Session, case: Case) -> None:
    """Let the agent answer the customer of a case again."""
    session = db.get(CustomerSession, case.session_id) if case.session_id else None
    if session is not None:
        session.attended_by = None


def _raise_urgency(db: Session, case: Case, rules: CaseRules, now: datetime) -> None:
    deadlines = rules.deadlines[_key(case.status)]
    case.urgency += 1
    is_reminder = case.urgency == _REMINDED
    minutes = deadlines.escalate if is_reminder else deadlines.expire
    case.attention_at = now + timedelta(minutes=minutes)
    change = "reminded" if is_reminder else "escalated"
    record(db, case, AGENT, change, now)
    tell_staff(db, case, rules, "reminded" if is_reminder else "escalated", now)


def _key(status: CaseStatus) -> Any:
    """Return the name of a status in the inbox, as the rules have it."""
    assert status in INBOX
    return status.value
