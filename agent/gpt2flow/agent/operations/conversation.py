"""Operations for small talk and for handing over to a person."""

from gpt2flow.agent.cases.life import open_case
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.shop import Case, CaseKind, CaseStatus

# Clarifications in a row before a person takes over.
_MAX_CLARIFICATIONS = 1


def greet(context: Context, arguments: Arguments) -> Outcome:
    """Greet the customer, a member by name."""
    del arguments
    name = context.customer.name if context.customer else ""
    return "greeted", {"name_part": f", {name}" if name else ""}


def clarify(context: Context, arguments: Arguments) -> Outcome:
    """Ask the customer to rephrase; hand over if that was already asked."""
    del arguments
    if context.session.clarifications < _MAX_CLARIFICATIONS:
        context.session.clarifications += 1
        return "asked_again", {}
    context.session.clarifications = 0
    return "handed_over", {"case": _hand_over(context)}


def affirm(context: Context, arguments: Arguments) -> Outcome:
    """Take a yes to "did you mean …?" and resume the wish."""
    del arguments
    if context.proposed is not None:
        wanted = context.proposed.model_dump(mode="json") | {"confirmed": True}
        context.session.wanted = [wanted, *context.session.wanted]
    return "affirmed", {}


def deny(context: Context, arguments: Arguments) -> Outcome:
    """Take a no to "did you mean …?"; other wishes may wait."""
    del arguments
    return "denied_one" if context.session.wanted else "denied", {}


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
        proposal={
            "action": context.choice.action,
            "arguments": context.choice.arguments,
            "confidence": round(context.choice.confidence, 3),
        },
        created_at=context.now,
    )
    context.timers += open_case(context.db, case, context.case_rules)
    return case.number
