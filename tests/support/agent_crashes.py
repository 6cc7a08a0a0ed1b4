"""Crash driver: kills and restarts an agent at every step boundary.

`test_durable.py` runs it as `python -m tests.support.agent_crashes FOLDER`. The driver
writes the final rows and workflows of every run to `FOLDER/*.json`. Each agent is a
forked process, because only a killed process leaves a workflow in the state of a crash.
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
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from dbos import DBOS
from sqlalchemy import select
from tests.support.scripted_model import Script, ScriptedModel
from tests.support.shop import CODE, Clock

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import Base, Database, database_url
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


def send_messages(shop: Path, messages: Sequence[str], seconds: float = 0.0) -> None:
    """Handle messages, and write the final state to a JSON file.

    Args:
        shop: SQLite file of the shop.
        messages: Messages, which also serve as their ids.
        seconds: Latency of one model call.
    """
    config, model = AgentConfig(database=str(shop)), ScriptedModel(SCRIPT, seconds)
    with Agent(config, model=model, clock=Clock(), codes=lambda: CODE) as agent:
        for message in messages:
            agent.handle("s", message, message_id=message)
        state = {"rows": read_rows(shop), "workflows": list_workflows()}
    shop.with_suffix(".json").write_text(json.dumps(state), encoding="utf-8")


def read_rows(shop: Path) -> dict[str, list[str]]:
    """Return all rows of all tables, without their random columns."""
    database = Database.open(database_url(str(shop)))
    rows = {}
    with database.transaction() as db:
        for table in Base.metadata.sorted_tables:
            columns = [c for c in table.columns if not c.info.get("private")]
            rows[table.name] = sorted(str(tuple(row)) for row in db.execute(select(*columns)))
    database.close()
    return rows


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


def copy_prelude(folder: Path, name: str) -> Path:
    """Copy the state after the prelude; return the path of the shop."""
    for suffix in (".sqlite", ".sqlite-dbos"):
        shutil.copy(folder / f"prelude{suffix}", folder / f"{name}{suffix}")
    return folder / f"{name}.sqlite"


def crash_and_resume(shop: Path, boundary: int) -> None:
    """Kill one process at a boundary, and resume its turn in another."""

    def crash() -> None:
        count_boundaries(boundary)
        send_messages(shop, [CRASHING])

    assert wait_for_exit(fork(crash)) == -signal.SIGKILL, f"boundary {boundary} was not reached"
    send_messages(shop, [*PRELUDE, CRASHING])


def run_uninterrupted(shop: Path) -> int:
    """Run without a crash; return the boundaries of the last turn."""
    count = shop.with_suffix(".count")

    def run() -> None:
        passed = count_boundaries()
        send_messages(shop, [*PRELUDE, CRASHING])
        count.write_text(str(next(passed)), encoding="utf-8")

    assert wait_for_exit(fork(run)) == 0
    return int(count.read_text(encoding="utf-8"))


def run_concurrently(shop: Path) -> None:
    """Start a second process while the first one is still working."""
    first = fork(lambda: send_messages(shop, [CRASHING], seconds=0.5))
    time.sleep(1.0)
    second = fork(lambda: send_messages(shop, [CRASHING], seconds=0.5))
    assert [wait_for_exit(first), wait_for_exit(second)] == [0, 0]


def main(folder: Path) -> None:
    assert wait_for_exit(fork(lambda: send_messages(folder / "prelude.sqlite", PRELUDE))) == 0
    count = run_uninterrupted(copy_prelude(folder, "uninterrupted"))
    remaining = iter(range(count))
    while batch := list(itertools.islice(remaining, MAX_PROCESSES)):
        children = [
            fork(partial(crash_and_resume, copy_prelude(folder, f"crash-{n}"), n)) for n in batch
        ]
        assert [wait_for_exit(child) for child in children] == [0] * len(children)
    run_concurrently(copy_prelude(folder, "concurrent"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
