"""Recovery of work whose agent process died, by the others on the same database."""

import os
import socket
import uuid
from datetime import timedelta
from threading import Event, Thread

from dbos import DBOS, WorkflowStatus
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from gpt2flow.agent.shop import AgentProcess, Database

# An agent that has not been seen for so long is taken to be dead. With the interval, its work goes
# on elsewhere within TAKEOVER_SECONDS; a shorter limit would take work from a process that stalls.
_HEARTBEAT_SECONDS = 2.0
_DEAD_SECONDS = 10.0
TAKEOVER_SECONDS = 15.0


def new_executor_id() -> str:
    """Return an id of this process that no other process has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Recovery:
    """Heartbeat of an agent process, and takeover of the work of dead ones.

    Args:
        database: PostgreSQL database that the agents share.
        executor_id: Id of this process.
        version: Version of the workflows of this process.
    """

    def __init__(self, database: Database, executor_id: str, version: str) -> None:
        self._database = database
        self._executor_id = executor_id
        self._version = version
        self._stop = Event()
        self._thread = Thread(target=self._run, name="recovery", daemon=True)

    def start(self) -> None:
        """Register this process, and look for dead ones from now on.

        Raises:
            SQLAlchemyError: The database failed.
        """
        with self._database.transaction() as db:
            values = {"executor_id": self._executor_id, "version": self._version}
            db.execute(insert(AgentProcess).values(**values, seen_at=func.now()))
        self._thread.start()

    def stop(self) -> None:
        """Stop, and leave unfinished work to the others at once."""
        self._stop.set()
        self._thread.join()
        with self._database.translate_errors(), self._database.transaction() as db:
            dead = db.get(AgentProcess, self._executor_id)
            if dead is not None:
                dead.seen_at -= timedelta(seconds=_DEAD_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            try:
                self._beat()
                self._take_over()
            except SQLAlchemyError:
                # The database is away: turns fail with that error, and the next beat tries again.
                continue

    def _beat(self) -> None:
        with self._database.transaction() as db:
            mine = AgentProcess.executor_id == self._executor_id
            db.execute(update(AgentProcess).where(mine).values(seen_at=func.now()))

    def _take_over(self) -> None:
        """Let the work of dead processes go on, here or in another process."""
        with self._database.transaction() as db:
            for dead in _dead_processes(db, self._executor_id):
                resume_work(self._version, executor_id=dead)
                # The row goes last, so that another process finishes a takeover that is cut short.
                db.execute(delete(AgentProcess).where(AgentProcess.executor_id == dead))
            if not _live_versions(db) - {self._version}:
                adopt_waiting_work(self._version)


def _dead_processes(db: Session, executor_id: str) -> list[str]:
    """Return the ids of dead processes, locked against a takeover by another process."""
    query = (
        select(AgentProcess.executor_id)
        .where(
            AgentProcess.seen_at < func.now() - timedelta(seconds=_DEAD_SECONDS),
            AgentProcess.executor_id != executor_id,
        )
        .with_for_update(skip_locked=True)
    )
    return list(db.scalars(query))


def _live_versions(db: Session) -> set[str]:
    return set(db.scalars(select(AgentProcess.version)))


def resume_work(version: str, executor_id: str | None = None) -> None:
    """Resume the workflows that a dead process was running.

    Args:
        version: Version of the workflows of this process.
        executor_id: Id of the dead process; None is any process.
    """
    for workflow in _list_workflows("PENDING", executor_id):
        if workflow.app_version != version:
            restart(workflow.workflow_id, version)
        elif executor_id is not None:
            DBOS.resume_workflow(workflow.workflow_id)


def adopt_waiting_work(version: str) -> None:
    """Give the waiting workflows of other versions, whose processes are gone, to this one."""
    for status in ("ENQUEUED", "DELAYED"):
        for workflow in _list_workflows(status, None):
            if workflow.app_version != version:
                restart(workflow.workflow_id, version)


def restart(workflow_id: str, version: str) -> None:
    """Run a workflow of another version from its first step.

    The results of another version's steps may not fit. What was carried out has its records, so
    that nothing is done twice.
    """
    DBOS.cancel_workflow(workflow_id)
    DBOS.rewind_workflow(workflow_id, start_step=1, application_version=version)


def _list_workflows(status: str, executor_id: str | None) -> list[WorkflowStatus]:
    return DBOS.list_workflows(
        status=status, executor_id=executor_id, load_input=False, load_output=False
    )
