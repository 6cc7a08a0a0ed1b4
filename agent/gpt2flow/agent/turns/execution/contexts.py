"""Context and facts of an action, and the check of both."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.operations import OPERATIONS, Context
from gpt2flow.agent.shop import Customer, CustomerSession, Order, order_id
from gpt2flow.agent.turns.execution.task import Task
from gpt2flow.agent.turns.execution.wishes import proposed_wish
from gpt2flow.agent.turns.state import EVENT_FACTS, session_facts


def action_facts(db: Session, session: CustomerSession, task: Task) -> frozenset[str]:
    """Return the facts of the conversation, or of the event's subject."""
    if task.event is not None:
        return EVENT_FACTS[task.event.name](db, task.event.subject)
    return session_facts(db, session)


def new_context(
    book: FlowBook,
    db: Session,
    session: CustomerSession,
    task: Task,
    *,
    now: datetime,
    new_code: Callable[[], str],
) -> Context:
    """Return the context that the operation of an action runs in.

    Args:
        book: Loaded flows.
        db: Session on the shop.
        session: Conversation, locked for update.
        task: Request to execute the action.
        now: Current time.
        new_code: Generator of verification codes.
    """
    customer = db.get(Customer, session.customer_id) if session.customer_id else None
    language = task.language
    if task.event is not None:
        # The session may have logged out since, so the order identifies the customer.
        order = db.get_one(Order, order_id(task.event.subject))
        customer = db.get_one(Customer, order.customer_id)
        language = "zh" if customer.language == "zh" else "en"
    elif customer is not None:
        customer.language = language
    return Context(
        key=task.key,
        db=db,
        session=session,
        customer=customer,
        flow=book.flow_of[task.choice.action],
        case_rules=book.cases,
        choice=task.choice,
        action=task.choice.action,
        message=task.message,
        language=language,
        now=now,
        new_code=new_code,
        secrets=book.secret_slots,
        proposed=proposed_wish(session),
        recipient=customer.contact if customer is not None and task.event else None,
    )


def check_operations(book: FlowBook) -> None:
    """Validate that every operation and event that the flows name is implemented.

    Raises:
        FlowError: An operation, an event or a compensation is unknown.
    """
    for name, action in book.actions.items():
        for operation in filter(None, (action.operation, action.compensation)):
            if operation not in OPERATIONS:
                raise FlowError(f"action {name}: unknown operation {operation!r}")
        for event in filter(None, (action.event, action.raises)):
            if event not in EVENT_FACTS:
                raise FlowError(f"action {name}: unknown event {event!r}")
        if action.compensation and action.compensation not in book.actions:
            raise FlowError(f"action {name}: unknown compensating action {action.compensation!r}")
