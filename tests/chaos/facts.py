"""Rows that a run leaves behind, in a comparable form."""

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any

from sqlalchemy import Table, select, text
from sqlalchemy.orm import Session
from tests.chaos.conversations import Conversation

from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.shop import (
    AgentProcess,
    Base,
    Case,
    Customer,
    Database,
    Delivery,
    ModelCall,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    PaymentStatus,
    Product,
)
from gpt2flow.agent.shop.database import SchemaRevision

# Rows by table, by conversation.
Facts = dict[str, dict[str, list[str]]]

# Numbers that depend on the order in which conversations get them.
_NUMBERS = re.compile(
    r"(?<![A-Za-z])(?:SO-\d+|C-\d+|P-\d+|NW\d{8})|(?<=case/)\d+/\d+|(?<=\"seen\": \")[0-9a-f]{12}"
)
# Columns of the same kind, and those of attempts, of which a disturbed run has more.
_OTHER_COLUMNS = {
    *("id", "session_id", "customer_id", "order_id", "case_id", "focus_order_id", "step"),
    *("attempts", "next_attempt_at", "claimed_until", "salt", "digest", "error"),
}
# Tables whose rows belong to no customer.
_OTHER_TABLES = {"products", "product_aliases", "couriers", SchemaRevision.__tablename__}
_OTHER_TABLES |= {ModelCall.__tablename__, AgentProcess.__tablename__}


def normal(value: str) -> str:
    """Return a text without numbers of orders, cases, parcels and payments."""
    return _NUMBERS.sub("#", value)


def read_facts(database: Database, conversations: Iterable[Conversation]) -> Facts:
    """Return the rows that each conversation has left behind."""
    with database.transaction() as db:
        owners = _Owners(db, conversations)
        facts: Facts = {name: {} for name in owners.names}
        for table in Base.metadata.sorted_tables:
            if table.name in _OTHER_TABLES:
                continue
            for row in db.execute(select(table)).mappings():
                tables = facts[owners.of(table, row)]
                tables.setdefault(table.name, []).append(_line(row))
    for tables in facts.values():
        for lines in tables.values():
            lines.sort()
    return facts


def differences(expected: Facts, found: Facts) -> list[str]:
    """Return the differences from an uninterrupted run, a line each."""
    lines = []
    for name, tables in found.items():
        for table in sorted(expected[name].keys() | tables.keys()):
            then, now = expected[name].get(table, []), tables.get(table, [])
            lines += [f"{name}: {table}: missing: {row}" for row in _without(then, now)]
            lines += [f"{name}: {table}: unexpected: {row}" for row in _without(now, then)]
    return lines


def _without(rows: list[str], others: list[str]) -> list[str]:
    """Return the rows that others do not have, or have less often."""
    left = list(others)
    return [row for row in rows if row not in left or left.remove(row)]  # type: ignore[func-returns-value]


class _Owners:
    """Conversations that rows belong to."""

    def __init__(self, db: Session, conversations: Iterable[Conversation]) -> None:
        self.names = {each.name for each in conversations}
        by_contact = {each.contact: each.name for each in conversations}
        self._customers = {
            each.id: by_contact[each.contact] for each in db.scalars(select(Customer))
        }
        self._orders = {
            each.id: self._customers[each.customer_id] for each in db.scalars(select(Order))
        }
        self._cases = {each.id: self._of_case(each) for each in db.scalars(select(Case))}

    def _of_case(self, case: Case) -> str:
        if case.session_id is not None:
            return case.session_id
        assert case.customer_id is not None, f"{case.number} belongs to nobody"
        return self._customers[case.customer_id]

    def of(self, table: Table, row: Mapping[Any, Any]) -> str:
        """Return the conversation of a row."""
        if table.name in {"sessions", "customers", "orders", "cases"}:
            names = {
                "sessions": {row["id"]: row["id"]},
                "customers": self._customers,
                "orders": self._orders,
                "cases": self._cases,
            }
            return str(names[table.name][row["id"]])
        if row.get("session_id") is not None:
            return str(row["session_id"])
        for column, owners in (
            ("order_id", self._orders),
            ("case_id", self._cases),
            ("customer_id", self._customers),
        ):
            if row.get(column) is not None:
                return owners[row[column]]
        raise AssertionError(f"{table.name}: nobody's row {dict(row)}")


def _line(row: Mapping[Any, Any]) -> str:
    """Return a row without what two runs need not have in common."""
    kept = {
        str(name): _plain(str(name), value)
        for name, value in row.items()
        if str(name) not in _OTHER_COLUMNS
    }
    return normal(json.dumps(kept, ensure_ascii=False, sort_keys=True, default=str))


def _plain(name: str, value: Any) -> Any:
    # Of a time, only whether there is one.
    return value is not None if isinstance(value, datetime) or name.endswith("_at") else value


def unsettled(database: Database, now: datetime) -> list[str]:
    """Return what is not finished: payments, workflows, messages, orders and timers.

    A workflow that waits for the time of a case is none.

    Raises:
        DatabaseError: The database failed.
    """
    with database.translate_errors(), database.transaction() as db:
        due = Payment.status == PaymentStatus.REQUESTED, Payment.next_attempt_at <= now
        claimed = Payment.status == PaymentStatus.REQUESTED, Payment.attempts > 0
        pending = OutboxMessage.delivery.in_([Delivery.PENDING, Delivery.DEAD])
        left = [f"payment {each.key}" for each in db.scalars(select(Payment).where(*due))]
        left += [f"payment {each.key}" for each in db.scalars(select(Payment).where(*claimed))]
        left += [f"message {each.key}" for each in db.scalars(select(OutboxMessage).where(pending))]
        submitted = Order.status == OrderStatus.SUBMITTED
        left += [f"order {each.number}" for each in db.scalars(select(Order).where(submitted))]
        late = select(Case).where(Case.attention_at <= now)
        left += [f"timer of {each.number}" for each in db.scalars(late)]
    return left + [
        f"workflow {workflow_id} is {status}"
        for workflow_id, name, status in workflows(database)
        if status in {"PENDING", "ENQUEUED"} or (status == "DELAYED" and name != "advance_case")
    ]


def workflows(database: Database) -> list[tuple[str, str, str]]:
    """Return id, name and status of the workflows of DBOS.

    Raises:
        DatabaseError: The database failed.
    """
    query = "SELECT workflow_uuid, name, status FROM {}workflow_status"
    if database.url.get_backend_name() == "sqlite":
        path = f"{database.url.database}-dbos"
        with closing(sqlite3.connect(path, timeout=10)) as records:
            try:
                return [tuple(row) for row in records.execute(query.format(""))]
            except sqlite3.Error as error:
                raise DatabaseError(f"{path}: {error}") from error
    with database.translate_errors(), database.transaction() as db:
        return [tuple(row) for row in db.execute(text(query.format("dbos.")))]


def stock(db: Session) -> dict[str, int]:
    """Return the stock of each product."""
    return {each.sku: each.stock for each in db.scalars(select(Product))}
