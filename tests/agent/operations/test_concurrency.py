"""Actions of several sessions at once, on both databases."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Thread

import pytest
from sqlalchemy import select, text, update
from tests.support.shop import CODE, Shop
from tests.support.waiting import eventually

from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import Case, Customer, Database, Order, Product

pytestmark = pytest.mark.process

_WAITING = text(
    "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE NOT granted AND datname = current_database()"
)


def at_once(sessions: Sequence[str], act: Callable[[str], Step]) -> list[str]:
    """Execute an action in several sessions at once; return the sorted outcomes."""
    barrier = Barrier(len(sessions))

    def run(session: str) -> str:
        barrier.wait()
        return str(act(session).report.outcome)

    with ThreadPoolExecutor(len(sessions)) as threads:
        return sorted(threads.map(run, sessions))


@contextmanager
def overlapping(database: Database, table: str, writers: int) -> Iterator[None]:
    """Let all threads read a table before one writes it, on PostgreSQL.

    SQLite has one writer at a time, so that nothing overlaps there.

    Args:
        database: Database of the shop.
        table: Table that the block's threads write.
        writers: Number of these threads.
    """
    if database.engine.dialect.name == "sqlite":
        yield
        return

    def are_waiting() -> bool:
        with database.engine.connect() as connection:
            return bool(connection.scalar(_WAITING) == writers)

    def release() -> None:
        eventually(are_waiting)
        holder.rollback()

    with database.engine.connect() as holder:
        # Readers go on; those that write wait for the end of this transaction.
        holder.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
        releaser = Thread(target=release)
        releaser.start()
        yield
        releaser.join()


def test_orders_of_the_last_items_do_not_oversell_or_deadlock(shop: Shop) -> None:
    """Half of the customers fill their carts in the other order."""
    products = ["board game", "electric kettle"]
    with shop.database.transaction() as db:
        db.execute(update(Product).values(stock=3))
    sessions = [f"s{number}" for number in range(8)]
    for number, session in enumerate(sessions):
        shop.log_in(session, f"{session}@example.com")
        shop.check_out(session, *(products if number % 2 else reversed(products)))
    outcomes = at_once(sessions, lambda session: shop.act(session, "confirm_order"))
    assert outcomes == ["out_of_stock"] * 5 + ["submitted"] * 3
    with shop.database.transaction() as db:
        query = select(Product.stock).where(Product.sku.in_(("board-game", "kettle")))
        assert set(db.scalars(query)) == {0}
    assert len(shop.rows(Order)) == 3


@pytest.fixture
def two_sessions(shop: Shop) -> tuple[str, str]:
    """Sessions in which Ann is logged in."""
    shop.log_in("a")
    shop.act("b", "log_in", contact="ann@example.com")
    assert shop.act("b", "verify", code=CODE).report.outcome == "verified"
    return "a", "b"


def test_two_claims_on_one_order_at_once_are_one(shop: Shop, two_sessions: tuple[str, str]) -> None:
    order = shop.order(delivered_days_ago=1)

    def claim(session: str) -> Step:
        return shop.act(session, "request_return", order=order, reason="damaged")

    with overlapping(shop.database, "cases", 2):
        at_once(two_sessions, claim)
    assert len(shop.rows(Case)) == 1


def test_two_cancellations_of_one_order_at_once_return_its_stock_once(
    shop: Shop, two_sessions: tuple[str, str]
) -> None:
    order = shop.order(sku="umbrella", quantity=2)
    before = {product.sku: product.stock for product in shop.rows(Product)}
    with overlapping(shop.database, "products", 2):
        outcomes = at_once(two_sessions, lambda s: shop.act(s, "cancel_order", order=order))
    assert outcomes == ["cancelled"] * 2
    after = {product.sku: product.stock for product in shop.rows(Product)}
    assert after == before | {"umbrella": before["umbrella"] + 2}


def test_two_registrations_of_one_contact_at_once_make_one_customer(shop: Shop) -> None:
    for session in "ab":
        shop.act(session, "register", name="Bob", contact="bob@example.com")
    with overlapping(shop.database, "customers", 2):
        outcomes = at_once("ab", lambda session: shop.act(session, "verify", code=CODE))
    assert outcomes == ["verified"] * 2
    assert len(shop.rows(Customer)) == 1
