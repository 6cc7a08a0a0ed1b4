"""Messages about cases, written into the outbox."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.case_rules import CaseMessage, CaseRules
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseEvent,
    Customer,
    CustomerSession,
    Order,
    OutboxMessage,
)
from gpt2flow.agent.telemetry.spans import current_span
from gpt2flow.agent.wording import Language, case_name

# Flow that messages about cases are listed under.
_FLOW = "cases"
_HIDDEN = "[code]"


def tell_customer(
    db: Session,
    case: Case,
    rules: CaseRules,
    message: CaseMessage,
    now: datetime,
    **fields: str,
) -> OutboxMessage:
    """Write a message to a case's customer, in their language.

    It goes to the customer's contact, or to the conversation of a customer who is not known.

    Args:
        db: Session on the shop.
        case: Case that the message is about.
        rules: Message templates.
        message: Name of the template.
        now: Current time.
        fields: Fields of the template beside those of every message about a case.
    """
    customer = db.get(Customer, case.customer_id) if case.customer_id else None
    session = db.get(CustomerSession, case.session_id) if case.session_id else None
    spoken = customer.language if customer else session.language if session else "en"
    language: Language = "zh" if spoken == "zh" else "en"
    recipient = _Recipient(Audience.CUSTOMER, customer.contact if customer else None, language)
    return _write(db, case, rules, message, now, recipient, fields)


def tell_staff(
    db: Session,
    case: Case,
    rules: CaseRules,
    message: CaseMessage,
    now: datetime,
    **fields: str,
) -> None:
    """Write a message to the staff about a case; as `tell_customer`."""
    recipient = _Recipient(Audience.STAFF, None, rules.staff_language)
    _write(db, case, rules, message, now, recipient, fields)


def sent_codes(db: Session, session_id: str, book: FlowBook) -> list[str]:
    """Return the verification codes that were sent from a session.

    They are between the shop's computer and the owner of the contact: no person has to see them.
    """
    return codes_by_session(db, [session_id], book)[session_id]


def codes_by_session(
    db: Session, session_ids: Collection[str], book: FlowBook
) -> dict[str, list[str]]:
    """Return the verification codes that were sent from each of some sessions."""
    takers = book.taking(book.actions, SlotKind.CODE)
    rows = db.execute(
        select(OutboxMessage.session_id, OutboxMessage.text).where(
            OutboxMessage.session_id.in_(session_ids),
            OutboxMessage.contact.is_not(None),
            OutboxMessage.flow.in_({book.flow_of[name].flow for name in takers}),
        )
    )
    found: dict[str, set[str]] = {session_id: set() for session_id in session_ids}
    for session_id, text in rows:
        found[str(session_id)].update(candidates(SlotKind.CODE, text))
    return {session_id: sorted(codes) for session_id, codes in found.items()}


def hide_codes(text: str, codes: Sequence[str]) -> str:
    """Return a text without codes, however their digits are grouped."""
    for code in codes:
        digits = "[ -]?".join(code)
        text = re.sub(rf"(?<!\d){digits}(?!\d)", _HIDDEN, text)
    return text


def without_codes(value: Any, codes: Sequence[str]) -> Any:
    """Return a JSON value without codes."""
    match value:
        case str():
            return hide_codes(value, codes)
        case dict():
            return {name: without_codes(each, codes) for name, each in value.items()}
        case list():
            return [without_codes(each, codes) for each in value]
        case _:
            return value


def without_secrets(arguments: Arguments, secrets: Collection[str]) -> Arguments:
    """Return arguments without the values of secret slots."""
    return {name: _HIDDEN if name in secrets else value for name, value in arguments.items()}


class _Recipient(NamedTuple):
    audience: Audience
    contact: str | None
    language: Language


def _write(  # noqa: PLR0917 - the arguments of its two callers
    db: Session,
    case: Case,
    rules: CaseRules,
    message: CaseMessage,
    now: datetime,
    recipient: _Recipient,
    fields: dict[str, str],
) -> OutboxMessage:
    template = rules.messages[message][recipient.language]
    # Each change leads to one message of a kind. Messages may be erased, the history is kept.
    change = db.scalar(select(func.max(CaseEvent.id)).where(CaseEvent.case_id == case.id)) or 0
    row = OutboxMessage(
        key=f"case/{case.id}/{change}/{message}",
        session_id=case.session_id,
        customer_id=case.customer_id,
        contact=recipient.contact,
        audience=recipient.audience,
        flow=_FLOW,
        case_id=case.id,
        language=recipient.language,
        text=template.format(**_fields(db, case, recipient.language) | fields),
        trace=current_span() or None,
        created_at=now,
    )
    db.add(row)
    db.flush()
    return row


def _fields(db: Session, case: Case, language: Language) -> dict[str, str]:
    customer = db.get(Customer, case.customer_id) if case.customer_id else None
    order = db.get(Order, case.order_id) if case.order_id else None
    return {
        "case": case.number,
        "kind": case_name(case.kind, language),
        "customer": customer.name if customer else "–",
        "order": order.number if order else "–",
    }
