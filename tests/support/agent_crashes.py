"""Crash driver: kills and restarts an agent at step boundaries.

`test_durable.py` runs it as `python -m tests.support.agent_crashes FOLDER STRIDE [SERVER]`, with
the URL of a PostgreSQL server, or none for SQLite. The driver kills at every STRIDE-th boundary. It
writes the final rows and workflows of every run to `FOLDER/*.json`. Each agent is a forked process,
because only a killed process leaves a workflow in the state of a crash.
"""

import itertools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg
from dbos import DBOS
from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Column, make_url, select
from tests.support.scripted_model import Script, ScriptedModel
from tests.support.shop import CODE, Clock

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import AgentProcess, Base, Database, Payment, database_url
from gpt2flow.agent.turns import recovery
from gpt2flow.agent.turns.durable import Workflows

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

PRELUDE = ["i'm Ann, ann@example.com", CODE, "2 kettles to 5 Oak Rd"]
CRASHING = "yes, and call me tomorrow at 3pm"
SCRIPT: Script = {
    PRELUDE[0]: [Choice("register", {"name": "Ann", "contact": "ann@example.com"})],
    CODE: [Choice("verify", {"code": CODE})],
    PRELUDE[2]: [
        Choice("add_to_cart", {"product": "kettles", "quantity": 2}),
        Choice("check_out", {"address": "5 Oak Rd"}),
    ],
    CRASHING: ["confirm_order", Choice("schedule_follow_up", {"time": "tomorrow at 3pm"})],
    "order_submitted": ["assign_courier", "send_delivery_details"],
}
MAX_PROCESSES = 6


@dataclass(frozen=True)
class Run:
    """Run of an agent on a shop of its own.

    Attributes:
        folder: Folder of the results and of SQLite files.
        name: Name of the run, its files and its database.
        server: URL of a PostgreSQL server's database; None is SQLite.
    """

    folder: Path
    name: str
    server: str | None

    @property
    def url(self) -> str:
        if self.server is None:
            return str(self.folder / f"{self.name}.sqlite")
        return make_url(self.server).set(database=self.name).render_as_string()

    @property
    def results(self) -> Path:
        return self.folder / f"{self.name}.json"

    def create(self) -> None:
        """Create the database."""
        if self.server is not None:
            self._execute(SQL("CREATE DATABASE {}").format(Identifier(self.name)))

    def copy(self, name: str) -> "Run":
        """Return a run that starts where this one has ended."""
        copy = Run(self.folder, name, self.server)
        if self.server is None:
            for suffix in ("", "-dbos"):
                shutil.copy(f"{self.url}{suffix}", f"{copy.url}{suffix}")
        else:
            names = map(Identifier, (name, self.name))
            self._execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return copy

    def _execute(self, statement: Composed) -> None:
        assert self.server is not None
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(statement)


def send_messages(run: Run, messages: Sequence[str], seconds: float = 0.0) -> None:
    """Handle messages, and write the final state to a JSON file.

    Args:
        run: Run that they belong to.
        messages: Messages, which also serve as their ids.
        seconds: Latency of one model call.
    """
    config, model = AgentConfig(database=run.url), ScriptedModel(SCRIPT, seconds)
    with Agent(config, model=model, clock=Clock(), codes=lambda: CODE) as agent:
        for message in messages:
            agent.handle("s", message, message_id=message)
        state = {"rows": read_rows(run.url), "workflows": list_workflows()}
    run.results.write_text(json.dumps(state), encoding="utf-8")


def read_rows(url: str) -> dict[str, list[str]]:
    """Return the rows of the shop's tables, without their random columns."""
    database = Database.open(database_url(url))
    rows = {}
    with database.transaction() as db:
        for table in Base.metadata.sorted_tables:
            columns = [c for c in table.columns if not _differs(c)]
            rows[table.name] = sorted(str(tuple(row)) for row in db.execute(select(*columns)))
    database.close()
    # Each process has a row of its own there.
    del rows[AgentProcess.__tablename__]
    return rows


def _differs(column: Column[Any]) -> bool:
    """Return whether runs of the same messages may differ in a column."""
    # The sweep may come before the turn that requested a payment.
    return bool(column.info.get("private")) or column is Payment.__table__.columns["attempts"]


def list_workflows() -> list[str]:
    """Return id, name and status of all workflows in DBOS."""
    return sorted(f"{w.workflow_id} {w.name} {w.status}" for w in DBOS.list_workflows())


def count_boundaries(kill_at: int | None = None) -> Iterator[int]:
    """Patch `Workflows` to count boundaries and kill this process at one.

    A step has two boundaries: before it, and between its effect and its record.

    Args:
        kill_at: Boundary at which to kill the process; None lets it run.

    Returns:
        Counter whose next value is the number of boundaries passed.
    """
    passed, run_step = itertools.count(), Workflows.run_step

    def pass_boundary() -> None:
        if next(passed) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_step(
        self: Workflows,
        function: Callable[_Params, _Result],
        *args: _Params.args,
        **kwargs: _Params.kwargs,
    ) -> _Result:
        def effect(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
            result = function(*args, **kwargs)
            pass_boundary()
            return result

        pass_boundary()
        effect.__name__ = function.__name__
        return run_step(self, effect, *args, **kwargs)

    Workflows.run_step = counted_step  # type: ignore[method-assign]
    return passed


def fork(work: Callable[[], None]) -> int:
    """Run a function in a forked process and return the process id."""
    child = os.fork()
    if child:
        return child
    failed = True
    try:
        work()
        failed = False
    finally:
        if failed:
            traceback.print_exc()
        os._exit(failed)


def wait_for_exit(child: int) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash_and_resume(run: Run, boundary: int) -> None:
    """Kill one process at a boundary, and resume its turn in another."""

    def crash() -> None:
        count_boundaries(boundary)
        send_messages(run, [CRASHING])

    assert wait_for_exit(fork(crash)) == -signal.SIGKILL, f"boundary {boundary} was not reached"
    send_messages(run, [*PRELUDE, CRASHING])


def run_uninterrupted(run: Run) -> int:
    """Run without a crash; return the boundaries of the last turn."""
    count = run.folder / "count"

    def work() -> None:
        passed = count_boundaries()
        send_messages(run, [*PRELUDE, CRASHING])
        count.write_text(str(next(passed)), encoding="utf-8")

    assert wait_for_exit(fork(work)) == 0
    return int(count.read_text(encoding="utf-8"))


def run_concurrently(run: Run) -> None:
    """Start a second process while the first one is still working."""
    first = fork(lambda: send_messages(run, [CRASHING], seconds=0.5))
    time.sleep(1.0)
    second = fork(lambda: send_messages(run, [CRASHING], seconds=0.5))
    assert [wait_for_exit(first), wait_for_exit(second)] == [0, 0]


def main(folder: Path, stride: int, server: str | None) -> None:
    # Waiting longer for a sign of life of the dead would only cost time.
    recovery._HEARTBEAT_SECONDS, recovery._DEAD_SECONDS = 0.2, 1.5
    prelude = Run(folder, "prelude", server)
    prelude.create()
    assert wait_for_exit(fork(lambda: send_messages(prelude, PRELUDE))) == 0
    count = run_uninterrupted(prelude.copy("uninterrupted"))
    remaining = iter(range(0, count, stride))
    while batch := list(itertools.islice(remaining, MAX_PROCESSES)):
        children = [fork(partial(crash_and_resume, prelude.copy(f"crash-{n}"), n)) for n in batch]
        assert [wait_for_exit(child) for child in children] == [0] * len(children)
    run_concurrently(prelude.copy("concurrent"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None)
