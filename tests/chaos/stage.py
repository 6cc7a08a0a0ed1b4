"""One run: shop, processes, callers and kills."""

import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update
from tests.chaos.caller import BOUND_SECONDS, Caller, Findings
from tests.chaos.conversations import Conversation, Scene
from tests.chaos.facts import Facts, read_facts, stock, unsettled
from tests.chaos.invariants import count_repeated, unexpected_errors, violations, wrong_decisions
from tests.chaos.processes.endpoint import EndpointKeeper
from tests.chaos.processes.keeper import Death, ForkedKeeper, Keeper, Obituaries
from tests.chaos.processes.kill_points import Target, Victim
from tests.chaos.processes.people import People
from tests.chaos.processes.roles import (
    RoleSetup,
    SharedClock,
    clock_file,
    run_agent,
    run_dispatcher,
    run_payments,
)
from tests.chaos.processes.services import ModelServerKeeper, PostgresqlKeeper, ServiceKeeper
from tests.support.postgresql import PostgresqlServer
from tests.support.webhook_receiver import HttpAnswer, Received, WebhookReceiver, webhook_receiver

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.shop import Courier, Database, database_url

# The only courier, so that every run sends its parcels with the same one.
_COURIER = "NW"
# After it, the calls of tomorrow and the refunds of today are due.
_LATER = timedelta(hours=29)
_POLL_SECONDS = 0.1
_PORTS = (20_000, 32_000)
# Pauses between random kills.
_KILL_SECONDS = (0.1, 1.2)


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run.

    Attributes:
        name: Name of the run, its folder and its database.
        scene: Shop of the run.
        is_postgresql: Whether the shop is on PostgreSQL.
        agents: Number of agent processes.
        endpoints: Number of those that take messages over HTTP.
        conversations: Conversations to play at the same time.
        targets: Kills at points.
        random_kills: Victims of kills at random times, in order.
        patience: Seconds for which turns wait for the model server.
        server_down: Seconds until a killed model server is started again.
        seed: Seed of all choices.
    """

    name: str
    scene: Scene
    is_postgresql: bool
    agents: int
    conversations: tuple[Conversation, ...]
    targets: tuple[Target, ...] = ()
    random_kills: tuple[Victim, ...] = ()
    endpoints: int = 0
    patience: float = 60.0
    server_down: float = 0.2
    seed: int = 0


@dataclass
class RunResult:
    """Result of a run.

    Attributes:
        plan: Plan of the run.
        facts: Rows by conversation and table.
        deaths: Kills that happened.
        restarts: Number of processes that were started again.
        passed: Points that were passed, with the session of each.
        findings: What the callers found out.
        defects: What must not happen.
        repeated: Number of deliveries that repeated a key.
        seconds: Duration.
        settle_seconds: Time from the last message until nothing was left to do.
    """

    plan: RunPlan
    facts: Facts = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)
    restarts: int = 0
    passed: set[tuple[str, str]] = field(default_factory=set)
    findings: Findings = field(default_factory=Findings)
    defects: list[str] = field(default_factory=list)
    repeated: int = 0
    seconds: float = 0.0
    settle_seconds: float = 0.0


class Stage:
    """Shop of one run with its processes.

    Args:
        plan: Plan of the run.
        folder: Empty folder for the files of the run.
        url: Path or URL of a newly made shop.
        server: PostgreSQL server of the shop; None is SQLite.
        receiver: Receiver of the messages.
    """

    def __init__(
        self,
        plan: RunPlan,
        folder: Path,
        url: str,
        server: PostgresqlServer | None,
        receiver: WebhookReceiver,
    ) -> None:
        (folder / "claims").mkdir(parents=True)
        self._clock = SharedClock.create(clock_file(folder))
        self._plan = plan
        self._folder = folder
        self._receiver = receiver
        self._rng = random.Random(f"{plan.seed}/{plan.name}")
        self._database = Database.open(database_url(url))
        self._obituaries = Obituaries(folder)
        self._model_port = free_port() if plan.scene is Scene.SERVED else 0
        self._services = self._new_services(server)
        self._setup = self._new_setup(url)
        self._agents = self._new_agents()
        self._people = People(self._obituaries, self._setup)
        self._dispatcher = self._fork(Victim.DISPATCHER, run_dispatcher)
        self._payments = self._fork(Victim.PAYMENTS, run_payments)

    def _new_services(self, server: PostgresqlServer | None) -> list[ServiceKeeper]:
        services: list[ServiceKeeper] = []
        if server is not None:
            services.append(PostgresqlKeeper(self._obituaries, self._rng, server))
        if self._model_port:
            down_seconds = self._plan.server_down
            services.append(
                ModelServerKeeper(self._obituaries, self._rng, self._model_port, down_seconds)
            )
        return services

    def _new_setup(self, url: str) -> RoleSetup:
        return RoleSetup(
            folder=self._folder,
            database=url,
            payments_port=free_port(),
            webhook=self._receiver.url,
            scene=self._plan.scene,
            server=f"127.0.0.1:{self._model_port}" if self._model_port else "",
            patience=self._plan.patience,
            targets=self._plan.targets,
            pids={each.victim: each.pid_file for each in self._services},
        )

    def _new_agents(self) -> list[ForkedKeeper]:
        plan, endpoints = self._plan, list[ForkedKeeper]()
        for _ in range(plan.endpoints):
            port = free_port()
            endpoints.append(EndpointKeeper(self._obituaries, self._rng, self._setup, port))
        others = plan.agents - plan.endpoints
        return [*endpoints, *(self._fork(Victim.AGENT, run_agent) for _ in range(others))]

    def _fork(self, victim: Victim, run: Any) -> ForkedKeeper:
        return ForkedKeeper(victim, self._obituaries, self._rng, run, self._setup)

    def run(self) -> RunResult:
        """Play the run to its end, and check what is left."""
        result, start = RunResult(self._plan), time.monotonic()
        with closing(self._database):
            self._open_shop()
            with self._database.transaction() as db:
                before = stock(db)
            with self._running():
                self._play(result.findings)
                ended = time.monotonic()
                self._settle(result)
                self._clock.forward(_LATER)
                # Agents notice a clock that jumps when they start.
                for agent in self._agents:
                    agent.kill()
                self._settle(result)
                result.settle_seconds = time.monotonic() - ended
            result.defects += self._obituaries.defects + result.findings.defects
            result.defects += violations(
                self._database, self._folder / "payments.sqlite", self._receiver, before
            )
            result.defects += wrong_decisions(self._database, result.findings.decisions)
            result.defects += unexpected_errors(self._folder)
            result.facts = read_facts(self._database, self._plan.conversations)
        result.deaths, result.restarts = self._obituaries.deaths, self._obituaries.restarts
        result.repeated = count_repeated(self._receiver)
        result.passed = self._read_passed()
        result.seconds = time.monotonic() - start
        return result

    def _open_shop(self) -> None:
        """Leave one courier, or none, to the shop."""
        is_active = Courier.code == _COURIER
        with self._database.transaction() as db:
            db.execute(update(Courier).values(active=False))
            if self._plan.scene is not Scene.NO_COURIER:
                db.execute(update(Courier).where(is_active).values(active=True))

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run all processes until the block ends."""
        forked: list[Keeper] = [self._payments, self._dispatcher, *self._agents]
        for keeper in (*self._services, *forked):
            keeper.start()
        for service in self._services:
            service.wait_until_ready()
        try:
            yield
        finally:
            # The database goes on until the others have ended.
            for keeper in (*reversed(forked), *reversed(self._services)):
                keeper.stop()

    def _play(self, findings: Findings) -> None:
        """Play all conversations, and kill meanwhile."""
        desk = Desk(load_flows(), self._database, self._clock)
        callers = [
            Caller(
                conversation,
                self._agents,
                database=self._database,
                desk=desk,
                people=self._people,
                findings=findings,
                rng=random.Random(self._rng.random()),
            )
            for conversation in self._plan.conversations
        ]
        over = threading.Event()
        threads = [threading.Thread(target=caller.play, daemon=True) for caller in callers]
        killer = threading.Thread(target=self._kill_at_random, args=(over,), daemon=True)
        for thread in (*threads, killer):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        killer.join()

    def _kill_at_random(self, over: threading.Event) -> None:
        rng = random.Random(self._rng.random())
        keepers: list[Keeper] = [*self._agents, self._payments, self._dispatcher]
        keepers += self._services
        for victim in self._plan.random_kills:
            if over.wait(rng.uniform(*_KILL_SECONDS)):
                return
            candidates = [keeper for keeper in keepers if keeper.victim is victim]
            if candidates:
                rng.choice(candidates).kill()

    def _settle(self, result: RunResult) -> None:
        """Wait until nothing is left to do.

        Work that does not end is a defect.
        """
        deadline, left = time.monotonic() + BOUND_SECONDS, ["not looked yet"]
        while time.monotonic() < deadline:
            try:
                left = unsettled(self._database, self._clock())
            except DatabaseError as error:
                left = [str(error)]
            if not left:
                return
            time.sleep(_POLL_SECONDS)
        result.defects += [f"not settled: {each}" for each in left]
        for keeper in (*self._agents, self._dispatcher, self._payments):
            keeper.dump()

    def _read_passed(self) -> set[tuple[str, str]]:
        path = self._folder / "passed"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {(session, point) for session, _, point in (line.partition("\t") for line in lines)}


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on.

    It is none that the system gives to connections, which could take it while a server is down.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Shops:
    """Newly made shops on both databases.

    Args:
        folder: Folder of the runs.
        server: PostgreSQL server; None is SQLite alone.
    """

    def __init__(self, folder: Path, server: PostgresqlServer | None) -> None:
        self.folder = folder
        self._server = server
        self._template = folder / "template.sqlite"
        Database.open(database_url(str(self._template))).close()
        if server is not None:
            # A server that is killed must not lose what was committed, nor write a page in part.
            server.execute("ALTER SYSTEM SET synchronous_commit = on")
            server.execute("ALTER SYSTEM SET full_page_writes = on")
            server.stop()
            server.start()

    def play(self, plan: RunPlan) -> RunResult:
        """Play a run in a new shop."""
        folder = self.folder / plan.name
        folder.mkdir()
        with ExitStack() as resources:
            receiver = resources.enter_context(webhook_receiver())
            rng = random.Random(plan.seed)

            def answer(_: Received) -> HttpAnswer:
                time.sleep(rng.uniform(0.0, 0.05))
                return HttpAnswer()

            receiver.answer = answer
            server = self._server if plan.is_postgresql else None
            url = self._new_url(plan, resources)
            return Stage(plan, folder, url, server, receiver).run()

    def _new_url(self, plan: RunPlan, resources: ExitStack) -> str:
        if plan.is_postgresql:
            assert self._server is not None
            return resources.enter_context(self._server.database(self._server.shop))
        path = self.folder / plan.name / "shop.sqlite"
        shutil.copy(self._template, path)
        return str(path)
