"""Operations for questions, claims on delivered orders and follow-up calls."""

import re
from datetime import timedelta

from sqlalchemy import func, select

from gpt2flow.agent.cases.life import (
    CUSTOMER,
    enter_inbox,
    leave_inbox,
    open_case,
    record,
    timers,
)
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.operations.lookup import on_own_order, status_at
from gpt2flow.agent.operations.times import parse_time
from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.shop import (
    CLAIMS,
    Case,
    CaseEvent,
    CaseKind,
    CaseStatus,
    Order,
    OrderStatus,
)
from gpt2flow.agent.shop.tables.payments import request_payment, void_refund
from gpt2flow.agent.wording import (
    approval_part,
    claim_name,
    format_datetime,
    format_money,
    status_name,
    with_article,
)

# Wait before a refund of flows that do not say.
_REFUND_WAIT_MINUTES = 1440
_INSTEAD = re.compile(
    r"\b(?:instead|rather|swap (?:it|that) for|change (?:it|that|this|my \w+) (?:in)?to|"
    r"not (?:a|the) (?:refund|return|exchange)|changed? my mind|on second thou?ghts?|"
    r"switch (?:it|that|this)?)\b"
    r"|改|换成|还是|算了|不(?:用|想|要)?(?:退|换)|(?:退款|退货|换货)(?:不要|算了)",
    re.IGNORECASE,
)


def answer_question(context: Context, arguments: Arguments) -> Outcome:
    """Answer a question with the flow file's text on its topic."""
    answer = context.flow.answers[str(arguments["topic"])][context.language]
    return "answered", {"answer": answer.format_map(context.flow.policies)}


@on_own_order
def request_refund(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Open a refund claim within the time limit.

    A person has to approve a refund above the `approval_over` policy.
    """
    return _open_claim(context, arguments, order, CaseKind.REFUND)


@on_own_order
def request_return(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Open a return claim within the time limit."""
    return _open_claim(context, arguments, order, CaseKind.RETURN)


@on_own_order
def request_exchange(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Open an exchange claim within the time limit."""
    return _open_claim(context, arguments, order, CaseKind.EXCHANGE)


def schedule_follow_up(context: Context, arguments: Arguments) -> Outcome:
    """Schedule a follow-up call by a person and set its timer."""
    phrase = str(arguments["time"])
    due = parse_time(phrase, context.now)
    if due is None:
        return "unclear_time", {"time": phrase}
    first, last = context.int_policy("follow_up_from_hour"), context.int_policy("follow_up_to_hour")
    days = context.int_policy("follow_up_max_days")
    fields: dict[str, str | int] = {
        "time": format_datetime(due, context.language),
        "from_hour": first,
        "to_hour": last,
        "max_days": days,
    }
    within_hours = first <= due.hour < last or (due.hour, due.minute) == (last, 0)
    if not within_hours or not context.now < due <= context.now + timedelta(days=days):
        return "not_open", fields
    case = Case(
        kind=CaseKind.FOLLOW_UP,
        status=CaseStatus.SCHEDULED,
        session_id=context.session.id,
        customer_id=context.member.id,
        due_at=due,
        note=context.message,
        created_at=context.now,
    )
    context.timers += open_case(context.db, case, context.case_rules)
    return "scheduled", fields | {"contact": context.member.contact, "case": case.number}


def _open_claim(context: Context, arguments: Arguments, order: Order, kind: CaseKind) -> Outcome:
    word = claim_name(kind, context.language)
    status = status_at(context.db, order, context.now)
    fields: dict[str, str | int] = {
        "order": order.number,
        "kind": word,
        "a_kind": with_article(word, context.language),
        "status": status_name(status, context.language),
        "total": format_money(order.total),
    }
    if status is not OrderStatus.DELIVERED or order.delivered_at is None:
        return "not_delivered", fields
    # An order has one claim of any kind: a refund and a return would pay twice.
    claim = find_open_claim(context, order)
    if claim is not None and not _may_change(claim, kind, context.message):
        return "already_open", fields | _claim_fields(context, claim)
    since, limit = context.now - order.delivered_at, context.int_policy(_limit_policy(kind))
    days = since.days
    # A customer who was in time does not pay for a claim that the shop let expire.
    if (since - _time_in_expired_claims(context, order)).days > limit:
        return "too_late", fields | {"days": days, "limit": limit}
    # Last, because it takes the refund back.
    if claim is not None and not void_refund(context.db, claim.id):
        return "already_open", fields | _claim_fields(context, claim)
    needs_approval = kind is CaseKind.REFUND and order.total > context.money_policy("approval_over")
    if claim is not None:
        _change_claim(context, claim, kind, needs_approval=needs_approval)
        part = approval_part(context.language, needed=needs_approval)
        return "changed", fields | {"case": claim.number, "approval_part": part}
    case = Case(
        kind=kind,
        status=CaseStatus.AWAITING_APPROVAL if needs_approval else CaseStatus.APPROVED,
        session_id=context.session.id,
        customer_id=context.member.id,
        order_id=order.id,
        reason=str(arguments["reason"]),
        amount=order.total,
        note=context.message,
        created_at=context.now,
    )
    context.timers += open_case(context.db, case, context.case_rules)
    if kind is CaseKind.REFUND and not needs_approval:
        _pay_back(context, case, order)
    return "needs_approval" if needs_approval else "approved", fields | {"case": case.number}


def _claim_fields(context: Context, claim: Case) -> dict[str, str | int]:
    """Return the message fields of a claim that is open already."""
    kind = claim_name(claim.kind, context.language)
    return {
        "kind": kind,
        "a_kind": with_article(kind, context.language),
        "case": claim.number,
    }


def _may_change(claim: Case, kind: CaseKind, message: str) -> bool:
    """Return whether a customer may make a claim one of another kind.

    What a person has approved or closed, only a person changes.
    """
    is_decided = claim.status is CaseStatus.CLOSED or (
        claim.status is CaseStatus.APPROVED and claim.assignee is not None
    )
    return claim.kind is not kind and not is_decided and says_instead(message)


def _change_claim(context: Context, claim: Case, kind: CaseKind, *, needs_approval: bool) -> None:
    """Change the kind of a claim, and take it from its assignee."""
    before, claim.kind, claim.note = claim.kind, kind, context.message
    claim.assignee = None
    if needs_approval:
        enter_inbox(claim, CaseStatus.AWAITING_APPROVAL, context.case_rules, context.now)
        context.timers += timers(claim)
    else:
        leave_inbox(claim, CaseStatus.APPROVED)
        if kind is CaseKind.REFUND:
            _pay_back(context, claim, context.db.get_one(Order, claim.order_id))
    details = {"from": before.value, "to": kind.value}
    record(
        context.db, claim, CUSTOMER, "changed", context.now, text=context.message, details=details
    )


def _pay_back(context: Context, claim: Case, order: Order) -> None:
    """Request the refund of an approved claim.

    Until it is made, the claim can be changed.
    """
    minutes = context.int_policy("refund_wait_minutes", _REFUND_WAIT_MINUTES)
    refund = request_payment(
        context.db,
        PaymentKind.REFUND,
        order,
        order.total,
        context.now,
        not_before=context.now + timedelta(minutes=minutes),
        case_id=claim.id,
    )
    context.payments.append(refund.id)


def says_instead(message: str) -> bool:
    """Return whether a message asks for one thing in place of another."""
    return bool(_INSTEAD.search(message))


def _limit_policy(kind: CaseKind) -> str:
    """Return the name of the policy that limits the days since delivery."""
    return f"{kind}_days"


def _time_in_expired_claims(context: Context, order: Order) -> timedelta:
    """Return the time that claims on an order waited until they expired."""
    began = func.coalesce(Case.inbox_since, Case.created_at, type_=Case.created_at.type)
    query = (
        select(began, CaseEvent.created_at)
        .join(CaseEvent, CaseEvent.case_id == Case.id)
        .where(
            Case.order_id == order.id,
            Case.kind.in_(CLAIMS),
            Case.status == CaseStatus.EXPIRED,
            CaseEvent.change == "expired",
        )
    )
    spans = [max(ended - begun, timedelta(0)) for begun, ended in context.db.execute(query)]
    return sum(spans, timedelta(0))


def find_open_claim(context: Context, order: Order) -> Case | None:
    """Return an order's claim that was neither rejected nor has expired."""
    query = select(Case).where(
        Case.order_id == order.id,
        Case.kind.in_(CLAIMS),
        Case.status.not_in((CaseStatus.REJECTED, CaseStatus.EXPIRED)),
    )
    return context.db.scalar(query.order_by(Case.id).limit(1))
