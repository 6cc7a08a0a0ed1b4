"""Setup of a scenario's shop, and the check of its final state."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.scenarios.format import OrderState, Scenario, Value
from gpt2flow.agent.shop import Base, Customer, Order, OrderLine, Product, order_id


def prepare(db: Session, scenario: Scenario, now: datetime) -> None:
    """Add the scenario's customers, orders and stock to an empty shop.

    Raises:
        InputError: The scenario refers to an unknown product or customer.
    """
    for sku, stock in scenario.shop.stock.items():
        _get_product(db, sku).stock = stock
    customers: dict[str, Customer] = {}
    for state in scenario.shop.customers:
        customer = Customer(**state.model_dump(), created_at=now)
        db.add(customer)
        customers[state.contact] = customer
    db.flush()
    for order in scenario.shop.orders:
        if order.contact not in customers:
            raise InputError(f"scenario {scenario.id}: unknown customer {order.contact!r}")
        db.add(_build_order(db, order, customers[order.contact], now))


def check(
    db: Session,
    scenario: Scenario,
    messages: Iterable[str],
    ended: Collection[str] = (),
    known_outcomes: Collection[str] = (),
) -> list[str]:
    """Compare the final state with the expectation.

    Args:
        db: Session on the shop after the last turn.
        scenario: Scenario with the expectation.
        messages: Texts of all messages that were sent.
        ended: Outcomes that occurred, as `flow.action.outcome`.
        known_outcomes: Outcomes of all flows. A fact that names one of them is an outcome.

    Returns:
        Differences, one line each; an empty list if the scenario passed.
    """
    sent, expect = list(messages), scenario.expect
    facts = [fact for fact in expect.facts if fact not in known_outcomes]
    named = [*expect.outcomes, *(fact for fact in expect.facts if fact in known_outcomes)]
    differences = [
        f"no message contains {fact!r}" for fact in facts if not any(fact in m for m in sent)
    ]
    differences += [f"no action ended as {name}" for name in named if name not in ended]
    differences += [
        f"a message contains {text!r}" for text in expect.absent if any(text in m for m in sent)
    ]
    for table, expected in expect.rows.items():
        differences += _compare(table, expected, rows(db, table))
    return differences


def outcomes(book: FlowBook, reports: Iterable[TurnReport]) -> Iterator[str]:
    """Yield the outcome of each action as `flow.action.outcome`."""
    for report in reports:
        events = [action for event in report.events for action in event.actions]
        for action in [*report.actions, *events]:
            if action.outcome is not None:
                yield f"{book.flow_of[action.action].flow}.{action.action}.{action.outcome}"


def rows(db: Session, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table as plain values.

    A row also has `customer` (the contact), `order` and `number` where they apply.

    Raises:
        InputError: The table is unknown.
    """
    return [_describe(db, row) for row in db.scalars(select(check_table(table)))]


def check_table(name: str) -> type[Base]:
    """Return the class of a table.

    Raises:
        InputError: The table is unknown.
    """
    tables: dict[str, type[Base]] = {
        mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers
    }
    if name not in tables:
        raise InputError(f"unknown table {name!r}, expected one of {', '.join(sorted(tables))}")
    return tables[name]


def _get_product(db: Session, sku: str) -> Product:
    product = db.get(Product, sku)
    if product is None:
        raise InputError(f"unknown product {sku!r}")
    return product


def _build_order(db: Session, state: OrderState, customer: Customer, now: datetime) -> Order:
    lines = [
        OrderLine(sku=sku, quantity=quantity, price=_get_product(db, sku).price)
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


def _describe(db: Session, row: Base) -> dict[str, Any]:
    values = {c.key: _to_plain(getattr(row, c.key)) for c in row.__mapper__.column_attrs}
    if values.get("customer_id") is not None:
        values["customer"] = db.get_one(Customer, values["customer_id"]).contact
    if values.get("order_id") is not None:
        values["order"] = db.get_one(Order, values["order_id"]).number
    if isinstance(row, Order):
        values["number"] = row.number
    return values


def _to_plain(value: Any) -> Any:
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
    """Match expected rows to distinct actual rows; return one line per difference."""
    unmatched = list(actual)
    differences = []
    for expected_row in expected:
        match = next((row for row in unmatched if matches(row, expected_row)), None)
        if match is None:
            differences.append(f"table {table}: no row {expected_row}")
        else:
            unmatched.remove(match)
    return differences + [f"table {table}: unexpected row {row}" for row in unmatched]


def matches(row: dict[str, Any], expected: dict[str, Value]) -> bool:
    """Return whether a row has all values that are expected of it."""
    missing = object()
    return all(row.get(name, missing) == value for name, value in expected.items())
