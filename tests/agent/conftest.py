"""Fixtures: a shop database, a manual clock, and a scripted model."""

import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar, cast

import pytest
from sqlalchemy import select

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import (
    Base,
    Customer,
    Database,
    Order,
    OrderLine,
    OrderStatus,
    Product,
    Shipment,
    database_url,
)
from gpt2flow.agent.turns.execution import Event, Executor, Task
from gpt2flow.agent.turns.model import ModelAnswer
from gpt2flow.agent.turns.state import read_turn_state

CODE = "123456"
_Row = TypeVar("_Row", bound=Base)


@dataclass
class Clock:
    """Clock that starts on a Wednesday morning and moves only by `forward`."""

    now: datetime = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Shop:
    """Shop under test; executes single actions as turns would."""

    book: FlowBook
    database: Database
    clock: Clock
    executor: Executor
    keys: Iterator[int] = field(default_factory=itertools.count)

    def act(
        self, session: str, action: str, *, message: str = "hello", **arguments: str | int
    ) -> Step:
        """Execute one action as a separate message."""
        state = self.executor.turn_state(session, message)
        task = Task(
            key=f"t{next(self.keys)}",
            session=session,
            message=message,
            choice=Choice(action, dict(arguments)),
            language=state.language,
            pending_arguments=state.pending_for(action),
            is_first=True,
        )
        return self.executor.execute(task)

    def event(self, session: str, event: Event, action: str) -> Step:
        """Execute one action for an event."""
        task = Task(f"t{next(self.keys)}", session, event.subject, Choice(action), event=event)
        return self.executor.execute(task)

    def facts(self, session: str) -> frozenset[str]:
        with self.database.transaction() as db:
            return read_turn_state(db, session, "hello").prompt_state.facts

    def rows(self, table: type[_Row]) -> list[_Row]:
        with self.database.transaction() as db:
            return list(db.scalars(select(table)).unique())

    def log_in(self, session: str, contact: str = "ann@example.com", name: str = "Ann") -> None:
        """Register a contact, or log in a registered one."""
        self.act(session, "register", name=name, contact=contact)
        assert self.act(session, "verify", code=CODE).report.outcome == "verified"

    def check_out(self, session: str, *products: str, address: str = "5 Oak Rd") -> None:
        for product in products:
            self.act(session, "add_to_cart", product=product)
        assert self.act(session, "check_out", address=address).result == "ok"

    def order(
        self,
        contact: str = "ann@example.com",
        *,
        status: OrderStatus = OrderStatus.SUBMITTED,
        delivered_days_ago: float | None = None,
        sku: str = "umbrella",
        quantity: int = 1,
        collected: bool = False,
    ) -> str:
        """Add an order to the shop and return its number."""
        with self.database.transaction() as db:
            customer = db.scalars(select(Customer).where(Customer.contact == contact)).one()
            product = db.get_one(Product, sku)
            delivered = delivered_days_ago is not None
            ago = timedelta(days=delivered_days_ago or 0)
            order = Order(
                customer_id=customer.id,
                status=OrderStatus.DELIVERED if delivered else status,
                address="1 High St",
                total=product.price * quantity,
                created_at=self.clock.now - ago - timedelta(days=2),
                delivered_at=self.clock.now - ago if delivered else None,
                lines=[OrderLine(sku=sku, quantity=quantity, price=product.price)],
            )
            db.add(order)
            db.flush()
            if order.status is not OrderStatus.SUBMITTED:
                db.add(
                    Shipment(
                        order_id=order.id,
                        courier_code="NW",
                        tracking=f"NW{order.id}",
                        collected_at=self.clock.now + timedelta(hours=-1 if collected else 5),
                        expected_on=self.clock.now.date(),
                    )
                )
            return order.number


class ScriptedModel:
    """Model that answers messages and events from a script."""

    def __init__(self, script: dict[str, Sequence[Choice | str]], seconds: float = 0.0) -> None:
        self.script = script
        self.seconds = seconds
        self.prompts: list[str] = []

    def choose(self, prompt: str, grammar: str) -> ModelAnswer:
        self.prompts.append(prompt)
        time.sleep(self.seconds)
        kind, _, rest = prompt.partition("<|user|>" if "<|user|>" in prompt else "<|event|>")
        message, _, done = rest.partition("<|act|>")
        if "<|event|>" in prompt:
            message = message.split()[0]
        position = done.count("<|result|>")
        actions = self.script[message]
        choice = actions[position] if position < len(actions) else "done"
        choice = Choice(choice) if isinstance(choice, str) else choice
        del kind, grammar
        return ModelAnswer(choice.text, 1.0, 20, 8, "scripted")


@pytest.fixture(scope="session")
def book() -> FlowBook:
    return load_flows()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def new_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database file of a newly opened shop; tests work on copies."""
    path = tmp_path_factory.mktemp("shop") / "new.sqlite"
    Database.open(database_url(str(path))).close()
    return path


@pytest.fixture(scope="session")
def shared_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Database engine shared by all tests, because creating one is slow."""
    path = tmp_path_factory.mktemp("shared") / "shop.sqlite"
    database = Database.open(database_url(str(path)))
    yield database
    database.close()


@pytest.fixture
def database(shared_database: Database, new_shop: Path) -> Database:
    """Newly opened shop, reset for each test."""
    connection = shared_database.engine.raw_connection()
    with closing(sqlite3.connect(new_shop)) as source:
        source.backup(cast("sqlite3.Connection", connection.driver_connection))
    connection.close()
    return shared_database


@pytest.fixture
def shop(book: FlowBook, database: Database, clock: Clock) -> Shop:
    return Shop(book, database, clock, Executor(book, database, clock, lambda: CODE))


@pytest.fixture(scope="session")
def scripted_model() -> type[ScriptedModel]:
    return ScriptedModel
