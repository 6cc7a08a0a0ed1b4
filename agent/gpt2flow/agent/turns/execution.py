"""Execution of one action: operation, message and record in one transaction."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy.orm import Session

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import FlowError, ModelError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.operations import OPERATIONS, Context, infer_arguments
from gpt2flow.agent.operations.wording import Language
from gpt2flow.agent.report import ActionReport, MessageSent, Step
from gpt2flow.agent.shop import (
    Case,
    CaseStatus,
    Customer,
    CustomerSession,
    Database,
    ExecutedAction,
    Order,
    OutboxMessage,
    order_id,
)
from gpt2flow.agent.turns.changes import collect_changes, merge_changes
from gpt2flow.agent.turns.state import EVENT_FACTS, TurnState, read_turn_state, session_facts

# A message that is not understood leaves the open question unanswered.
_CLARIFY = "clarify"


class Event(NamedTuple):
    """Event that concerns an order.

    Attributes:
        name: Name of the event.
        subject: Number of the order.
    """

    name: str
    subject: str


@dataclass(frozen=True)
class Task:
    """Request to execute an action.

    Attributes:
        key: Idempotency key; a key executes at most once.
        session: Id of the conversation.
        message: Normalized message, or the subject of the event.
        choice: Action and arguments to execute.
        language: Language of the message.
        pending_arguments: Arguments given before the question that this action answers.
        is_first: Whether this is the first action of a message.
        event: Event that the action handles; None for a customer message.
        is_compensation: Whether the action undoes the one that raised the event. Only
            code sets this, so the action need not be legal.
    """

    key: str
    session: str
    message: str
    choice: Choice
    language: Language = "en"
    pending_arguments: Arguments = field(default_factory=dict)
    is_first: bool = False
    event: Event | None = None
    is_compensation: bool = False


class Executor:
    """Executor of actions in the shop.

    Args:
        book: Loaded flows.
        database: Shop database.
        clock: Source of the current time.
        new_code: Generator of verification codes.

    Raises:
        FlowError: The flows refer to an unknown operation or event.
    """

    def __init__(
        self, book: FlowBook, database: Database, clock: Clock, new_code: Callable[[], str]
    ) -> None:
        check_operations(book)
        self._book = book
        self._database = database
        self._clock = clock
        self._new_code = new_code

    def turn_state(self, session_id: str, message: str) -> TurnState:
        """Return the state of a session before a message is handled."""
        with self._database.translate_errors(), self._database.transaction() as db:
            return read_turn_state(db, session_id, message)

    def event_facts(self, event: Event) -> frozenset[str]:
        """Return the facts of an event's subject."""
        with self._database.translate_errors(), self._database.transaction() as db:
            return EVENT_FACTS[event.name](db, event.subject)

    def execute(self, task: Task) -> Step:
        """Execute an action, or return the recorded step of its key.

        Raises:
            ModelError: The flows do not allow the action in the current state.
            DatabaseError: The database failed; nothing was changed.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            session = self._lock_session(db, task)
            record = db.get(ExecutedAction, task.key)
            if record is not None:
                return Step.model_validate(record.step)
            return self._execute_new(db, session, task)

    def mark_due(self, case: int) -> None:
        """Mark a scheduled follow-up as due, so that it enters the inbox."""
        with self._database.translate_errors(), self._database.transaction() as db:
            row = db.get_one(Case, case, with_for_update=True)
            if row.status is CaseStatus.SCHEDULED:
                row.status = CaseStatus.DUE

    def _lock_session(self, db: Session, task: Task) -> CustomerSession:
        """Return the session row, locked for update; create it if missing."""
        session = db.get(CustomerSession, task.session, with_for_update=True)
        if session is None:
            session = CustomerSession(
                id=task.session, language=task.language, created_at=self._clock()
            )
            db.add(session)
            db.flush()
        return session

    def _execute_new(self, db: Session, session: CustomerSession, task: Task) -> Step:
        self._check_legal(db, session, task)
        context = self._context(db, session, task)
        collect_changes(db, context.changes)
        if task.event is None:
            _update_session(session, task)
        used = self._collect_arguments(context, task)
        required = self._book.actions[task.choice.action].required
        missing = next((slot for slot in required if slot not in used), None)
        if missing is None:
            report = self._run_operation(context, task, used)
        else:
            report = self._ask_for_slot(context, task, used, missing)
        return self._record(context, task, report)

    def _check_legal(self, db: Session, session: CustomerSession, task: Task) -> None:
        """Verify that the flows allow the action, independently of the grammar."""
        if task.is_compensation:
            return
        action = self._book.actions.get(task.choice.action)
        event = task.event.name if task.event else None
        facts = self._facts(db, session, task)
        if action is None or action.event != event or not holds(action.when, facts):
            raise ModelError(f"the model chose {task.choice.action!r}, which is not allowed now")

    def _facts(self, db: Session, session: CustomerSession, task: Task) -> frozenset[str]:
        if task.event is not None:
            return EVENT_FACTS[task.event.name](db, task.event.subject)
        return session_facts(db, session)

    def _context(self, db: Session, session: CustomerSession, task: Task) -> Context:
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
            db=db,
            session=session,
            customer=customer,
            flow=self._book.flow_of[task.choice.action],
            action=task.choice.action,
            message=task.message,
            language=language,
            now=self._clock(),
            new_code=self._new_code,
            recipient=customer.contact if customer is not None and task.event else None,
        )

    def _collect_arguments(self, context: Context, task: Task) -> Arguments:
        """Return the chosen, pending and inferred arguments, in slot order."""
        spec = self._book.actions[task.choice.action]
        values = task.pending_arguments | task.choice.arguments
        if task.event is not None:
            orders = (s for s in spec.slots if self._book.slots[s].kind is SlotKind.ORDER)
            values |= dict.fromkeys(orders, task.event.subject)
        missing = [slot for slot in spec.required if slot not in values]
        values |= infer_arguments(context, spec.operation, missing)
        return {slot: values[slot] for slot in spec.slots if slot in values}

    def _run_operation(self, context: Context, task: Task, used: Arguments) -> ActionReport:
        spec = self._book.actions[task.choice.action]
        name, fields = OPERATIONS[spec.operation](context, used)
        outcome = spec.outcomes[name]
        messages = []
        if outcome.message is not None:
            text = outcome.message[context.language].format(**fields)
            messages.append(self._send_message(context, task, text))
        return ActionReport(
            action=task.choice.action,
            arguments=task.choice.arguments,
            used=used,
            result=outcome.result,
            outcome=name,
            messages=messages,
        )

    def _ask_for_slot(
        self, context: Context, task: Task, used: Arguments, slot: str
    ) -> ActionReport:
        """Ask the customer for a slot, and store the other arguments."""
        context.session.awaiting_action = task.choice.action
        context.session.awaiting_slot = slot
        context.session.awaiting_arguments = dict(used)
        text = self._book.slots[slot].ask[context.language]
        return ActionReport(
            action=task.choice.action,
            arguments=task.choice.arguments,
            used=used,
            result="asked",
            asked=slot,
            messages=[self._send_message(context, task, text)],
        )

    def _send_message(self, context: Context, task: Task, text: str) -> MessageSent:
        context.db.add(
            OutboxMessage(
                key=task.key,
                session_id=context.session.id,
                customer_id=context.customer.id if context.customer else None,
                contact=context.recipient,
                flow=context.flow.flow,
                language=context.language,
                text=text,
                created_at=context.now,
            )
        )
        return MessageSent(to=context.recipient, language=context.language, text=text)

    def _record(self, context: Context, task: Task, report: ActionReport) -> Step:
        """Write the record that makes the action idempotent."""
        context.db.flush()
        spec = self._book.actions[task.choice.action]
        raised = None
        if report.result == "ok" and spec.raises is not None:
            raised = Event(spec.raises, self._event_subject(context))
        step = Step(
            report=report.model_copy(update={"changes": merge_changes(context.changes)}),
            facts=self._facts(context.db, context.session, task),
            raised=raised,
            timers=context.timers,
        )
        context.db.add(
            ExecutedAction(
                key=task.key,
                session_id=context.session.id,
                action=report.action,
                arguments=dict(report.used),
                outcome=report.outcome,
                result=report.result,
                step=step.model_dump(mode="json"),
                created_at=context.now,
            )
        )
        return step

    def _event_subject(self, context: Context) -> str:
        """Return the number of the order that the action has just processed."""
        order = context.db.get_one(Order, context.session.focus_order_id)
        return order.number


def _update_session(session: CustomerSession, task: Task) -> None:
    """Store the message's language, and reset state that an understood message ends."""
    session.language = task.language
    if task.choice.action == _CLARIFY:
        return
    session.clarifications = 0
    if task.is_first:
        session.awaiting_action = None
        session.awaiting_slot = None
        session.awaiting_arguments = None


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
