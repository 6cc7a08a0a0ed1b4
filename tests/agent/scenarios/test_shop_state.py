"""Setup of a scenario's shop, and the check of its end."""

from collections.abc import Callable
from typing import Any

import pytest

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.scenarios import Scenario, check, prepare
from gpt2flow.agent.scenarios.format import START
from gpt2flow.agent.scenarios.shop_state import rows
from gpt2flow.agent.shop import Database

ADDED = "order.add_to_cart.added"
SHOP = {
    "customers": [{"contact": "eva@example.com", "name": "Eva", "address": "5 Oak Rd"}],
    "orders": [
        {
            "number": "SO-1042",
            "contact": "eva@example.com",
            "status": "delivered",
            "lines": {"coffee-grinder": 1, "umbrella": 2},
            "placed_days_ago": 6,
            "delivered_days_ago": 3,
        }
    ],
    "stock": {"umbrella": 7},
}

Differences = Callable[..., list[str]]


def scenario(shop: dict[str, Any], **expect: Any) -> Scenario:
    turns = [{"text": "hi"}]
    return Scenario.model_validate({"id": "x", "shop": shop, "turns": turns, "expect": expect})


@pytest.fixture
def differences(database: Database) -> Differences:
    """Check the shop as it is after its setup."""

    def differences(*messages: str, ended: set[str] | None = None, **expect: Any) -> list[str]:
        prepared = scenario(SHOP, **expect)
        with database.transaction() as db:
            prepare(db, prepared, START)
            return check(db, prepared, messages, ended or set(), {ADDED})

    return differences


def test_setup_adds_customers_orders_and_stock(database: Database) -> None:
    with database.transaction() as db:
        prepare(db, scenario(SHOP), START)
        (customer,), (order,) = rows(db, "customers"), rows(db, "orders")
        lines, stock = rows(db, "order_lines"), {p["sku"]: p["stock"] for p in rows(db, "products")}
    assert (customer["name"], customer["address"]) == ("Eva", "5 Oak Rd")
    assert (order["number"], order["customer"]) == ("SO-1042", "eva@example.com")
    assert (order["status"], order["total"]) == ("delivered", "70.80")
    assert order["created_at"] == "2026-02-24 10:00:00+00:00"
    assert order["delivered_at"] == "2026-02-27 10:00:00+00:00"
    found = {(line["order"], line["sku"], line["quantity"], line["price"]) for line in lines}
    assert found == {
        ("SO-1042", "coffee-grinder", 1, "45.00"),
        ("SO-1042", "umbrella", 2, "12.90"),
    }
    assert (stock["umbrella"], stock["coffee-grinder"]) == (7, 18)


@pytest.mark.parametrize(
    "shop, message",
    [
        ({"stock": {"unicorn": 1}}, "unknown product 'unicorn'"),
        (SHOP | {"customers": []}, "scenario x: unknown customer 'eva@example.com'"),
    ],
)
def test_unknown_name_in_a_shop_is_refused(
    database: Database, shop: dict[str, Any], message: str
) -> None:
    with database.transaction() as db, pytest.raises(InputError, match=message):
        prepare(db, scenario(shop), START)


def test_tables_that_are_not_listed_are_not_compared(differences: Differences) -> None:
    assert differences() == []


def test_rows_are_compared_by_their_listed_columns_in_any_order(differences: Differences) -> None:
    lines = [{"sku": "umbrella"}, {"sku": "coffee-grinder", "order": "SO-1042"}]
    assert differences(rows={"order_lines": lines, "cart_lines": []}) == []


def test_missing_and_unexpected_rows_are_named(differences: Differences) -> None:
    lines = [{"sku": "umbrella"}, {"sku": "umbrella"}]
    missing, unexpected = differences(rows={"order_lines": lines})
    assert missing == "table order_lines: no row {'sku': 'umbrella'}"
    assert unexpected.startswith("table order_lines: unexpected row {")
    assert "'sku': 'coffee-grinder'" in unexpected


def test_row_without_an_expected_column_does_not_match(differences: Differences) -> None:
    missing, _ = differences(rows={"orders": [{"number": "SO-1042", "colour": None}]})
    assert missing == "table orders: no row {'number': 'SO-1042', 'colour': None}"


def test_a_fact_must_appear_in_some_message(differences: Differences) -> None:
    assert differences("Bye", "Total 45.00.", facts=["45.00"]) == []


def test_a_fact_that_appears_in_no_message_is_named(differences: Differences) -> None:
    assert differences("Bye", facts=["45.00"]) == ["no message contains '45.00'"]


def test_an_absent_text_may_appear_in_no_message(differences: Differences) -> None:
    found = differences("Bye", "Order SO-2000", absent=["SO-2000", "SO-3000"])
    assert found == ["a message contains 'SO-2000'"]


@pytest.mark.parametrize("field", ["outcomes", "facts"])
def test_an_outcome_must_occur_also_among_the_facts(differences: Differences, field: str) -> None:
    assert differences(ADDED, **{field: [ADDED]}) == [f"no action ended as {ADDED}"]


@pytest.mark.parametrize("field", ["outcomes", "facts"])
def test_an_outcome_that_occurred_needs_no_message(differences: Differences, field: str) -> None:
    assert differences(ended={ADDED}, **{field: [ADDED]}) == []


def test_unknown_table_is_refused(database: Database) -> None:
    with database.transaction() as db, pytest.raises(InputError, match="unknown table 'nowhere'"):
        rows(db, "nowhere")
