"""Carries out one action: its operation, its message and its record, in one transaction."""

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
from gpt2flow.agent.operations import OPERATIONS, Context, with_defaults
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
from gpt2flow.agent.turns.changes import collect_changes, merged
from gpt2flow.agent.turns.state import EVENT_FACTS, Opening, opening_of, session_facts

# What was asked stays asked until the customer says something that is understood.
_CLARIFY = "clarify"


class Event(NamedTuple):
    """Something that happened to `subject`, an order's number."""

    name: str
    subject: str


@dataclass(frozen=True)
class Task:
    """An action to be carried out; a second time under the same key does nothing.

    `kept` is what the customer had said before the question that this may
    answer; `opens` says that this is the first action of a message; `undoes`,
    that it takes back what raised the event. The model never chooses that.
    """

    key: str
    session: str
    message: str
    choice: Choice
    language: Language = "en"
    kept: Arguments = field(default_factory=dict)
    opens: bool = False
    event: Event | None = None
    undoes: bool = False


class Executor:
    """Carries out actions in the shop."""

    def __init__(
        self, book: FlowBook, database: Database, clock: Clock, new_code: Callable[[], str]
    ) -> None:
        check_operations(book)
        self._book = book
        self._database = database
        self._clock = clock
        self._new_code = new_code

    def opening(self, session_id: str, message: str) -> Opening:
        """How things stand before a turn."""
        with self._database.guarded(), self._database.transaction() as db:
            return opening_of(db, session_id, message)

    def event_facts(self, event: Event) -> frozenset[str]:
        """What is true of an event's subject."""
        with self._database.guarded(), self._database.transaction() as db:
            return EVENT_FACTS[event.name](db, event.subject)

    def execute(self, task: Task) -> Step:
        """Carry out an action, or finds that this was done already.

        Raises:
            ModelError: the flows do not allow the action now.
            DatabaseError: the database failed; nothing was changed.
        """
        with self._database.guarded(), self._database.transaction() as db:
            session = self._session(db, task)
            done = db.get(ExecutedAction, task.key)
            return Step.model_validate(done.step) if done else self._carry_out(db, session, task)

    def take_up(self, case: int) -> None:
        """Put a promised follow-up into a person's inbox: its time has come."""
        with self._database.guarded(), self._database.transaction() as db:
            row = db.get_one(Case, case, with_for_update=True)
            if row.status is CaseStatus.SCHEDULED:
                row.status = CaseStatus.DUE

    def _session(self, db: Session, task: Task) -> CustomerSession:
        """The session, held against other writers of it; made if it is new."""
        session = db.get(CustomerSession, task.session, with_for_update=True)
        if session is None:
            session = CustomerSession(
                id=task.session, language=task.language, created_at=self._clock()
            )
            db.add(session)
            db.flush()
        return session

    def _carry_out(self, db: Session, session: CustomerSession, task: Task) -> Step:
        self._check_legal(db, session, task)
        context = self._context(db, session, task)
        collect_changes(db, context.changes)
        if task.event is None:
            _listen(session, task)
        used = self._arguments(context, task)
        required = self._book.actions[task.choice.action].required
        missing = next((slot for slot in required if slot not in used), None)
        if missing is None:
            report = self._operate(context, task, used)
        else:
            report = self._ask(context, task, used, missing)
        return self._record(context, task, report)

    def _check_legal(self, db: Session, session: CustomerSession, task: Task) -> None:
        """Hold that the flows allow the action now: the model does not decide that."""
        if task.undoes:
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
            # The customer may have left since; the event is about an order of his.
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

    def _arguments(self, context: Context, task: Task) -> Arguments:
        """What was said now, what was said before, and what can only be meant."""
        spec = self._book.actions[task.choice.action]
        said = task.kept | task.choice.arguments
        if task.event is not None:
            orders = (s for s in spec.slots if self._book.slots[s].kind is SlotKind.ORDER)
            said |= dict.fromkeys(orders, task.event.subject)
        missing = [slot for slot in spec.required if slot not in said]
        said |= with_defaults(context, spec.operation, missing)
        return {slot: said[slot] for slot in spec.slots if slot in said}

    def _operate(self, context: Context, task: Task, used: Arguments) -> ActionReport:
        spec = self._book.actions[task.choice.action]
        name, fields = OPERATIONS[spec.operation](context, used)
        outcome = spec.outcomes[name]
        messages = []
        if outcome.message is not None:
            text = outcome.message[context.language].format(**fields)
            messages.append(self._send(context, task, text))
        return ActionReport(
            action=task.choice.action,
            arguments=task.choice.arguments,
            used=used,
            result=outcome.result,
            outcome=name,
            messages=messages,
        )

    def _ask(self, context: Context, task: Task, used: Arguments, slot: str) -> ActionReport:
        """Ask for a slot, and keeps what is known until the answer comes."""
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
            messages=[self._send(context, task, text)],
        )

    def _send(self, context: Context, task: Task, text: str) -> MessageSent:
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
        """Write the record that keeps the action from being carried out again."""
        context.db.flush()
        spec = self._book.actions[task.choice.action]
        raised = None
        if report.result == "ok" and spec.raises is not None:
            raised = Event(spec.raises, self._subject(context))
        step = Step(
            report=report.model_copy(update={"changes": merged(context.changes)}),
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

    def _subject(self, context: Context) -> str:
        """What an event is about: the order that the action has just dealt with."""
        order = context.db.get_one(Order, context.session.focus_order_id)
        return order.number


def _listen(session: CustomerSession, task: Task) -> None:
    """Note the language, and that the customer has said something understood."""
    session.language = task.language
    if task.choice.action == _CLARIFY:
        return
    session.clarifications = 0
    if task.opens:
        session.awaiting_action = None
        session.awaiting_slot = None
        session.awaiting_arguments = None


def check_operations(book: FlowBook) -> None:
    """Hold that code exists for all that the flows name.

    Raises:
        FlowError: an operation or an event is unknown.
    """
    for name, action in book.actions.items():
        for operation in filter(None, (action.operation, action.compensation)):
            if operation not in OPERATIONS:
                raise FlowError(f"action {name}: there is no operation {operation!r}")
        for event in filter(None, (action.event, action.raises)):
            if event not in EVENT_FACTS:
                raise FlowError(f"action {name}: there is no event {event!r}")
        if action.compensation and action.compensation not in book.actions:
            raise FlowError(f"action {name}: no action {action.compensation!r} to undo it")
