"""Questions, claims on delivered orders, and calls back."""

from datetime import timedelta

from sqlalchemy import select

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.operations.lookup import own_order, status_at, unknown_order
from gpt2flow.agent.operations.times import parse_time
from gpt2flow.agent.operations.wording import claim_word, moment, money, status_word
from gpt2flow.agent.report import Timer
from gpt2flow.agent.shop import CLAIMS, Case, CaseKind, CaseStatus, Order, OrderStatus


def answer_question(context: Context, arguments: Arguments) -> Outcome:
    """Answer from the flow file."""
    answer = context.flow.answers[str(arguments["topic"])][context.language]
    return "answered", {"answer": answer.format_map(context.flow.policies)}


def request_refund(context: Context, arguments: Arguments) -> Outcome:
    """Money back, within the time limit; above an amount a person has to approve."""
    return _claim(context, arguments, CaseKind.REFUND)


def request_return(context: Context, arguments: Arguments) -> Outcome:
    """Send the goods back."""
    return _claim(context, arguments, CaseKind.RETURN)


def request_exchange(context: Context, arguments: Arguments) -> Outcome:
    """Another one instead."""
    return _claim(context, arguments, CaseKind.EXCHANGE)


def schedule_follow_up(context: Context, arguments: Arguments) -> Outcome:
    """Promise that a person calls back, and sets the timer for it."""
    phrase = str(arguments["time"])
    due = parse_time(phrase, context.now)
    if due is None:
        return "unclear_time", {"time": phrase}
    first, last = context.number("follow_up_from_hour"), context.number("follow_up_to_hour")
    days = context.number("follow_up_max_days")
    fields: dict[str, str | int] = {
        "time": moment(due, context.language),
        "from_hour": first,
        "to_hour": last,
        "max_days": days,
    }
    open_then = first <= due.hour < last or (due.hour, due.minute) == (last, 0)
    if not open_then or not context.now < due <= context.now + timedelta(days=days):
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
    context.db.add(case)
    context.db.flush()
    context.timers.append(Timer(case=case.id, due=due))
    return "scheduled", fields | {"contact": context.member.contact, "case": case.number}


def _claim(context: Context, arguments: Arguments, kind: CaseKind) -> Outcome:
    number = str(arguments["order"])
    order = own_order(context, number)
    if order is None:
        return unknown_order(context, number)
    word = claim_word(kind, context.language)
    status = status_at(context.db, order, context.now)
    fields: dict[str, str | int] = {
        "order": order.number,
        "kind": word,
        "status": status_word(status, context.language),
        "total": money(order.total),
    }
    if status is not OrderStatus.DELIVERED or order.delivered_at is None:
        return "not_delivered", fields
    # One claim an order, whatever its kind: a refund and a return of the same
    # goods would be paid twice.
    if (claim := _open_claim(context, order)) is not None:
        of_claim = claim_word(claim.kind, context.language)
        return "already_open", fields | {"kind": of_claim, "case": claim.number}
    days, limit = (context.now - order.delivered_at).days, context.number(_limit(kind))
    if days > limit:
        return "too_late", fields | {"days": days, "limit": limit}
    unsure = kind is CaseKind.REFUND and order.total > context.amount("approval_over")
    case = Case(
        kind=kind,
        status=CaseStatus.AWAITING_APPROVAL if unsure else CaseStatus.APPROVED,
        session_id=context.session.id,
        customer_id=context.member.id,
        order_id=order.id,
        reason=str(arguments["reason"]),
        amount=order.total,
        note=context.message,
        created_at=context.now,
    )
    context.db.add(case)
    context.db.flush()
    return "needs_approval" if unsure else "approved", fields | {"case": case.number}


def _limit(kind: CaseKind) -> str:
    """The policy that says within how many days of delivery a claim is possible."""
    return f"{kind}_days"


def _open_claim(context: Context, order: Order) -> Case | None:
    query = select(Case).where(
        Case.order_id == order.id, Case.kind.in_(CLAIMS), Case.status != CaseStatus.REJECTED
    )
    return context.db.scalar(query.order_by(Case.id).limit(1))
