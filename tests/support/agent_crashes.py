"""Kills an agent at every step boundary of a turn, runs it again, and prints what is left.

Run as `python -m tests.support.agent_crashes FOLDER`; `test_durable.py` does. Each
agent is a forked process of its own, since only a killed process leaves a
workflow behind the way a crash does.
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
from tests.agent.conftest import CODE, Clock, ScriptedModel

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import Base, Database, database_url
from gpt2flow.agent.turns.durable import Workflows

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

PRELUDE = ["i'm Ann, ann@example.com", CODE, "2 kettles to 5 Oak Rd"]
CRASHING = "yes, and call me tomorrow at 3pm"
SCRIPT: dict[str, Sequence[Choice | str]] = {
    PRELUDE[0]: [Choice("register", {"name": "Ann", "contact": "ann@example.com"})],
    CODE: [Choice("verify", {"code": CODE})],
    PRELUDE[2]: [
        Choice("add_to_cart", {"product": "kettles", "quantity": 2}),
        Choice("check_out", {"address": "5 Oak Rd"}),
    ],
    CRASHING: ["confirm_order", Choice("schedule_follow_up", {"time": "tomorrow at 3pm"})],
    "order_submitted": ["assign_courier", "send_delivery_details"],
}
AT_ONCE = 6


def talk(shop: Path, messages: Sequence[str], seconds: float = 0.0) -> None:
    """Send messages, each under an id of its own, to a model that takes its time."""
    config, model = AgentConfig(database=str(shop)), ScriptedModel(SCRIPT, seconds)
    with Agent(config, model=model, clock=Clock(), codes=lambda: CODE) as agent:
        for message in messages:
            agent.handle("s", message, message_id=message)
        left = {"rows": rows(shop), "workflows": workflows()}
    shop.with_suffix(".json").write_text(json.dumps(left), encoding="utf-8")


def rows(shop: Path) -> dict[str, list[str]]:
    """All rows of all tables, less what is random by purpose."""
    database = Database.open(database_url(str(shop)))
    left = {}
    with database.transaction() as db:
        for table in Base.metadata.sorted_tables:
            columns = [c for c in table.columns if not c.info.get("private")]
            left[table.name] = sorted(str(tuple(row)) for row in db.execute(select(*columns)))
    database.close()
    return left


def workflows() -> list[str]:
    """All workflows that DBOS knows, and how they stand."""
    return sorted(f"{w.workflow_id} {w.name} {w.status}" for w in DBOS.list_workflows())


def watch_steps(boundary: int | None = None) -> Iterator[int]:
    """Has this process killed at a boundary: before a step, or between its effect and its record.

    Returns:
        A counter that stands at the number of boundaries that were passed.
    """
    passed, step = itertools.count(), Workflows.step

    def pass_boundary() -> None:
        if next(passed) == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched_step(
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
        return step(self, effect, *args, **kwargs)

    Workflows.step = watched_step  # type: ignore[method-assign]
    return passed


def forked(work: Callable[[], None]) -> int:
    """Start work in a process of its own; returns its id."""
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


def ended(child: int) -> int:
    """Wait for a process; returns its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def copied(folder: Path, name: str) -> Path:
    """A copy of the shop, and of DBOS's records, as the prelude left them."""
    for suffix in (".sqlite", ".sqlite-dbos"):
        shutil.copy(folder / f"prelude{suffix}", folder / f"{name}{suffix}")
    return folder / f"{name}.sqlite"


def crash_and_go_on(shop: Path, boundary: int) -> None:
    """One process is killed at the boundary, the next one finds what it left."""

    def crash() -> None:
        watch_steps(boundary)
        talk(shop, [CRASHING])

    assert ended(forked(crash)) == -signal.SIGKILL, f"boundary {boundary} was not reached"
    talk(shop, [*PRELUDE, CRASHING])


def uninterrupted(shop: Path) -> int:
    """Play the whole conversation; returns how many boundaries its last turn has."""
    count = shop.with_suffix(".count")

    def play() -> None:
        passed = watch_steps()
        talk(shop, [*PRELUDE, CRASHING])
        count.write_text(str(next(passed)), encoding="utf-8")

    assert ended(forked(play)) == 0
    return int(count.read_text(encoding="utf-8"))


def together(shop: Path) -> None:
    """A second process starts, and takes over, while the first one is at work."""
    first = forked(lambda: talk(shop, [CRASHING], seconds=0.5))
    time.sleep(1.0)
    second = forked(lambda: talk(shop, [CRASHING], seconds=0.5))
    assert [ended(first), ended(second)] == [0, 0]


def main(folder: Path) -> None:
    assert ended(forked(lambda: talk(folder / "prelude.sqlite", PRELUDE))) == 0
    count = uninterrupted(copied(folder, "whole"))
    remaining = iter(range(count))
    while batch := list(itertools.islice(remaining, AT_ONCE)):
        children = [
            forked(partial(crash_and_go_on, copied(folder, f"crash-{n}"), n)) for n in batch
        ]
        assert [ended(child) for child in children] == [0] * len(children)
    together(copied(folder, "together"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
