"""Shop database: column types, seed, and PostgreSQL."""

import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import create_mock_engine, func, select, update
from sqlalchemy.exc import StatementError
from tests.support.shop import Clock, Shop

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import (
    Base,
    Case,
    CaseKind,
    CaseStatus,
    Courier,
    Database,
    Order,
    OrderStatus,
    Product,
    ProductAlias,
    database_url,
    order_id,
)
from gpt2flow.agent.shop.catalogue import load_catalogue, seed
from gpt2flow.agent.turns.execution import Executor

POSTGRES = "GPT2FLOW_TEST_POSTGRES"


def counts(database: Database) -> list[int | None]:
    with database.transaction() as db:
        tables = (Product, ProductAlias, Courier)
        return [db.scalar(select(func.count()).select_from(table)) for table in tables]


def test_seed_is_idempotent_and_keeps_changes(database: Database) -> None:
    before = counts(database)
    assert before[0] == 24
    with database.transaction() as db:
        db.execute(update(Product).where(Product.sku == "umbrella").values(stock=7))
    with database.transaction() as db:
        seed(db, load_catalogue())
    assert counts(database) == before
    with database.transaction() as db:
        assert db.get_one(Product, "umbrella").stock == 7


def test_concurrent_opens_seed_a_new_shop_once(tmp_path: Path) -> None:
    url, opened = database_url(str(tmp_path / "shop.sqlite")), list[Database]()
    threads = [Thread(target=lambda: opened.append(Database.open(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [counts(database)[0] for database in opened] == [24] * 4
    for database in opened:
        database.close()


def test_money_is_exact_and_instants_are_utc(database: Database) -> None:
    east = timezone(timedelta(hours=8))
    case = Case(
        kind=CaseKind.REFUND,
        status=CaseStatus.OPEN,
        amount=Decimal("19.99"),
        created_at=datetime(2026, 3, 4, 18, 30, tzinfo=east),
    )
    with database.transaction() as db:
        db.add(case)
    with database.transaction() as db:
        (stored,) = db.scalars(select(Case))
        assert str(stored.amount) == "19.99"
        assert stored.created_at == datetime(2026, 3, 4, 10, 30, tzinfo=UTC)
        assert stored.created_at.tzinfo is UTC
        assert stored.due_at is None


@pytest.mark.parametrize(
    "values",
    [{"amount": Decimal("0.001")}, {"due_at": datetime(2026, 3, 4)}],  # noqa: DTZ001
)
def test_fractions_of_cents_and_naive_times_are_rejected(
    database: Database, values: dict[str, Decimal | datetime]
) -> None:
    case = Case(kind=CaseKind.REFUND, status=CaseStatus.OPEN, created_at=datetime.now(UTC))
    for name, value in values.items():
        setattr(case, name, value)
    with pytest.raises(StatementError), database.transaction() as db:
        db.add(case)


def test_stock_cannot_fall_below_zero(database: Database) -> None:
    with (
        pytest.raises(Exception, match="stock_not_negative"),
        database.transaction() as db,
    ):
        db.execute(update(Product).values(stock=-1))


def test_order_numbers_and_ids_match() -> None:
    order = Order(id=42, status=OrderStatus.SUBMITTED)
    assert order.number == "SO-1042"
    assert order_id("SO-1042") == 42


def test_schema_can_be_made_on_postgresql() -> None:
    statements: list[str] = []
    engine = create_mock_engine(
        "postgresql+psycopg://", lambda sql, *_: statements.append(str(sql))
    )
    Base.metadata.create_all(engine, checkfirst=False)
    assert len(statements) >= len(Base.metadata.tables)


@pytest.mark.skipif(POSTGRES not in os.environ, reason=f"{POSTGRES} names no empty database")
def test_postgresql_stores_the_same_rows_as_sqlite(
    book: FlowBook, clock: Clock, shop: Shop
) -> None:
    """The environment variable names an empty database that the test fills."""
    database = Database.open(database_url(os.environ[POSTGRES]))
    on_postgres = type(shop)(
        book, database, clock, Executor(book, database, clock, lambda: "123456")
    )
    for each in (shop, on_postgres):
        each.log_in("s")
        each.check_out("s", "kettle")
        assert each.act("s", "confirm_order").raised == ("order_submitted", "SO-1001")
        each.act("s", "request_refund", reason="late")
        each.act("s", "schedule_follow_up", time="明天下午3点")
        assert each.act("s", "cancel_order").report.outcome == "cancelled"
    for table in (Case, Order, Product):
        expected, actual = shop.rows(table), on_postgres.rows(table)
        columns = [column.key for column in table.__mapper__.column_attrs]
        assert sorted(str([getattr(row, c) for c in columns]) for row in expected) == sorted(
            str([getattr(row, c) for c in columns]) for row in actual
        )
    database.close()
