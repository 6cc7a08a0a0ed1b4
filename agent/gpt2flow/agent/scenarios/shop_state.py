"""Puts a scenario's shop into a database, and compares what became of it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.scenarios.format import OrderState, Scenario, Value
from gpt2flow.agent.shop import Base, Customer, Order, OrderLine, Product, order_id


def prepare(db: Session, scenario: Scenario, now: datetime) -> None:
    """Add the scenario's customers, orders and stock to an empty shop.

    Raises:
        InputError: the scenario names a product or a customer that is not there.
    """
    for sku, stock in scenario.shop.stock.items():
        _product(db, sku).stock = stock
    customers: dict[str, Customer] = {}
    for state in scenario.shop.customers:
        customer = Customer(**state.model_dump(), created_at=now)
        db.add(customer)
        customers[state.contact] = customer
    db.flush()
    for order in scenario.shop.orders:
        if order.contact not in customers:
            raise InputError(f"scenario {scenario.id}: no customer {order.contact!r}")
        db.add(_order(db, order, customers[order.contact], now))


def check(db: Session, scenario: Scenario, messages: Iterable[str]) -> list[str]:
    """Return what differs from the expectation, a line each; none: it passed.

    Args:
        db: the shop after the last turn.
        scenario: says what is expected.
        messages: the texts of all that was sent.
    """
    sent = list(messages)
    differences = [
        f"no message says {fact!r}"
        for fact in scenario.expect.facts
        if not any(fact in message for message in sent)
    ]
    for table, expected in scenario.expect.rows.items():
        differences += _compare(table, expected, rows(db, table))
    return differences


def rows(db: Session, table: str) -> list[dict[str, Any]]:
    """All rows of a table in plain values, with references given in words as well.

    Raises:
        InputError: there is no such table.
    """
    kinds = {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}
    if table not in kinds:
        raise InputError(f"there is no table {table!r}, only {', '.join(sorted(kinds))}")
    return [_described(db, row) for row in db.scalars(select(kinds[table]))]


def _product(db: Session, sku: str) -> Product:
    product = db.get(Product, sku)
    if product is None:
        raise InputError(f"there is no product {sku!r}")
    return product


def _order(db: Session, state: OrderState, customer: Customer, now: datetime) -> Order:
    lines = [
        OrderLine(sku=sku, quantity=quantity, price=_product(db, sku).price)
        for sku, quantity in state.lines.items()
    ]
    delivered = state.delivered_days_ago
    return Order(
        id=order_id(state.number),
        customer_id=customer.id,
        status=state.status,
        address=state.address,
        total=sum((line.price * line.quantity for line in lines), Decimal(0)),
        created_at=now - timedelta(days=max(state.placed_days_ago, delivered or 0)),
        delivered_at=None if delivered is None else now - timedelta(days=delivered),
        lines=lines,
    )


def _described(db: Session, row: Base) -> dict[str, Any]:
    values = {c.key: _plain(getattr(row, c.key)) for c in row.__mapper__.column_attrs}
    if values.get("customer_id") is not None:
        values["customer"] = db.get_one(Customer, values["customer_id"]).contact
    if values.get("order_id") is not None:
        values["order"] = db.get_one(Order, values["order_id"]).number
    if isinstance(row, Order):
        values["number"] = row.number
    return values


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case Decimal() | datetime():
            return str(value)
        case _:
            return value


def _compare(
    table: str, expected: list[dict[str, Value]], actual: list[dict[str, Any]]
) -> list[str]:
    left = list(actual)
    differences = []
    for wanted in expected:
        match = next((row for row in left if _is_like(row, wanted)), None)
        if match is None:
            differences.append(f"table {table}: no row {wanted}")
        else:
            left.remove(match)
    return differences + [f"table {table}: unexpected row {row}" for row in left]


def _is_like(row: dict[str, Any], wanted: dict[str, Value]) -> bool:
    missing = object()
    return all(row.get(name, missing) == value for name, value in wanted.items())
