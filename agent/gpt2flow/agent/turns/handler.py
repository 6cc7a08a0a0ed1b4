"""Handling of a customer message and the events that it raises."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

from gpt2flow.agent.errors import (
    DatabaseError,
    ModelError,
    ModelUnavailableError,
    UnanswerableError,
)
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice, PromptState, calm
from gpt2flow.agent.payments.payer import OrderPayment, Payer
from gpt2flow.agent.report import CallReport, EventReport, Step, Timer, TurnReport
from gpt2flow.agent.telemetry.spans import Attributes, Tracer
from gpt2flow.agent.turns.choices.chooser import Chooser, MessageReader, Steps
from gpt2flow.agent.turns.choices.readings import Readings
from gpt2flow.agent.turns.execution import ESCALATE, Event, Executor, Task
from gpt2flow.agent.turns.message_turn import AttendedError, MessageTurn, StoppedError
from gpt2flow.agent.turns.model import RecordingModel
from gpt2flow.agent.turns.turn import run_turn


class WorkflowContext(Steps, Protocol):
    """Durable execution of steps, timers and retries."""

    def set_timer(self, timer: Timer) -> None:
        """Schedule the next change of a case."""

    def retry_event(self, session: str, event: Event, attempt: int) -> None:
        """Schedule the next attempt at an event, after `attempt` of them."""


class TurnHandler:
    """Handler of customer messages and events.

    Everything that is not deterministic runs inside a step of the workflow.

    Args:
        book: Loaded flows.
        model: Model that chooses the actions.
        readings: Judge of the readings of a message.
        executor: Executor of the actions.
        payer: Settler of the payments that they request.
        patience: Seconds for which a turn waits for a model that does not answer, before a person
            takes over; 0 raises the error at once.
        tracer: Source of spans.
    """

    def __init__(
        self,
        book: FlowBook,
        model: RecordingModel,
        readings: Readings,
        executor: Executor,
        payer: Payer,
        *,
        patience: float = 0.0,
        tracer: Tracer | None = None,
    ) -> None:
        self._book = book
        self._model = model
        self._readings = readings
        self._executor = executor
        self._payer = payer
        self._patience = patience
        self._tracer = tracer or Tracer()

    def handle_message(
        self, workflow: WorkflowContext, key: str, session: str, message_id: str, text: str
    ) -> TurnReport:
        """Handle a normalized message and the events that it raises.

        If the model cannot finish a turn after its first action, or does not answer for longer
        than the patience, a person takes over. Once a person attends the session, the agent does
        nothing more in it.

        Args:
            workflow: Workflow that the steps belong to.
            key: Prefix of the idempotency keys of the turn.
            session: Id of the conversation.
            message_id: Id of the message within the session.
            text: Normalized message.

        Raises:
            ModelError: The model failed; the message lists the actions carried out before.
            InputError: The server has no such model, or the model cannot read the message.
            DatabaseError: The database failed.
        """
        state = workflow.run_step(self._executor.begin_turn, key, session, text)
        if state.attended_by is not None:
            return TurnReport(
                session=session,
                message_id=message_id,
                message=text,
                language=state.language,
                attended_by=state.attended_by,
            )
        chooser = self._chooser(workflow, session, key, self._patience)
        turn = MessageTurn(
            self._book, partial(self._execute, workflow), state, key, session=session, message=text
        )
        attended_by = None
        try:
            self._run(workflow, turn, chooser)
        except AttendedError as error:
            attended_by = error.person
        except DatabaseError:
            # The customer need not send the message again.
            self._postpone_events(workflow, session, turn.done)
            raise
        return TurnReport(
            session=session,
            message_id=message_id,
            message=text,
            language=state.language,
            actions=[step.report for step in turn.done],
            events=[
                self.handle_event(workflow, session, event, 1, chooser.calls)
                for event in _raised_events(turn.done)
            ],
            calls=chooser.calls,
            attended_by=attended_by,
        )

    def _run(self, workflow: WorkflowContext, turn: MessageTurn, chooser: Chooser) -> None:
        """Carry out the actions of a message, or hand it over.

        Raises:
            AttendedError: A person has taken the conversation since the turn began.
        """
        reader = MessageReader(
            chooser,
            self._readings,
            workflow,
            session=turn.session,
            message=turn.message,
            denied=turn.denied,
        )
        try:
            read, state = calm(turn.message), turn.state.prompt_state
            run_turn(self._book, state, read, reader.choose, turn.execute)
            turn.follow_denial(reader.another)
            turn.add_left_out()
            turn.add_looked_up()
        except StoppedError:
            return  # A person has the conversation.
        except (UnanswerableError, ModelError) as error:
            # A turn that is resumed later finds the person too, even without a model.
            person = workflow.run_step(self._executor.cases.attend, turn.key, turn.session)
            if person is not None:
                raise AttendedError(person) from error
            self._hand_over(workflow, turn, error)

    def _hand_over(
        self, workflow: WorkflowContext, turn: MessageTurn, error: UnanswerableError | ModelError
    ) -> None:
        """Hand over a message that the model cannot finish, or raise."""
        if isinstance(error, UnanswerableError):
            if not turn.done or ESCALATE not in self._book.actions:
                raise error
            turn.execute(ESCALATE, Choice(ESCALATE))
        elif isinstance(error, ModelUnavailableError) and self._patience:
            report_outage = self._executor.cases.report_outage
            step = workflow.run_step(report_outage, turn.key, turn.session, turn.message)
            self._set_timers(workflow, step.timers)
            turn.done.append(step)
        else:
            raise self._give_up(workflow, turn.session, error, turn.done) from error

    def _give_up(
        self, workflow: WorkflowContext, session: str, error: ModelError, done: list[Step]
    ) -> ModelError:
        """Return the error of a turn that ends early.

        Events of its actions are handled later.
        """
        self._postpone_events(workflow, session, done)
        return _with_completed(error, done)

    def _postpone_events(
        self, workflow: WorkflowContext, session: str, done: Iterable[Step]
    ) -> None:
        for event in _raised_events(done):
            workflow.retry_event(session, event, 0)

    def handle_event(
        self,
        workflow: WorkflowContext,
        session: str,
        event: Event,
        attempt: int,
        calls: list[CallReport],
    ) -> EventReport:
        """Handle an event, or compensate the action that raised it.

        An order that is not paid yet waits, and one that was refused is cancelled already. A
        refused action triggers the compensation. A failure of the model or the database schedules
        a retry, so that no submitted order is left unhandled.

        Args:
            workflow: Workflow that the steps belong to.
            session: Id of the conversation in which the event was raised.
            event: Event to handle.
            attempt: Number of this attempt, from 1.
            calls: List to which the model calls are appended.
        """
        attributes: Attributes = {
            "session.id": session,
            "gpt2flow.event": event.name,
            "gpt2flow.order": event.subject,
            "gpt2flow.attempt": attempt,
        }
        with self._tracer.span("event", attributes) as span:
            try:
                report = self._attempt_event(workflow, session, event, attempt, calls)
            except DatabaseError as error:
                # Nobody else would ask for the event again.
                workflow.retry_event(session, event, attempt)
                report = EventReport(
                    event=event.name, subject=event.subject, actions=[], postponed=str(error)
                )
            span.set({"gpt2flow.postponed": report.postponed is not None})
            return report

    def _attempt_event(
        self,
        workflow: WorkflowContext,
        session: str,
        event: Event,
        attempt: int,
        calls: list[CallReport],
    ) -> EventReport:
        name, key = event.name, f"{event.name}/{event.subject}"
        payment = workflow.run_step(self._payer.order_payment, event.subject)
        if payment is not OrderPayment.PAID:
            waits = payment is OrderPayment.WAITING
            if waits:
                workflow.retry_event(session, event, attempt)
            postponed = f"order {event.subject} is not paid yet" if waits else None
            return EventReport(event=name, subject=event.subject, actions=[], postponed=postponed)
        facts = workflow.run_step(self._executor.event_facts, event)
        done: list[Step] = []

        def execute(position: int, choice: Choice) -> Step:
            del position
            # Keyed by action, not position: a retry starts after the completed actions.
            task = Task(f"{key}/{choice.action}", session, event.subject, choice, event=event)
            done.append(self._execute(workflow, task))
            return done[-1]

        chooser = self._chooser(workflow, session, f"{key}/{attempt}")
        state, choose = PromptState(facts), chooser.choose
        failure = None
        try:
            run_turn(self._book, state, event.subject, choose, execute, event=name)
        except (ModelError, UnanswerableError) as error:
            failure = str(error)
        calls += chooser.calls
        if done and done[-1].result == "refused":
            done += self._compensate(workflow, session, event, f"{key}/undo")
            failure = None
        elif failure is not None:
            workflow.retry_event(session, event, attempt)
        actions = [step.report for step in done]
        return EventReport(event=name, subject=event.subject, actions=actions, postponed=failure)

    def _compensate(
        self, workflow: WorkflowContext, session: str, event: Event, key: str
    ) -> list[Step]:
        """Undo the action that raised an event, if it has a compensation."""
        for action in self._book.actions.values():
            if action.raises == event.name and action.compensation:
                choice = Choice(action.compensation)
                task = Task(key, session, event.subject, choice, event=event, is_compensation=True)
                step = self._execute(workflow, task)
                if step.result != "ok":
                    timers = workflow.run_step(self._executor.cases.report_failed_undo, key, event)
                    self._set_timers(workflow, timers)
                return [step]
        return []

    def _chooser(
        self, workflow: WorkflowContext, session: str, key: str, patience: float = 0.0
    ) -> Chooser:
        now = self._executor.cases.now
        return Chooser(workflow, self._model, now, key, session, patience=patience)

    def _execute(self, workflow: WorkflowContext, task: Task) -> Step:
        step = workflow.run_step(self._executor.execute, task)
        if step.attended_by is not None:
            raise AttendedError(step.attended_by)
        timers = list(step.timers)
        for payment in step.payments:
            # The sweep settles what the database prevents now.
            with suppress(DatabaseError):
                timers += workflow.run_step(self._payer.settle, payment).timers
        self._set_timers(workflow, timers)
        return step

    def _set_timers(self, workflow: WorkflowContext, timers: Iterable[Timer]) -> None:
        for timer in timers:
            workflow.set_timer(timer)


def _raised_events(done: Iterable[Step]) -> list[Event]:
    return [Event(*step.raised) for step in done if step.raised]


def _with_completed(error: ModelError, done: list[Step]) -> ModelError:
    """Return the error with the completed actions in its message."""
    if not done:
        return error
    names = ", ".join(step.report.action for step in done)
    return type(error)(f"{error} (carried out before: {names})")
