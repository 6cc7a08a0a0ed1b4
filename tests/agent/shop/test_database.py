"""Shop database: column types, seed, and PostgreSQL."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from threading import Thread

import pytest
from sqlalchemy import create_mock_engine, func, select, update
from sqlalchemy.exc import StatementError
from tests.support.postgresql import DATABASES, PostgresqlServer
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import CODE, Clock, Shop
from tests.support.turns import snapshot

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
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

ON_BOTH = pytest.mark.parametrize("database", DATABASES, indirect=True)


def counts(database: Database) -> list[int | None]:
    with database.transaction() as db:
        tables = (Product, ProductAlias, Courier)
        return [db.scalar(select(func.count()).select_from(table)) for table in tables]


@ON_BOTH
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


@pytest.mark.parametrize("empty_url", DATABASES, indirect=True)
def test_concurrent_opens_seed_a_new_shop_once(empty_url: str) -> None:
    url, opened = database_url(empty_url), list[Database]()
    threads = [Thread(target=lambda: opened.append(Database.open(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [counts(database)[0] for database in opened] == [24] * 4
    for database in opened:
        database.close()


@pytest.mark.process
def test_the_owner_of_a_postgresql_database_needs_no_other_right(
    postgresql: PostgresqlServer,
) -> None:
    postgresql.execute("CREATE ROLE {} LOGIN", "owner")
    with postgresql.database() as url:
        name = url.partition("@/")[2].partition("?")[0]
        postgresql.execute("ALTER DATABASE {} OWNER TO {}", name, "owner")
        config = AgentConfig(database=postgresql.url(name, role="owner"))
        with Agent(config, model=ScriptedModel({"hello": ["greet"]})) as agent:
            assert agent.handle("s", "hello").actions[0].outcome == "greeted"


@ON_BOTH
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


@ON_BOTH
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


@pytest.mark.process
def test_postgresql_stores_the_same_rows_as_sqlite(
    book: FlowBook, clock: Clock, sqlite_shop: Database, postgresql_shop: Database
) -> None:
    shops = [
        Shop(book, database, clock, Executor(book, database, clock, lambda: CODE))
        for database in (sqlite_shop, postgresql_shop)
    ]
    for shop in shops:
        shop.log_in("s")
        shop.check_out("s", "kettle")
        assert shop.act("s", "confirm_order").raised == ("order_submitted", "SO-1001")
        shop.act("s", "request_refund", reason="late")
        shop.act("s", "schedule_follow_up", time="明天下午3点")
        assert shop.act("s", "cancel_order").report.outcome == "cancelled"
    on_sqlite, on_postgresql = map(snapshot, shops)
    assert [len(on_sqlite[name]) for name in ("orders", "cases")] == [1, 1]
    assert {name: sorted(map(str, rows)) for name, rows in on_sqlite.items()} == {
        name: sorted(map(str, rows)) for name, rows in on_postgresql.items()
    }
