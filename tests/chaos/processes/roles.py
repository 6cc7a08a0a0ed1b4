"""Agent, dispatcher and payment service of a chaos run.

Each is forked from a process that has imported all of this and has no thread.
"""

import asyncio
import faulthandler
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self

from tests.chaos.conversations import CONVERSATIONS, REFUSED, Scene, script_of
from tests.chaos.processes.kill_points import (
    ANSWERED,
    KillPoints,
    Target,
    Victim,
    install_in_agent,
    install_in_dispatcher,
    install_in_payments,
    message_kind,
)
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import CODE
from tests.support.shop import Clock as FixedClock
from tests.support.webhook_receiver import SECRET

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig, utc_now
from gpt2flow.agent.delivery import backoff, dispatcher, queue
from gpt2flow.agent.delivery.settings import DeliverySettings
from gpt2flow.agent.errors import AgentError
from gpt2flow.agent.payments import payer, sweep
from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.ledger import PaymentRules
from gpt2flow.agent.payments.service import PaymentServiceConfig, serve_payments
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns import durable, recovery

# Time after which an agent is taken to be dead; in a shop it is 10 s.
DEAD_SECONDS: Final = 2.0
# Exit code of a process that could not start, as while the database is away.
UNAVAILABLE: Final = 3


class SharedClock:
    """Clock of all processes of a run.

    It goes on from a fixed day, and can be set forward.

    Args:
        path: File that the processes share, which `create` makes.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the file of a clock that begins now."""
        path.write_bytes(struct.pack("dd", time.monotonic(), 0.0))
        return cls(path)

    def __call__(self) -> datetime:
        start, ahead = struct.unpack("dd", self._memory[:])
        return FixedClock.now + timedelta(seconds=time.monotonic() - start + ahead)

    def forward(self, span: timedelta) -> None:
        """Set the clock forward for all processes."""
        start, ahead = struct.unpack("dd", self._memory[:])
        self._memory[:] = struct.pack("dd", start, ahead + span.total_seconds())


@dataclass(frozen=True)
class RoleSetup:
    """Settings of the processes of a run.

    Attributes:
        folder: Folder of the run.
        database: Path or URL of the shop.
        payments_port: Port of the payment service.
        webhook: URL that messages are delivered to.
        scene: Shop of the run.
        server: Address of the model server; empty is the scripted model.
        patience: Seconds for which turns wait for the model server.
        targets: Kills that wait for a process to reach a point.
        pids: Files of the process ids of victims that are not forked.
        endpoint_port: Port of the endpoint that the process is.
    """

    folder: Path
    database: str
    payments_port: int
    webhook: str
    scene: Scene
    server: str = ""
    patience: float = 0.0
    targets: tuple[Target, ...] = ()
    pids: Mapping[Victim, Path] = field(default_factory=dict)
    endpoint_port: int = 0

    @property
    def clock(self) -> SharedClock:
        return SharedClock(clock_file(self.folder))

    @property
    def payments(self) -> str:
        return f"http://127.0.0.1:{self.payments_port}"

    @property
    def address(self) -> str:
        """Address of the model server; the scripted model has none."""
        return self.server or "127.0.0.1:1"

    @property
    def agent_config(self) -> AgentConfig:
        return AgentConfig(
            database=self.database,
            payments=self.payments,
            address=self.address,
            patience=self.patience,
        )

    def points(self, *victims: Victim) -> KillPoints:
        """Return the points of a process that kills these victims."""
        targets = {each.point: each for each in self.targets if each.victim in victims}
        return KillPoints(self.folder, targets, self.pids)


def clock_file(folder: Path) -> Path:
    """Return the file of the clock of a run."""
    return folder / "clock"


def shorten_waits() -> None:
    """Shorten what a shop waits for, so that a run takes seconds.

    A busy machine that stalls loses a turn to another process, which is harmless.
    """
    recovery._HEARTBEAT_SECONDS, recovery._DEAD_SECONDS = 0.3, DEAD_SECONDS
    durable._MIN_RETRY_SECONDS, durable._CASE_RETRY_SECONDS = 0.1, 0.5
    payer._FIRST_RETRY_SECONDS = 0.2
    HttpPayments.longest_attempt = timedelta(seconds=3)  # type: ignore[assignment, method-assign]
    sweep._INTERVAL_SECONDS, sweep._TURN_SECONDS = 0.3, 0.5
    queue.LEASE, queue.SEND_SECONDS = timedelta(seconds=3), 1.5
    dispatcher.SEND_SECONDS = 1.5  # type: ignore[attr-defined]
    backoff._FIRST_SECONDS = 0.2


def open_agent(config: AgentConfig, setup: RoleSetup) -> Agent:
    """Return the agent of a run, with its model, clock and code."""
    scripted = [each for each in CONVERSATIONS if each.scene is not Scene.SERVED]
    model = None if setup.server else ScriptedModel(script_of(scripted))
    return Agent(config, model=model, clock=setup.clock, codes=lambda: CODE)


def run_agent(connection: Connection, setup: RoleSetup) -> None:
    """Answer the messages that arrive on a connection, each in a thread."""
    begin(setup.folder, "agent")
    points = setup.points(Victim.AGENT, Victim.POSTGRESQL, Victim.SERVER)
    install_in_agent(points)
    agent = _start(lambda: open_agent(setup.agent_config, setup))
    lock = threading.Lock()

    def send(message: tuple[Any, ...]) -> None:
        with lock:
            connection.send(message)

    def handle(request: int, session: str, message_id: str, text: str) -> None:
        try:
            report = agent.handle(session, text, message_id)
        except Exception as error:  # noqa: BLE001 - the driver judges it
            is_clear = isinstance(error, AgentError)
            send((request, None, f"{type(error).__name__}: {error}", is_clear))
            return
        points.pass_point(f"{message_kind(message_id)}{ANSWERED}", session)
        send((request, report.model_dump(mode="json"), None, True))

    send(("ready",))
    with ThreadPoolExecutor(32) as threads:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                # The driver is gone.
                os._exit(1)
            if message is None:
                break
            threads.submit(handle, *message)
    agent.close()


def run_dispatcher(connection: Connection, setup: RoleSetup) -> None:
    """Deliver the outbox until the connection says stop."""
    begin(setup.folder, "dispatcher")
    install_in_dispatcher(setup.points(Victim.DISPATCHER))
    database = _start(lambda: Database.open_existing(database_url(setup.database)))
    # Signatures are of this machine's time.
    routes = DeliverySettings(webhook=setup.webhook, webhook_secret=SECRET).routes(utc_now)
    outbox = queue.OutboxQueue(database, routes, setup.clock, backoff.Backoff())

    async def dispatch() -> None:
        running = dispatcher.Dispatcher(outbox, interval=0.1)
        loop = asyncio.get_running_loop()
        when_told(connection, lambda: loop.call_soon_threadsafe(running.stop))
        await running.run()

    connection.send(("ready",))
    with closing(database):
        asyncio.run(dispatch())


def run_payments(connection: Connection, setup: RoleSetup) -> None:
    """Serve payments until the connection says stop."""
    begin(setup.folder, "payments")
    install_in_payments(setup.points(Victim.PAYMENTS))
    when_told(connection, lambda: os.kill(os.getpid(), signal.SIGTERM))
    config = PaymentServiceConfig(
        address=f"127.0.0.1:{setup.payments_port}",
        data=setup.folder / "payments.sqlite",
        rules=PaymentRules(refused_accounts=frozenset(REFUSED)),
    )
    _start(lambda: serve_payments(config, lambda _: connection.send(("ready",))))


def begin(folder: Path, role: str) -> None:
    """Begin a forked process with a log.

    It gets errors, and stacks at SIGUSR1.
    """
    log = os.open(folder / f"{role}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Ctrl-C is for the driver, which then stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shorten_waits()


def _start(open_role: Callable[[], Any]) -> Any:
    """Return what a function opens; exit if it is not possible now."""
    try:
        return open_role()
    except AgentError as error:
        _report(f"{type(error).__name__}: {error}")
        os._exit(UNAVAILABLE)


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def when_told(connection: Connection, stop: Callable[[], object]) -> None:
    """Call a function once the driver says stop.

    Exit once the driver is gone.
    """

    def wait() -> None:
        try:
            connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        stop()

    threading.Thread(target=wait, daemon=True).start()
