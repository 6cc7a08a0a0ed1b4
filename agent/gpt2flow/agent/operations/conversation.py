"""Small talk, and what goes to a person because the agent cannot do it."""

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.shop import Case, CaseKind, CaseStatus

# How often in a row the agent may say that it did not understand.
_CLARIFICATIONS = 1


def greet(context: Context, arguments: Arguments) -> Outcome:
    """Say hello, by name to a member."""
    del arguments
    name = context.customer.name if context.customer else ""
    return "greeted", {"name_part": f", {name}" if name else ""}


def clarify(context: Context, arguments: Arguments) -> Outcome:
    """Ask to say it in other words, once; then a person takes over."""
    del arguments
    if context.session.clarifications < _CLARIFICATIONS:
        context.session.clarifications += 1
        return "asked_again", {}
    context.session.clarifications = 0
    return "handed_over", {"case": _hand_over(context)}


def escalate(context: Context, arguments: Arguments) -> Outcome:
    """Hand the customer over to a person."""
    del arguments
    return "handed_over", {"case": _hand_over(context)}


def _hand_over(context: Context) -> str:
    case = Case(
        kind=CaseKind.HAND_OVER,
        status=CaseStatus.OPEN,
        session_id=context.session.id,
        customer_id=context.session.customer_id,
        note=context.message,
        created_at=context.now,
    )
    context.db.add(case)
    context.db.flush()
    return case.number
