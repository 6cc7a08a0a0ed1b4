"""Steps of workflows that look after cases."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.failures import (
    MODEL_UNAVAILABLE,
    SCREEN_STOPPED,
    report_failed_undo,
    report_outage,
    report_stopped_event,
    report_stopped_message,
)
from gpt2flow.agent.cases.life import advance, lock_case, proposal_of, timers
from gpt2flow.agent.cases.messages import hide_codes, sent_codes, without_secrets
from gpt2flow.agent.cases.pictures import Stop
from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.report import ActionReport, Step, Timer
from gpt2flow.agent.shop import (
    Case,
    Customer,
    CustomerSession,
    Database,
    ExecutedAction,
    ScreenWork,
)
from gpt2flow.agent.telemetry.spans import Tracer, action_attributes
from gpt2flow.agent.turns.execution.task import ESCALATE, Event, Task
from gpt2flow.agent.turns.execution.wishes import drop_wish, update_session
from gpt2flow.agent.turns.state import attend, session_facts


class CaseSteps:
    """Steps of workflows that look after cases, each in one transaction.

    Args:
        book: Loaded flows, with the deadlines and messages of cases.
        database: Shop database.
        clock: Source of the current time.
        tracer: Source of spans.
    """

    def __init__(self, book: FlowBook, database: Database, clock: Clock, tracer: Tracer) -> None:
        self._book = book
        self._rules = book.cases
        self._database = database
        self._clock = clock
        self._tracer = tracer

    def now(self) -> datetime:
        """Return the current time."""
        return self._clock()

    def attend(self, key: str, session_id: str) -> str | None:
        """Return the person who attends a session, and has the message now.

        Args:
            key: Idempotency key of the turn.
            session_id: Id of the conversation.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            session = db.get_one(CustomerSession, session_id, with_for_update=True)
            return attend(db, self._book, key, session, self._clock())

    def report_outage(self, key: str, session_id: str, message: str) -> Step:
        """Hand a session to a person because the model does not answer.

        The customer is told once: later messages join the case that is open.

        Args:
            key: Idempotency key of the turn.
            session_id: Id of the conversation.
            message: Message that the model did not answer.
        """
        key = f"{key}/outage"
        with self._tracer.span("action", {"gpt2flow.key": key}) as span:
            step = self._report_outage(key, session_id, message)
            span.set(action_attributes(step.report))
            return step

    def _report_outage(self, key: str, session_id: str, message: str) -> Step:
        with self._database.translate_errors(), self._database.transaction() as db:
            record = db.get(ExecutedAction, key)
            if record is not None:
                return Step.model_validate(record.step)
            session = db.get_one(CustomerSession, session_id, with_for_update=True)
            now = self._clock()
            message = hide_codes(message, sent_codes(db, session_id, self._book))
            messages, due = report_outage(db, self._rules, session, message, now)
            report = ActionReport(
                action=ESCALATE,
                arguments={},
                used={},
                result="ok",
                outcome=MODEL_UNAVAILABLE,
                messages=messages,
            )
            step = Step(report=report, facts=session_facts(db, session), timers=due)
            return _keep(db, key, session_id, step, now)

    def report_stopped_screen(self, task: Task, error: ScreenStopped) -> Step:
        """Hand an action that stopped at a screen to a person.

        A conversation is handed over, and an event's order gets a case of its own. The customer
        is informed. What the agent knew about its work on the screen is deleted, so that the
        action is never taken up again.

        Args:
            task: Request to execute the action.
            error: What was expected, what was found, and the picture.

        Returns:
            The step, which ends the turn or the event.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            session = db.get_one(CustomerSession, task.session, with_for_update=True)
            record = db.get(ExecutedAction, task.key)
            if record is not None:
                return Step.model_validate(record.step)
            now = self._clock()
            work = db.get(ScreenWork, task.key)
            reason = hide_codes(error.reason, sent_codes(db, session.id, self._book))
            meant = _meant(task, work, self._book.secret_slots)
            stop = Stop(reason, error.picture, meant, now)
            if work is not None:
                db.delete(work)
            if task.event is None:
                step = self._report_stopped_message(db, session, task, stop)
            else:
                step = self._report_stopped_event(db, session, task, task.event, stop)
            return _keep(db, task.key, session.id, step, now)

    def _report_stopped_message(
        self, db: Session, session: CustomerSession, task: Task, stop: Stop
    ) -> Step:
        # What the customer wants is the person's from here on.
        drop_wish(session, task.choice)
        if task.resumed is None:
            update_session(session, task)
        if session.customer_id is not None:
            db.get_one(Customer, session.customer_id).language = task.language
        left = leave_to_person(db, self._book, session, task, stop.at)
        messages, due = report_stopped_message(
            db,
            self._rules,
            session,
            hide_codes(task.message, sent_codes(db, session.id, self._book)),
            stop,
            proposal=proposal_of(task.choice, task.key, self._book.secret_slots),
            answers=left is None,
        )
        if left is not None:
            return left
        report = ActionReport(
            action=ESCALATE,
            arguments=task.choice.arguments,
            used={},
            wish=task.choice.action,
            resumed=task.resumed is not None,
            result="ok",
            outcome=SCREEN_STOPPED,
            messages=messages,
        )
        return Step(report=report, facts=session_facts(db, session), timers=due)

    def _report_stopped_event(
        self, db: Session, session: CustomerSession, task: Task, event: Event, stop: Stop
    ) -> Step:
        due = report_stopped_event(db, self._rules, session, event.subject, stop)
        # Neither refused, which would undo the order, nor with facts, which would go on.
        report = ActionReport(
            action=task.choice.action,
            arguments=task.choice.arguments,
            used={},
            result="blocked",
            outcome=SCREEN_STOPPED,
        )
        return Step(report=report, facts=frozenset(), timers=due)

    def report_failed_undo(self, key: str, event: Event) -> list[Timer]:
        """Hand an order whose action could not be undone to a person.

        The customer is informed.

        Args:
            key: Idempotency key of the compensation.
            event: Event whose handling was refused.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            return report_failed_undo(db, self._rules, key, event.subject, self._clock())

    def advance(self, case: int) -> list[Timer]:
        """Make a case's change that is due, and return its next timer."""
        with self._database.translate_errors(), self._database.transaction() as db:
            row = lock_case(db, case)
            if row is None:
                return []
            advance(db, row, self._rules, self._clock())
            return timers(row)

    def timers(self) -> list[Timer]:
        """Return the timers of all cases."""
        with self._database.translate_errors(), self._database.transaction() as db:
            cases = db.scalars(select(Case).where(Case.attention_at.is_not(None)))
            return [timer for case in cases for timer in timers(case)]

    def due_timers(self) -> list[Timer]:
        """Return the timers whose time has come.

        Few of them have not run: other programs open cases too, and set no timer.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            cases = db.scalars(select(Case).where(Case.attention_at <= self._clock()))
            return [timer for case in cases for timer in timers(case)]


def _keep(db: Session, key: str, session_id: str, step: Step, now: datetime) -> Step:
    """Record a step that was no operation's, and return it."""
    report = step.report
    db.add(
        ExecutedAction(
            key=key,
            session_id=session_id,
            action=report.action,
            arguments=dict(report.used),
            outcome=report.outcome,
            result=report.result,
            step=step.model_dump(mode="json"),
            created_at=now,
        )
    )
    return step


def _meant(task: Task, work: ScreenWork | None, secrets: Collection[str]) -> dict[str, Any]:
    """Return what the agent was about to do, without secrets."""
    if work is None:
        arguments = without_secrets(task.choice.arguments, secrets)
        return {"action": task.choice.action, "arguments": arguments}
    arguments = without_secrets(work.task["used"], secrets)
    meant = {"action": work.task["action"], "arguments": arguments}
    return meant | {"pressed": work.pressed_at is not None}


def leave_to_person(
    db: Session, book: FlowBook, session: CustomerSession, task: Task, now: datetime
) -> Step | None:
    """Return the step of an action that is left to a person.

    A person may have taken the conversation since the turn began.

    Args:
        db: Session on the shop.
        book: Loaded flows.
        session: Conversation, locked for update.
        task: Request to execute the action.
        now: Current time.

    Returns:
        The step without effects; None if the agent carries the action out.
    """
    person = None if task.turn is None else attend(db, book, task.turn, session, now)
    if person is None:
        return None
    report = ActionReport(
        action=task.choice.action, arguments=task.choice.arguments, used={}, result="blocked"
    )
    return Step(report=report, facts=frozenset(), attended_by=person)
