"""Points at which processes of a chaos run are killed.

They are wrapped around the code of the agent.
"""

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from dbos import DBOS
from dbos._context import get_local_dbos_context

from gpt2flow.agent.delivery import dispatcher as dispatcher_module
from gpt2flow.agent.delivery.queue import OutboxQueue
from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.ledger import PaymentLedger
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.turns.durable import Workflows
from gpt2flow.agent.turns.handler import TurnHandler
from gpt2flow.agent.turns.model import ServedModel
from gpt2flow.agent.turns.recovery import Recovery

BEGIN: Final = "begin"
"""End of the points at which a step begins, after DBOS has looked for its record.

For a kill of the agent it is as the point before; without PostgreSQL, the step itself fails.
"""

ANSWERED: Final = ":answered"
"""End of the point before an agent sends the report of a message."""


class Victim(StrEnum):
    """Process that is killed.

    An endpoint is an agent behind HTTP, and the desk a command of a person.
    """

    AGENT = "agent"
    ENDPOINT = "endpoint"
    DESK = "desk"
    PAYMENTS = "payments"
    DISPATCHER = "dispatcher"
    SERVER = "server"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True)
class Target:
    """Kill that waits for a process to reach a point.

    Attributes:
        point: Name of the point.
        victim: Process to kill; PostgreSQL and the model server are killed by the one that reaches
            the point.
        delay: Seconds between the point and the kill of another process.
        pause: Seconds for which the process that kills another one waits at the point, so that it
            goes on without the other.
    """

    point: str
    victim: Victim
    delay: float = 0.0
    pause: float = 0.0


@dataclass
class KillPoints:
    """Points that this process passes.

    Each target is hit once in a run, whichever process reaches it first: a file claims it.

    Attributes:
        folder: Folder that the processes of a run share.
        targets: Targets by point.
        pids: Files that hold the process ids of victims other than this process.
    """

    folder: Path
    targets: Mapping[str, Target]
    pids: Mapping[Victim, Path] = field(default_factory=dict)
    _noted: set[tuple[str, str]] = field(default_factory=set)

    def pass_point(self, point: str, session: str = "-") -> None:
        """Note that a point is passed, and kill whom a target names."""
        if (session, point) not in self._noted:
            self._noted.add((session, point))
            _append(self.folder / "passed", f"{session}\t{point}\n")
        target = self.targets.get(point)
        if target is None or not self._claim(target):
            return
        if target.delay:
            threading.Timer(target.delay, self._kill, [target.victim]).start()
        else:
            self._kill(target.victim)
            time.sleep(target.pause)

    def _claim(self, target: Target) -> bool:
        """Return whether this process is the first at a target.

        A file with the id of the process to kill tells the others and the driver.
        """
        path = self.folder / "claims" / f"{target.victim}@{target.point.replace('/', '|')}"
        with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
            file.write(str(self._pid(target.victim)))
            return True
        return False

    def _pid(self, victim: Victim) -> int | None:
        """Return the id of a process; None while it is gone."""
        if victim not in self.pids:
            return os.getpid()
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(self.pids[victim].read_text(encoding="utf-8").split()[0])
        return None

    def _kill(self, victim: Victim) -> None:
        pid = self._pid(victim)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _append(path: Path, line: str) -> None:
    """Append a line in one write.

    Those of other processes cannot break it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _place() -> tuple[str, str]:
    """Return the session and the kind of the work of this thread.

    The kind of a turn is the id of its message, so that the same message of two conversations has
    the same points.
    """
    context = get_local_dbos_context()
    workflow_id = context.workflow_id if context is not None else ""
    if not workflow_id:
        threads = {"payments": "sweep", "recovery": "takeover", "MainThread": "launch"}
        return "-", threads.get(threading.current_thread().name, "request")
    if workflow_id.startswith("case-"):
        return "-", "advance_case"
    session, slash, message_id = workflow_id.partition("/")
    return (unquote(session), message_kind(unquote(message_id))) if slash else ("-", "event")


def message_kind(message_id: str) -> str:
    """Return the id of a message without its unique part."""
    return message_id.partition("#")[0]


def _next_step() -> int:
    """Return the number of the workflow's next step."""
    context = get_local_dbos_context()
    return context.function_id + 1 if context is not None else 0


@dataclass(frozen=True)
class _Wrapper:
    """Wrapper of functions with a point before and a point after them."""

    points: KillPoints

    def step(self, name: str) -> None:
        session, kind = _place()
        self.points.pass_point(f"{kind}:{name}", session)

    def around(self, owner: Any, attribute: str, name: str, *, when: str = "both") -> None:
        """Replace a function by one that passes points.

        Args:
            owner: Class or module of the function.
            attribute: Name of the function.
            name: Name of the points.
            when: `before`, `after` or `both`.
        """
        wrapped: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(wrapped)
        def passing(*args: Any, **kwargs: Any) -> Any:
            if when != "after":
                self.step(f"{name}:before")
            result = wrapped(*args, **kwargs)
            if when != "before":
                self.step(f"{name}:after")
            return result

        setattr(owner, attribute, passing)


def install_in_agent(points: KillPoints) -> None:
    """Put points into the agent of this process.

    They are before each step and between its effect and its record, at both ends of every workflow,
    around every timer and retry, around each call to the payment service and each record of its
    answer, and within the start of a process and the takeover of another one's work.
    """
    wrapper = _Wrapper(points)
    _wrap_steps(wrapper)
    for name in ("handle_message", "handle_event"):
        wrapper.around(TurnHandler, name, name)
    wrapper.around(Workflows, "_enqueue", "enqueue")
    wrapper.around(Workflows, "sleep", "sleep")
    wrapper.around(Workflows, "_set_missing_timers", "missing_timers")
    wrapper.around(HttpPayments, "submit", "submit")
    wrapper.around(HttpPayments, "find", "find")
    wrapper.around(Payer, "_finish", "finish")
    wrapper.around(Payer, "_postpone", "postpone")
    wrapper.around(DBOS, "launch", "dbos")
    wrapper.around(DBOS, "resume_workflow", "resume")
    wrapper.around(Recovery, "start", "recovery")
    wrapper.around(ServedModel, "choose", "call", when="before")


def _wrap_steps(wrapper: _Wrapper) -> None:
    run_step = Workflows.run_step

    def passing(self: Workflows, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        action = getattr(getattr(args[0], "choice", None), "action", "") if args else ""
        name = f"{_next_step()}:{function.__name__} {action}".strip()

        @functools.wraps(function)
        def effect(*args: Any, **kwargs: Any) -> Any:
            wrapper.step(f"{name}:{BEGIN}")
            result = function(*args, **kwargs)
            wrapper.step(f"{name}:effect")
            return result

        wrapper.step(f"{name}:before")
        return run_step(self, effect, *args, **kwargs)

    Workflows.run_step = passing  # type: ignore[method-assign]


def install_in_payments(points: KillPoints) -> None:
    """Put points around the commits of the payment service."""
    wrapper = _Wrapper(points)
    decide, submit = PaymentLedger._decide, PaymentLedger.submit

    def deciding(self: PaymentLedger, key: str, body: Any) -> Any:
        wrapper.points.pass_point(f"payments:{body.kind}:before the decision")
        answer = decide(self, key, body)
        wrapper.points.pass_point(f"payments:{body.kind}:before the commit")
        return answer

    def submitting(self: PaymentLedger, key: str, body: Any) -> Any:
        answer = submit(self, key, body)
        wrapper.points.pass_point(f"payments:{body.kind}:before the answer")
        return answer

    PaymentLedger._decide = deciding  # type: ignore[method-assign]
    PaymentLedger.submit = submitting  # type: ignore[method-assign]


def install_in_dispatcher(points: KillPoints) -> None:
    """Put points around the sending and the records of the dispatcher."""
    claim, record_sent, send = OutboxQueue.claim, OutboxQueue.record_sent, dispatcher_module._send

    def claiming(self: OutboxQueue, limit: int) -> Any:
        claims = claim(self, limit)
        if claims:
            points.pass_point("dispatcher:claimed")
        return claims

    async def sending(each: Any) -> Any:
        points.pass_point(f"dispatcher:{each.message.flow}:before sending")
        return await send(each)

    def recording(self: OutboxQueue, each: Any) -> None:
        points.pass_point(f"dispatcher:{each.message.flow}:before the record")
        record_sent(self, each)
        points.pass_point(f"dispatcher:{each.message.flow}:after the record")

    OutboxQueue.claim = claiming  # type: ignore[method-assign]
    OutboxQueue.record_sent = recording  # type: ignore[assignment, method-assign]
    dispatcher_module._send = sending  # type: ignore[assignment]
