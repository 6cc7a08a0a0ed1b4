"""Benchmark of the agent: conversations at once, and parts of a turn.

    python benchmarks/agent_load.py [--database URL] [--conversations N] [--concurrency N] [--json]

Each conversation registers a customer, fills a cart, submits the order, asks for the parcel and a
refund, in English and Chinese in turns; the model is served by a process of its own. A turn's time
has three parts: calls of the model, steps in the shop database, and the rest, which is DBOS and
waiting for locks.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from threading import local
from typing import Any

from sqlalchemy import update

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import Database, Product, database_url
from gpt2flow.agent.turns.durable import Workflows
from gpt2flow.cli.processes import server

MODEL = Path("models/shop")
CODE = "123456"
ENGLISH = (
    "hi, i'd like to create an account, i'm Ann Miller, {contact}",
    CODE,
    "put 2 umbrellas in my cart",
    "check out please, ship it to 12 Elm Street, Leeds",
    "yes, go ahead",
    "where is my order?",
    "what is your return policy?",
)
CHINESE = (
    "你好，帮我注册一个账号，我叫小明，邮箱{contact}",
    CODE,
    "我要买两个保温杯",
    "结账，寄到杭州市西湖区文三路5号",
    "确认，提交吧",
    "我的订单到哪了？",
    "你们怎么退货？",
)


@dataclass(frozen=True)
class Figures:
    """Figures of one run; times are of turns, in milliseconds.

    Attributes:
        database: `sqlite` or `postgresql`.
        conversations: Number of conversations.
        concurrency: Conversations at a time.
        turns: Number of turns.
        orders: Number of orders that were submitted.
        turns_a_minute: Turns a minute.
        p50: Median of a turn.
        p95: 95th percentile of a turn.
        model: Mean time in calls of the model.
        shop: Mean time in steps of the shop database.
        rest: Mean time in DBOS and waiting.
    """

    database: str
    conversations: int
    concurrency: int
    turns: int
    orders: int
    turns_a_minute: float
    p50: float
    p95: float
    model: float
    shop: float
    rest: float


class StepTimer:
    """Timer of the steps that the turns of a thread take."""

    def __init__(self) -> None:
        self._spent = local()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time all steps until the block ends."""
        run_step = Workflows.run_step

        def timed(workflows: Workflows, function: Callable[..., Any], *args: Any) -> Any:
            def call(*given: Any) -> Any:
                start = time.perf_counter()
                try:
                    return function(*given)
                finally:
                    self._spent.seconds = self.seconds() + time.perf_counter() - start

            call.__name__ = function.__name__
            return run_step(workflows, call, *args)

        Workflows.run_step = timed  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            Workflows.run_step = run_step  # type: ignore[method-assign]

    def seconds(self) -> float:
        """Return the time in steps of this thread so far."""
        return float(getattr(self._spent, "seconds", 0.0))


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database", default="", help="URL of an empty PostgreSQL database")
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        database = options.database or str(directory / "shop.sqlite")
        with server(MODEL, directory) as address:
            config = AgentConfig(address=address, database=database)
            figures = measure(config, options.conversations, options.concurrency)
    if options.json:
        print(json.dumps(asdict(figures)))
        return
    for field, value in asdict(figures).items():
        shown = f"{value:.1f}" if isinstance(value, float) else value
        print(f"{field.replace('_', ' '):16} {shown}")


def fill_stock(address: str) -> None:
    """Stock more of every product than is sold here."""
    database = Database.open(database_url(address))
    with database.transaction() as db:
        db.execute(update(Product).values(stock=10**6))
    database.close()


def measure(config: AgentConfig, conversations: int, concurrency: int) -> Figures:
    """Play conversations at once, and return the figures."""
    fill_stock(config.database)
    timer = StepTimer()
    with timer.attached(), Agent(config, codes=lambda: CODE) as agent:

        def converse(number: int) -> list[tuple[TurnReport, float]]:
            contact = f"c{number}.{os.getpid()}@example.com"
            turns = []
            for text in CHINESE if number % 2 else ENGLISH:
                before = timer.seconds()
                report = agent.handle(f"s{number}", text.format(contact=contact))
                turns.append((report, timer.seconds() - before))
            return turns

        start = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as threads:
            played = [turn for each in threads.map(converse, range(conversations)) for turn in each]
        seconds = time.perf_counter() - start
    totals = [report.milliseconds for report, _ in played]
    model = [sum(call.milliseconds for call in report.calls) for report, _ in played]
    steps = [spent * 1000 for _, spent in played]
    count = len(played)
    submitted = sum(a.outcome == "submitted" for report, _ in played for a in report.actions)
    return Figures(
        database="postgresql" if "://" in config.database else "sqlite",
        conversations=conversations,
        concurrency=concurrency,
        turns=count,
        orders=submitted,
        turns_a_minute=60 * count / seconds,
        p50=median(totals),
        p95=quantiles(totals, n=20)[-1],
        model=sum(model) / count,
        shop=(sum(steps) - sum(model)) / count,
        rest=(sum(totals) - sum(steps)) / count,
    )


if __name__ == "__main__":
    main()
