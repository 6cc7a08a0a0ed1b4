"""Executor: operation, message and record of one action in one transaction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.flows.schema import Fallback
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.hands.ledger import (
    add_timers,
    finished_work,
    send_to_screens,
    sent_by_shop,
)
from gpt2flow.agent.hands.port import Hands, ScreenNeededError, ScreenTask
from gpt2flow.agent.operations import OPERATIONS, Context
from gpt2flow.agent.operations.lookup import missing_order, product_names
from gpt2flow.agent.report import ActionReport, Step, Wanted
from gpt2flow.agent.shop import (
    Customer,
    CustomerSession,
    Database,
    ExecutedAction,
    Order,
    ScreenWork,
)
from gpt2flow.agent.shop.database import retry_conflicts
from gpt2flow.agent.telemetry.spans import Tracer, action_attributes
from gpt2flow.agent.turns.execution.arguments import collect_arguments
from gpt2flow.agent.turns.execution.case_steps import CaseSteps, leave_to_person
from gpt2flow.agent.turns.execution.changes import collect_changes, keep_step, merge_changes
from gpt2flow.agent.turns.execution.contexts import (
    action_facts,
    check_operations,
    new_context,
)
from gpt2flow.agent.turns.execution.doubt import Doubt, Trial
from gpt2flow.agent.turns.execution.quantities import (
    counted_products,
    orders_products,
    taken_back,
)
from gpt2flow.agent.turns.execution.replies import Replier
from gpt2flow.agent.turns.execution.task import ADD_TO_CART, ESCALATE, FIND_PRODUCT, Event, Task
from gpt2flow.agent.turns.execution.wishes import (
    SUMMARY,
    accept_offer,
    added_products,
    close_answered,
    drop_wish,
    fallback_arguments,
    has_asked,
    is_said_again,
    is_superfluous,
    keep_wish,
    kept_wishes,
    postpone,
    read_slots,
    remember_action,
    resumable_wishes,
    update_session,
)
from gpt2flow.agent.turns.state import EVENT_FACTS, TurnState, begin_turn, lock_session

# Field of an outcome that names the order.
_ORDER = "order"


class Executor:
    """Executor of actions in the shop.

    Args:
        book: Loaded flows.
        database: Shop database.
        clock: Source of the current time.
        new_code: Generator of verification codes.
        confirm_below: Confidence below which the agent asks "did you mean …?", from 0 to 1.
        hands: Hands that work on screens; None carries all actions out in the database.
        tracer: Source of spans, one an action.

    Attributes:
        cases: Steps that look after cases.

    Raises:
        FlowError: The flows refer to an unknown operation or event.
    """

    def __init__(
        self,
        book: FlowBook,
        database: Database,
        clock: Clock,
        new_code: Callable[[], str],
        confirm_below: float = 0.0,
        *,
        hands: Hands | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        check_operations(book)
        self._doubt = Doubt(book, confirm_below)
        self._hands = hands
        self._book = book
        self._replier = Replier(book)
        self._database = database
        self._clock = clock
        self._tracer = tracer or Tracer()
        self.cases = CaseSteps(book, database, clock, self._tracer)
        self._new_code = new_code

    def begin_turn(self, key: str, session_id: str, message: str) -> TurnState:
        """Keep a message, and return its session's state before the turn.

        If a person attends the session, the message goes to that person.

        Args:
            key: Idempotency key of the turn.
            session_id: Id of the conversation.
            message: Normalized message.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            now = self._clock()
            return begin_turn(db, self._book, key, session_id, message=message, now=now)

    def event_facts(self, event: Event) -> frozenset[str]:
        """Return the facts of an event's subject."""
        with self._database.translate_errors(), self._database.transaction() as db:
            return EVENT_FACTS[event.name](db, event.subject)

    def execute(self, task: Task) -> Step:
        """Execute an action, or return the recorded step of its key.

        An action that another session's transaction got in the way of, such as two registrations
        of one contact, is executed again.

        Raises:
            ModelError: The flows do not allow the action in the current state.
            DatabaseError: The database failed; nothing was changed.
        """
        with self._tracer.span("action", {"gpt2flow.key": task.key}) as span:
            step = self._execute_unless_recorded(task)
            span.set(action_attributes(step.report))
            return step

    def _execute_unless_recorded(self, task: Task) -> Step:
        with self._database.translate_errors():
            try:
                return self._execute_again(task)
            except ScreenNeededError as needed:
                assert self._hands is not None
                try:
                    # Outside of a transaction: the shop writes to the same database.
                    self._hands.carry_out(needed.task)
                except ScreenStopped as error:
                    return self.cases.report_stopped_screen(task, error)
            return self._execute_again(task)

    def _execute_again(self, task: Task) -> Step:
        """Execute an action, again after a conflict."""
        return retry_conflicts(lambda: self._execute_once(task))

    def _execute_once(self, task: Task) -> Step:
        with self._database.transaction() as db:
            session = lock_session(db, task.session, task.language, self._clock())
            record = db.get(ExecutedAction, task.key)
            if record is not None:
                return Step.model_validate(record.step)
            work = finished_work(db, task.key, task.message, task.given)
            if work is not None:
                return self._record_screen_work(db, session, task, work)
            left = leave_to_person(db, self._book, session, task, self._clock())
            return left or self._execute_new(db, session, task)

    def _execute_new(self, db: Session, session: CustomerSession, task: Task) -> Step:
        task = accept_offer(self._book, session, task)
        if is_said_again(session, task):
            return self._pass_over(db, session, task)
        fallback = self._find_fallback(db, session, task)
        if fallback is None:
            return self._carry_out(db, session, task)
        if fallback.resume:
            keep_wish(session, task)
        return self._fall_back(db, session, task, fallback)

    def _record_screen_work(
        self, db: Session, session: CustomerSession, task: Task, work: ScreenWork
    ) -> Step:
        """Record an action that was carried out on the screens."""
        done = ScreenTask.from_json(work.task, task.message, task.given)
        task = accept_offer(self._book, session, task)
        if done.is_detour:
            keep_wish(session, task)
        choice = Choice(done.action, done.arguments, done.confidence)
        task = replace(task, choice=choice, is_detour=done.is_detour)
        context = self._context(db, session, task)
        context.customer = db.get(Customer, done.customer) if done.customer else None
        collect_changes(db, context.changes)
        if task.resumed is None and task.event is None:
            update_session(session, task)
        if task.event is None and drop_wish(session, task.choice):
            session.doubted = None
        close_answered(session, done.action, done.used)
        add_timers(context)
        assert work.outcome is not None
        fields = {**done.fields, **(work.fields or {})}
        sent = sent_by_shop(context, done) if done.is_sent else None
        report = self._replier.report_outcome(
            context, task, done.used, work.outcome, fields, sent=sent
        )
        db.delete(work)
        update = {"wish": done.wish, "resumed": task.resumed is not None}
        # The customer may have placed another order on the pages meanwhile.
        subject = str(fields[_ORDER]) if _ORDER in fields else None
        return self._record(context, task, report.model_copy(update=update), subject)

    def _find_fallback(self, db: Session, session: CustomerSession, task: Task) -> Fallback | None:
        """Return the fallback of an action, None if it is legal.

        The check does not rely on the grammar.
        """
        if task.is_compensation:
            return None
        name, facts = task.choice.action, action_facts(db, session, task)
        action, event = self._book.actions.get(name), task.event.name if task.event else None
        if action is None or action.event != event:
            raise ModelError(f"the model chose {name!r}, which is not allowed now")
        given = task.given.keys() | read_slots(self._book, task)
        is_legal, fallback = holds(action.when, facts), self._book.fallback(name, facts, given)
        if is_legal and (fallback is None or event is not None or task.resumed is not None):
            return None
        if event is not None or fallback is None or task.resumed is not None:
            raise ModelError(f"the model chose {name!r}, which is not allowed now")
        return fallback

    def _fall_back(
        self, db: Session, session: CustomerSession, task: Task, fallback: Fallback
    ) -> Step:
        """Take the fallback of a wish, unless it was taken already."""
        wish, facts = task.choice, action_facts(db, session, task)
        name = self._book.resolve(fallback.action, facts)
        if not fallback.without and is_superfluous(self._book, name, task.taken):
            return self._pass_over(db, session, task)
        arguments = fallback_arguments(self._book, name, wish, task.message)
        if not arguments:
            # A code that is on its way identifies the customer sooner than another one.
            takers = self._book.taking(self._book.legal(facts), SlotKind.CODE)
            name = next(iter(takers), name)
        choice = Choice(name, arguments, wish.confidence)
        detour = replace(task, choice=choice, is_detour=fallback.resume)
        return self._carry_out(db, session, detour, wish=wish.action)

    def _pass_over(self, db: Session, session: CustomerSession, task: Task) -> Step:
        """Record a wish that needs nothing."""
        context, wish = self._context(db, session, task), task.choice
        update_session(session, task)
        report = ActionReport(
            action=wish.action,
            arguments=wish.arguments,
            used={},
            wish=wish.action,
            result="blocked",
        )
        return self._record(context, task, report)

    def _carry_out(
        self, db: Session, session: CustomerSession, task: Task, *, wish: str | None = None
    ) -> Step:
        context = self._context(db, session, task)
        collect_changes(db, context.changes)
        is_kept = task.event is None and drop_wish(session, task.choice)
        if task.resumed is None and task.event is None:
            update_session(session, task)
        if is_kept:
            # Another wish than the one that was in doubt before.
            session.doubted = None
        asked_for = self._book.actions[wish].required if wish is not None else ()
        used = collect_arguments(self._book, context, task, asked_for)
        close_answered(session, task.choice.action, used)
        spec = self._book.actions[task.choice.action]
        missing = next((slot for slot in spec.required if slot not in used), None)
        if missing is not None and missing_order(context, used):
            # Nothing more is asked about an order that the customer does not have.
            missing = None
        is_asking = missing is not None or SUMMARY in spec.effects.add
        if is_asking and has_asked(self._book, session, task):
            report = postpone(session, task)
        elif missing is None:
            report = self._run_operation(context, task, used, wish)
        else:
            report = self._replier.ask_for_slot(context, task, used, missing)
        if task.choice.action == ESCALATE:
            # A person reads on: what the agent is unsure about is theirs.
            wishes = kept_wishes(session)
            sure = [each for each in wishes if not self._needs_question(each)]
            session.wanted = [each.model_dump(mode="json") for each in sure]
        update = {"wish": wish, "resumed": task.resumed is not None}
        return self._record(context, task, report.model_copy(update=update))

    def _context(self, db: Session, session: CustomerSession, task: Task) -> Context:
        return new_context(
            self._book, db, session, task, now=self._clock(), new_code=self._new_code
        )

    def _run_operation(
        self, context: Context, task: Task, used: Arguments, wish: str | None
    ) -> ActionReport:
        """Run the operation, or ask first whether it is meant.

        Raises:
            ScreenNeededError: The action is for the screens.
        """
        spec = self._book.actions[task.choice.action]
        if not self._doubt.must_ask(context, task, used):
            name, fields = OPERATIONS[spec.operation](context, used)
            if self._hands is not None and not task.is_compensation:
                send_to_screens(
                    self._hands,
                    context,
                    used,
                    name,
                    fields,
                    wish=wish,
                    is_detour=task.is_detour,
                    is_event=task.event is not None,
                )
            return self._replier.report_outcome(context, task, used, name, fields)
        # An operation that is refused needs no confirmation, so it is tried first.
        trial = Trial(context)
        name, fields = OPERATIONS[spec.operation](context, used)
        if spec.outcomes[name].result == "refused":
            trial.keep()
            return self._replier.report_outcome(context, task, used, name, fields)
        trial.undo()
        if has_asked(self._book, context.session, task):
            return postpone(context.session, task)
        return self._replier.propose(context, task, used, fields)

    def _needs_question(self, wish: Wanted) -> bool:
        """Return whether a kept wish has to be confirmed first."""
        choice = Choice(wish.action, wish.arguments, wish.confidence)
        return not wish.confirmed and self._doubt.is_unsure(choice, wish.message)

    def _record(
        self, context: Context, task: Task, report: ActionReport, subject: str | None = None
    ) -> Step:
        """Write the record that makes the action idempotent."""
        spec = self._book.actions[report.action]
        if task.event is None:
            remember_action(context.session, report)
        context.db.flush()
        facts = action_facts(context.db, context.session, task)
        raised = None
        if report.result == "ok" and spec.raises is not None:
            raised = Event(spec.raises, subject or self._event_subject(context))
        step = Step(
            report=report.model_copy(update={"changes": merge_changes(context.changes)}),
            facts=facts,
            raised=raised,
            timers=context.timers,
            payments=context.payments,
            resumable=self._resumable(context.session, facts),
            **_read_products(context, task),
        )
        keep_step(context, step)
        return step

    def _resumable(self, session: CustomerSession, facts: frozenset[str]) -> list[Wanted]:
        """Return the kept wishes to go on with."""
        wishes = resumable_wishes(self._book, session, facts)
        if SUMMARY not in facts:
            return wishes
        # The summary is a question too.
        return [each for each in wishes if not self._needs_question(each)]

    def _event_subject(self, context: Context) -> str:
        """Return the number of the order that the action has just processed."""
        order = context.db.get_one(Order, context.session.focus_order_id)
        return order.number


def _read_products(context: Context, task: Task) -> dict[str, Any]:
    """Return what the message says of products, as fields."""
    action = task.choice.action
    is_order = action == ADD_TO_CART or (action == FIND_PRODUCT and orders_products(task.message))
    if not is_order or task.event is not None or task.resumed is not None or task.is_rest:
        return {}
    return {
        "counted": counted_products(task.message, product_names(context)),
        "taken_back": taken_back(task.message, added_products(context.session)),
    }
