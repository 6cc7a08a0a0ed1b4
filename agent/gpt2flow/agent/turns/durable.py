"""Durable workflows on DBOS: turns that survive a crash at any point.

DBOS records the result of every step. On recovery it replays a workflow up to the
first step without a recorded result. That step may have committed before the crash.
A step that changes the shop therefore writes an idempotency key in its transaction.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

import structlog
from dbos import (
    DBOS,
    DBOSConfig,
    SetEnqueueOptions,
    SetWorkflowID,
    WorkflowHandle,
    WorkflowStatus,
)

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import AgentError, DatabaseError
from gpt2flow.agent.report import EventReport, Timer, TurnReport
from gpt2flow.agent.shop import Database
from gpt2flow.agent.shop.locks import SessionLocks
from gpt2flow.agent.shop.tables.records import turn_id, turn_prefix
from gpt2flow.agent.telemetry.spans import Span, Tracer, trace_id, turn_attributes
from gpt2flow.agent.turns.execution import Event, Executor
from gpt2flow.agent.turns.handler import TurnHandler
from gpt2flow.agent.turns.records import prepare_system_database
from gpt2flow.agent.turns.recovery import (
    TAKEOVER_SECONDS,
    Recovery,
    new_executor_id,
    resume_older_work,
)

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

# DBOS recovers a workflow only under the version that started it. Raise the version
# when the steps of a workflow change, or the classes that they return: DBOS pickles them.
_VERSION = "10"
_QUEUE = "later"
_MESSAGE_WORKFLOW = "turn"
_CASE_WORKFLOW = "advance_case"
_FAILED = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
# Position of the trace among the arguments of a turn.
_TRACE_ARGUMENT = 3
_POLL_SECONDS = 0.1
# Executor id on SQLite, which has one agent at a time.
_ONLY_EXECUTOR = "local"
# Longest wait for an earlier message of a session: a takeover, and the turn itself.
_EARLIER_SECONDS = 2 * TAKEOVER_SECONDS + 30.0
# Delay of an event's next attempt: of one that was not tried yet, and the longest.
_MIN_RETRY_SECONDS = 2.5
_MAX_RETRY_SECONDS = 600.0
# Delay of a case's change that the database prevented.
_CASE_RETRY_SECONDS = 60.0


class Workflows:
    """Durable workflows of the agent, and the context that they run in.

    DBOS is global to the process, so a process can have one instance at a time.

    Args:
        handler: Handler of messages and events.
        executor: Executor that looks after cases.
        clock: Clock from which the delays of timers are computed.
        database: Shop database. DBOS keeps its records beside it: in a separate SQLite file, or
            in a separate schema on PostgreSQL.
        locks: Locks of the sessions.
        tracer: Source of spans.
    """

    def __init__(
        self,
        handler: TurnHandler,
        executor: Executor,
        clock: Clock,
        database: Database,
        locks: SessionLocks,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._handler = handler
        self._executor = executor
        self._clock = clock
        self._locks = locks
        self._tracer = tracer or Tracer()
        url = database.url
        is_shared = url.get_backend_name() != "sqlite"
        executor_id = new_executor_id() if is_shared else _ONLY_EXECUTOR
        self._running = set[str]()
        self._recovery = (
            Recovery(database, executor_id, _VERSION, self._running) if is_shared else None
        )
        DBOS(
            config=DBOSConfig(
                name="gpt2flow",
                system_database_url=prepare_system_database(url),
                application_version=_VERSION,
                executor_id=executor_id,
                log_level="ERROR",
                # Closing waits for the listener to wake up.
                notification_listener_polling_interval_sec=0.2,
            )
        )
        self._message_workflow, self._event_workflow, self._case_workflow = self._register()

    def _register(
        self,
    ) -> tuple[
        Callable[[str, str, str, str], TurnReport],
        Callable[[str, Event, int, str], EventReport],
        Callable[[int, str], None],
    ]:
        # DBOS registers functions, not methods, and recovers workflows by name. It also
        # refuses a stored workflow id under another name, so the names must not change:
        # a message sent again after an upgrade has to find its report. The trace is an argument,
        # because DBOS hands it to the process that goes on.
        @DBOS.workflow(name=_MESSAGE_WORKFLOW)
        def handle_message(session: str, message_id: str, text: str, trace: str = "") -> TurnReport:
            with self._tracked(), self._turn_span(session, message_id, text, trace) as span:
                return self._handle_message(session, message_id, text, span)

        @DBOS.workflow(name="event")
        def handle_event(session: str, event: Event, attempt: int, trace: str = "") -> EventReport:
            with self._tracked(), self._tracer.resumed(trace):
                return self._handler.handle_event(self, session, event, attempt, [])

        @DBOS.workflow(name=_CASE_WORKFLOW)
        def advance_case(case: int, workflow_id: str) -> None:
            with self._tracked():
                self._advance_case(case, workflow_id)

        return handle_message, handle_event, advance_case

    def _handle_message(self, session: str, message_id: str, text: str, span: Span) -> TurnReport:
        key = turn_id(session, message_id)
        # Held here, so that a turn that another process takes over holds it too.
        with self._locks.hold(session):
            report = self._handler.handle_message(self, key, session, message_id, text)
        span.set(turn_attributes(report, has_texts=self._tracer.has_texts))
        return report

    @contextmanager
    def _turn_span(self, session: str, message_id: str, text: str, trace: str) -> Iterator[Span]:
        attributes = {
            "session.id": session,
            "gpt2flow.message_id": message_id,
            "gpt2flow.text": text if self._tracer.has_texts else None,
        }
        with self._tracer.turn(trace, attributes) as span:
            try:
                yield span
            except AgentError as error:
                span.set({"gpt2flow.result": error.result})
                raise

    def _advance_case(self, case: int, workflow_id: str) -> None:
        try:
            following = self.run_step(self._executor.cases.advance, case)
        except DatabaseError:
            # The case keeps its time, so another workflow makes the change.
            self._enqueue_case(f"{workflow_id}+", _CASE_RETRY_SECONDS, case)
            return
        for timer in following:
            self.set_timer(timer, after=workflow_id)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Note that this process is running the workflow."""
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        self._running.add(workflow_id)
        try:
            yield
        finally:
            self._running.discard(workflow_id)

    def launch(self) -> None:
        """Start DBOS and finish the turns that a crash interrupted.

        Waiting for them keeps a customer's next message from overtaking them.
        """
        if self._recovery is not None:
            self._recovery.register()
        DBOS.launch()
        DBOS.register_queue(_QUEUE, on_conflict="never_update")
        if self._recovery is not None:
            self._recovery.start()
        else:
            # No other process uses the database, so what another version left is not running.
            resume_older_work(_VERSION)
        self._set_missing_timers()
        if self._recovery is None:
            for workflow_id in _unfinished_turns():
                # An error is stored; the caller receives it on sending the message again.
                with suppress(Exception):
                    handle: WorkflowHandle[TurnReport] = DBOS.retrieve_workflow(workflow_id)
                    handle.get_result(polling_interval_sec=_POLL_SECONDS)

    def close(self) -> None:
        """Stop DBOS.

        Incomplete workflows resume at the next launch, or in another process.
        """
        if self._recovery is not None:
            self._recovery.stop()
        DBOS.destroy(destroy_registry=True)

    def handle_message(self, session: str, message_id: str, text: str) -> TurnReport:
        """Handle a message once per id.

        A repeated id returns the report of the first call. A failed turn resumes at
        the step that failed, or starts again under a later version.

        Args:
            session: Id of the conversation.
            message_id: Id of the message within the session.
            text: Normalized message.

        Raises:
            DatabaseError: An earlier message of the session is not finished.
        """
        workflow_id = turn_id(session, message_id)
        if self._recovery is not None:
            _wait_for_earlier(session, workflow_id)
        status = DBOS.get_workflow_status(workflow_id)
        trace = self._tracer.new_trace() if status is None else _stored_trace(status)
        if trace:
            structlog.contextvars.bind_contextvars(trace_id=trace_id(trace))
        if status is not None and status.status in _FAILED:
            self._rewind(session, workflow_id)
            handle: WorkflowHandle[TurnReport] = DBOS.retrieve_workflow(workflow_id)
            return handle.get_result(polling_interval_sec=_POLL_SECONDS)
        with SetWorkflowID(workflow_id):
            return self._message_workflow(session, message_id, text, trace)

    def _rewind(self, session: str, workflow_id: str) -> None:
        """Let a failed turn go on, unless another process has done so."""
        # Two processes may get the message again at once.
        with self._locks.hold(session):
            status = DBOS.get_workflow_status(workflow_id)
            if status is None or status.status not in _FAILED:
                return
            # The results of another version's steps may not fit: such a turn starts again, and
            # finds the records of the actions that were carried out.
            same_version = status.app_version == _VERSION
            DBOS.rewind_workflow(
                workflow_id,
                start_step=_failed_step(workflow_id) if same_version else 1,
                application_version=_VERSION,
            )

    def run_step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        """Call a function as a step of the running workflow."""
        return DBOS.run_step({"name": function.__name__}, function, *args, **kwargs)

    def sleep(self, seconds: float) -> None:
        """Pause the running workflow; a replay waits for what is left."""
        DBOS.sleep(seconds)

    def set_timer(self, timer: Timer, after: str = "") -> None:
        """Schedule the next change of a case, across restarts.

        Args:
            timer: Case and time.
            after: Id of the workflow that sets the timer. One that ran too early, by a clock that
                was set back, sets it for the same time again.
        """
        workflow_id = _timer_id(timer)
        if after.rstrip("+") == workflow_id:
            workflow_id = f"{after}+"
        self._enqueue_case(workflow_id, self._seconds_until(timer), timer.case)

    def _set_missing_timers(self) -> None:
        """Set the timers of cases that have none that runs in time.

        Another version may have set it, its workflow may have ended without the change, or the
        clock may have jumped. A second timer of a change finds that it was made.
        """
        waiting = DBOS.list_workflows(
            name=_CASE_WORKFLOW,
            status=["PENDING", "ENQUEUED", "DELAYED"],
            app_version=_VERSION,
            load_input=False,
            load_output=False,
        )
        running = {workflow.workflow_id.rstrip("+") for workflow in waiting}
        for timer in self._executor.cases.timers():
            workflow_id = _timer_id(timer)
            if workflow_id in running and timer.due > self._clock():
                continue
            while DBOS.get_workflow_status(workflow_id) is not None:
                workflow_id += "+"
            self._enqueue_case(workflow_id, self._seconds_until(timer), timer.case)

    def _seconds_until(self, timer: Timer) -> float:
        return (timer.due - self._clock()).total_seconds()

    def _enqueue_case(self, workflow_id: str, seconds: float, case: int) -> None:
        self._enqueue(workflow_id, seconds, self._case_workflow, case, workflow_id)

    def retry_event(self, session: str, event: Event, attempt: int) -> None:
        """Schedule the next attempt at an event, after `attempt` of them."""
        workflow_id = f"{event.name}-{event.subject}-{attempt + 1}"
        seconds = retry_seconds(attempt)
        arguments = (session, event, attempt + 1, self._tracer.current_turn())
        self._enqueue(workflow_id, seconds, self._event_workflow, *arguments)

    def _enqueue(
        self,
        workflow_id: str,
        seconds: float,
        workflow: Callable[_Params, _Result],
        *args: _Params.args,
        **kwargs: _Params.kwargs,
    ) -> None:
        with SetWorkflowID(workflow_id), SetEnqueueOptions(delay_seconds=max(seconds, 0.0)):
            DBOS.enqueue_workflow(_QUEUE, workflow, *args, **kwargs)


def retry_seconds(attempts: int) -> float:
    """Return the delay after a number of attempts: exponential backoff."""
    return min(_MIN_RETRY_SECONDS * 2.0**attempts, _MAX_RETRY_SECONDS)


def _timer_id(timer: Timer) -> str:
    """Return the workflow id of a timer; retries append to it."""
    return f"case-{_VERSION}-{timer.case}-{timer.due.timestamp():.6f}"


def _unfinished_turns(session: str | None = None) -> list[str]:
    """Return the ids of turns that run or wait, oldest first."""
    prefix = None if session is None else turn_prefix(session)
    turns = DBOS.list_workflows(
        name=_MESSAGE_WORKFLOW,
        status=["PENDING", "ENQUEUED"],
        app_version=_VERSION,
        workflow_id_prefix=prefix,
        load_input=False,
        load_output=False,
    )
    return [turn.workflow_id for turn in turns]


def _wait_for_earlier(session: str, workflow_id: str) -> None:
    """Wait until the earlier turns of a session have ended anywhere.

    The turn of a process that died ends once another process has taken it over.

    Raises:
        DatabaseError: A turn does not end.
    """
    deadline = time.monotonic() + _EARLIER_SECONDS
    while set(_unfinished_turns(session)) - {workflow_id}:
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"an earlier message of session {session!r} is still being handled;"
                " send this one again"
            )
        time.sleep(_POLL_SECONDS)


def _stored_trace(status: WorkflowStatus) -> str:
    """Return the stored trace of a turn; empty without one."""
    arguments = status.input["args"] if status.input is not None else ()
    return str(arguments[_TRACE_ARGUMENT]) if len(arguments) > _TRACE_ARGUMENT else ""


def _failed_step(workflow_id: str) -> int:
    """Return the id of the step at which a failed workflow resumes."""
    steps = DBOS.list_workflow_steps(workflow_id)
    failed = [step["function_id"] for step in steps if step["error"] is not None]
    return max(failed or (step["function_id"] for step in steps), default=1)
