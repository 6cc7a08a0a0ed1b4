"""Operations for small talk and for handing over to a person."""

from typing import Any

from gpt2flow.agent.cases.life import CUSTOMER, open_case, proposal_of, record, waiting_case
from gpt2flow.agent.flows.naming import says_more_than_no
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
    goes_on = bool(context.session.wanted) or says_more_than_no(context.message)
    return "denied_one" if goes_on else "denied", {}


def escalate(context: Context, arguments: Arguments) -> Outcome:
    """Hand the customer over to a person."""
    del arguments
    return "handed_over", {"case": _hand_over(context)}


def _hand_over(context: Context) -> str:
    """Open a case for a person, unless one waits already."""
    proposal = proposal_of(context.choice, context.key, context.secrets)
    waiting = waiting_case(context.db, context.session)
    if waiting is not None:
        waiting.customer_id = context.session.customer_id
        _note_again(context, waiting, proposal)
        return waiting.number
    case = Case(
        kind=CaseKind.HAND_OVER,
        status=CaseStatus.OPEN,
        session_id=context.session.id,
        customer_id=context.session.customer_id,
        note=context.message,
        proposal=proposal,
        created_at=context.now,
    )
    context.timers += open_case(context.db, case, context.case_rules)
    return case.number


def _note_again(context: Context, case: Case, proposal: dict[str, Any]) -> None:
    record(
        context.db,
        case,
        CUSTOMER,
        "asked_again",
        context.now,
        text=context.message,
        details=proposal,
    )
