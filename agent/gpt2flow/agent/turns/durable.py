"""Turns as durable workflows: killed at any point, they are finished at the next start.

DBOS records the result of every step, and replays a workflow up to the first
step without one. That step may have been carried out already, so a step that
changes the shop guards itself with a key in the transaction of its effects.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID, WorkflowHandle
from sqlalchemy import URL, create_engine

from gpt2flow.agent.config import Clock
from gpt2flow.agent.report import EventReport, Timer, TurnReport
from gpt2flow.agent.shop.database import failures_named
from gpt2flow.agent.turns.execution import Event, Executor
from gpt2flow.agent.turns.handler import Handling

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

# Workflows in flight are finished by the same version only. It must change
# whenever the steps of a workflow, or what they return, do.
_VERSION = "1"
_QUEUE = "later"
_FAILED = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_POLL_SECONDS = 0.1
_FIRST_RETRY_SECONDS = 2.5
_LAST_RETRY_SECONDS = 600.0


class Workflows:
    """The agent's durable workflows; a process has them once, as it has DBOS.

    Args:
        handling: what the workflows do.
        executor: takes up cases that are due.
        clock: what timers are measured by.
        url: of the shop's database. DBOS keeps its records beside it: in a
            file of its own, or in a schema of its own on PostgreSQL.
    """

    def __init__(self, handling: Handling, executor: Executor, clock: Clock, url: URL) -> None:
        self._handling = handling
        self._executor = executor
        self._clock = clock
        DBOS(
            config=DBOSConfig(
                name="gpt2flow",
                system_database_url=_prepare_system_database(url),
                application_version=_VERSION,
                log_level="ERROR",
                # Its listener sleeps so long at a time, and closing waits for it.
                notification_listener_polling_interval_sec=0.2,
            )
        )
        self._turn, self._event, self._take_up = self._register()

    def _register(
        self,
    ) -> tuple[
        Callable[[str, str, str], TurnReport],
        Callable[[str, Event, int], EventReport],
        Callable[[int], None],
    ]:
        # DBOS finds workflows by name when it recovers them, and keeps functions
        # rather than methods.
        @DBOS.workflow(name="turn")
        def turn(session: str, message_id: str, text: str) -> TurnReport:
            key = _turn_id(session, message_id)
            return self._handling.message(self, key, session, message_id, text)

        @DBOS.workflow(name="event")
        def event(session: str, event: Event, attempt: int) -> EventReport:
            return self._handling.event(self, session, event, attempt, [])

        @DBOS.workflow(name="take_up")
        def take_up(case: int) -> None:
            self.step(self._executor.take_up, case)

        return turn, event, take_up

    def launch(self) -> None:
        """Start DBOS, and finishes the turns that were interrupted.

        A customer's later message must not overtake an earlier one.
        """
        DBOS.launch()
        DBOS.register_queue(_QUEUE, on_conflict="never_update")
        pending = DBOS.list_workflows(
            name="turn",
            status=["PENDING", "ENQUEUED"],
            app_version=_VERSION,
            load_input=False,
            load_output=False,
        )
        for workflow in pending:
            # Whatever its error is, it is told to whoever sends the message again.
            with suppress(Exception):
                handle: WorkflowHandle[TurnReport] = DBOS.retrieve_workflow(workflow.workflow_id)
                handle.get_result(polling_interval_sec=_POLL_SECONDS)

    def close(self) -> None:
        """Stop DBOS; what is unfinished stays so."""
        DBOS.destroy(destroy_registry=True)

    def turn(self, session: str, message_id: str, text: str) -> TurnReport:
        """Handle a message, or returns what handling it came to before.

        One whose handling failed goes on at the step that failed.
        """
        workflow_id = _turn_id(session, message_id)
        status = DBOS.get_workflow_status(workflow_id)
        if status is not None and status.status in _FAILED:
            step = _failed_step(workflow_id)
            handle: WorkflowHandle[TurnReport] = DBOS.rewind_workflow(workflow_id, start_step=step)
            return handle.get_result(polling_interval_sec=_POLL_SECONDS)
        with SetWorkflowID(workflow_id):
            return self._turn(session, message_id, text)

    def step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        """Call a function as a step of the workflow that is running."""
        return DBOS.run_step({"name": function.__name__}, function, *args, **kwargs)

    def set_timer(self, timer: Timer) -> None:
        """Has a case taken up when it is due, in whatever process runs then."""
        seconds = (timer.due - self._clock()).total_seconds()
        self._later(f"case-{timer.case}", seconds, self._take_up, timer.case)

    def try_again(self, session: str, event: Event, attempt: int) -> None:
        """Has an event handled again, after a delay that doubles each time."""
        seconds = min(_FIRST_RETRY_SECONDS * 2**attempt, _LAST_RETRY_SECONDS)
        name = f"{event.name}-{event.subject}-{attempt + 1}"
        self._later(name, seconds, self._event, session, event, attempt + 1)

    def _later(
        self,
        workflow_id: str,
        seconds: float,
        workflow: Callable[_Params, _Result],
        *args: _Params.args,
        **kwargs: _Params.kwargs,
    ) -> None:
        with SetWorkflowID(workflow_id), SetEnqueueOptions(delay_seconds=max(seconds, 0.0)):
            DBOS.enqueue_workflow(_QUEUE, workflow, *args, **kwargs)


def _failed_step(workflow_id: str) -> int:
    """The step that a failed workflow has to do again."""
    steps = DBOS.list_workflow_steps(workflow_id)
    failed = [step["function_id"] for step in steps if step["error"] is not None]
    return max(failed or (step["function_id"] for step in steps), default=1)


def _prepare_system_database(url: URL) -> str:
    """Return the address of DBOS's database, which can be written."""
    if url.get_backend_name() != "sqlite":
        return url.set(drivername="postgresql").render_as_string(hide_password=False)
    url = url.set(database=f"{url.database}-dbos")
    # DBOS would retry and log for long what this finds out at once. The journal
    # mode, which stays with the file, saves it most of its waiting for the disk.
    engine = create_engine(url)
    with failures_named(url), engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.rollback()
    engine.dispose()
    return url.render_as_string(hide_password=False)


def _turn_id(session: str, message_id: str) -> str:
    """One id for each message of each session, whatever characters are in them."""
    return f"{quote(session, safe='')}/{quote(message_id, safe='')}"
