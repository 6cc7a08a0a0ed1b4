"""Recovery of work whose agent process died, by other processes."""

import os
import socket
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread

import structlog
from dbos import DBOS, WorkflowStatus
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from gpt2flow.agent.shop import AgentProcess, Database

# An agent that has not been seen for so long is taken to be dead. With the interval, its work goes
# on elsewhere within TAKEOVER_SECONDS; a shorter limit would take work from a process that stalls.
_HEARTBEAT_SECONDS = 2.0
_DEAD_SECONDS = 10.0
TAKEOVER_SECONDS = 15.0
# Key of the advisory lock; arbitrary, but unique within the PostgreSQL database.
_LOCK = 7_213_502
_LOG = structlog.get_logger(__name__)


def new_executor_id() -> str:
    """Return an id of this process that no other process has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Recovery:
    """Heartbeat of an agent process, and takeover of work that nobody does.

    Args:
        database: PostgreSQL database that the agents share.
        executor_id: Id of this process.
        version: Version of the workflows of this process.
        running: Ids of the workflows that this process is running, which it keeps up to date.
    """

    def __init__(
        self, database: Database, executor_id: str, version: str, running: Collection[str]
    ) -> None:
        self._database = database
        self._executor_id = executor_id
        self._version = version
        self._running = running
        self._suspects: set[str] = set()
        # Whether all living processes have this version.
        self._is_alone = False
        self._stop = Event()
        self._thread = Thread(target=self._run, name="recovery", daemon=True)

    def register(self) -> None:
        """Sign that this process is alive, before it takes any work.

        Raises:
            SQLAlchemyError: The database failed.
        """
        self._beat()

    def start(self) -> None:
        """Look for work of dead processes from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and leave unfinished work to the others at once."""
        self._stop.set()
        # The start of the agent may have failed before that of the thread.
        if self._thread.is_alive():
            self._thread.join()
        # Without the database, the others notice later.
        with suppress(SQLAlchemyError), self._database.transaction() as db:
            db.execute(delete(AgentProcess).where(AgentProcess.executor_id == self._executor_id))

    def _run(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            try:
                self._beat()
                self._take_over()
            except Exception as error:  # noqa: BLE001 - without this thread, work is lost
                # Mostly the database is away: turns fail with that error too.
                _LOG.warning("recovery_failed", error=type(error).__name__)

    def _beat(self) -> None:
        """Record that this process is alive.

        Others may have taken it to be dead.
        """
        with self._database.transaction() as db:
            mine = AgentProcess.executor_id == self._executor_id
            seen = update(AgentProcess).where(mine).values(seen_at=func.now())
            if db.scalar(seen.returning(AgentProcess.executor_id)) is None:
                values = {"executor_id": self._executor_id, "version": self._version}
                db.execute(insert(AgentProcess).values(**values, seen_at=func.now()))

    def _take_over(self) -> None:
        """Resume work that no living process does."""
        with self._database.transaction() as db:
            # One process at a time, so that no work is resumed twice.
            if not db.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
                return
            limit = func.now() - timedelta(seconds=_DEAD_SECONDS)
            db.execute(delete(AgentProcess).where(AgentProcess.seen_at < limit))
            processes = db.scalars(select(AgentProcess))
            alive = {process.executor_id: process.version for process in processes}
            pending = _list_workflows("PENDING")
            for workflow in pending:
                if workflow.executor_id not in alive:
                    resume(workflow, self._version)
            self._resume_abandoned(pending)
            # Not at every beat: what waits may be a workflow for each case of the shop.
            is_alone = set(alive.values()) == {self._version}
            if is_alone and not self._is_alone:
                adopt_waiting_work(self._version)
            self._is_alone = is_alone

    def _resume_abandoned(self, pending: Iterable[WorkflowStatus]) -> None:
        """Resume work that this process lost when the database failed.

        A workflow is pending shortly before it runs, so that only the second look counts.
        """
        lost = {
            workflow.workflow_id: workflow
            for workflow in pending
            if workflow.executor_id == self._executor_id
            and workflow.workflow_id not in self._running
        }
        for workflow_id in self._suspects & lost.keys():
            resume(lost.pop(workflow_id), self._version)
        self._suspects = set(lost)


def resume_older_work(version: str) -> None:
    """Start unfinished work of other versions anew.

    No other process may be running it.
    """
    for workflow in _list_workflows("PENDING"):
        if workflow.app_version != version:
            restart(workflow.workflow_id, version)
    adopt_waiting_work(version)


def adopt_waiting_work(version: str) -> None:
    """Adopt the waiting workflows of other versions.

    Their processes are gone.
    """
    for status in ("ENQUEUED", "DELAYED"):
        for workflow in _list_workflows(status):
            if workflow.app_version != version:
                restart(workflow.workflow_id, version)


def resume(workflow: WorkflowStatus, version: str) -> None:
    """Resume an unfinished workflow, or restart that of another version."""
    if workflow.app_version == version:
        DBOS.resume_workflow(workflow.workflow_id)
    else:
        restart(workflow.workflow_id, version)


def restart(workflow_id: str, version: str) -> None:
    """Run a workflow of another version from its first step.

    The results of another version's steps may not fit. What was carried out has its records, so
    that nothing is done twice.
    """
    DBOS.cancel_workflow(workflow_id)
    DBOS.rewind_workflow(workflow_id, start_step=1, application_version=version)


def _list_workflows(status: str) -> list[WorkflowStatus]:
    return DBOS.list_workflows(status=status, load_input=False, load_output=False)
