"""Shop under test, with a clock that tests set."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import select

from gpt2flow.agent.flows import FlowBook
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
)
from gpt2flow.agent.turns.execution import Event, Executor, Task
from gpt2flow.agent.turns.state import TurnState, read_turn_state

# Confirmation code of every registration.
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
        self,
        session: str,
        action: str,
        *,
        message: str = "hello",
        confidence: float = 1.0,
        **arguments: Any,
    ) -> Step:
        """Execute one action as a separate message."""
        key = f"t{next(self.keys)}"
        state = self.executor.begin_turn(key, session, message)
        task = Task(
            key=key,
            session=session,
            message=message,
            choice=Choice(action, dict(arguments), confidence),
            language=state.language,
            pending_arguments=state.pending_for(action),
            is_first=True,
            answers=state.answered_slot(action),
        )
        return self.executor.execute(task)

    def event(self, session: str, event: Event, action: str) -> Step:
        """Execute one action for an event."""
        task = Task(f"t{next(self.keys)}", session, event.subject, Choice(action), event=event)
        return self.executor.execute(task)

    def state(self, session: str, message: str = "hello") -> TurnState:
        with self.database.transaction() as db:
            return read_turn_state(db, session, message)

    def facts(self, session: str) -> frozenset[str]:
        return self.state(session).prompt_state.facts

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
