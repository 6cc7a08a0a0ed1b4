"""Catalogue, cart, checkout: nobody pays for what he did not confirm, nothing is oversold."""

from decimal import Decimal
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from gpt2flow.agent.shop import (
    CartLine,
    Checkout,
    Customer,
    Order,
    OrderLine,
    OrderStatus,
    Product,
)

if TYPE_CHECKING:
    from tests.agent.conftest import Desk


def stock(desk: "Desk", sku: str) -> int:
    return next(product.stock for product in desk.rows(Product) if product.sku == sku)


def set_product(desk: "Desk", sku: str, **values: Decimal | int) -> None:
    with desk.database.transaction() as db:
        db.execute(update(Product).where(Product.sku == sku).values(**values))


def test_product_is_found_with_price_and_stock(desk: "Desk") -> None:
    step = desk.act("s", "find_product", product="eletric ketle")
    assert step.report.messages[0].text == "electric kettle: 29.90 each, 40 in stock."
    step = desk.act("s", "find_product", message="羽绒服还有吗", product="羽绒服")
    assert (step.result, step.report.outcome) == ("refused", "out_of_stock")
    assert step.report.messages[0].text == "羽绒服 (139.00) 暂时缺货。"


def test_unknown_product_gets_suggestions(desk: "Desk") -> None:
    step = desk.act("s", "add_to_cart", product="wireless keyboard")
    assert step.report.outcome == "unknown_product"
    assert "mechanical keyboard" in step.report.messages[0].text
    assert desk.facts("s") == {"guest"}


def test_product_just_talked_about_is_meant(desk: "Desk") -> None:
    desk.act("s", "find_product", product="yoga mat")
    step = desk.act("s", "add_to_cart", quantity=2)
    assert step.report.used == {"product": "yoga mat", "quantity": 2}
    assert step.report.outcome == "added"


def test_product_that_nobody_mentioned_is_asked_for(desk: "Desk") -> None:
    step = desk.act("s", "add_to_cart", quantity=2)
    assert (step.result, step.report.asked) == ("asked", "product")
    step = desk.act("s", "add_to_cart", product="mats")
    assert step.report.used == {"product": "mats", "quantity": 2}


def test_cart_adds_up(desk: "Desk") -> None:
    desk.act("s", "add_to_cart", product="kettle")
    desk.act("s", "add_to_cart", product="electric kettles", quantity=2)
    step = desk.act("s", "view_cart")
    text = step.report.messages[0].text
    assert text == "Your cart: 3 × electric kettle (89.70). Total 89.70."


@pytest.mark.parametrize(
    "quantity, outcome", [(0, "too_many"), (51, "too_many"), (41, "out_of_stock"), (40, "added")]
)
def test_quantity_has_limits(desk: "Desk", quantity: int, outcome: str) -> None:
    step = desk.act("s", "add_to_cart", product="kettle", quantity=quantity)
    assert step.report.outcome == outcome
    assert len(desk.rows(CartLine)) == (outcome == "added")


def test_limits_count_what_is_in_the_cart_already(desk: "Desk") -> None:
    desk.act("s", "add_to_cart", product="kettle", quantity=30)
    step = desk.act("s", "add_to_cart", product="kettle", quantity=11)
    assert step.report.outcome == "out_of_stock"
    assert desk.rows(CartLine)[0].quantity == 30


def test_remove(desk: "Desk") -> None:
    desk.act("s", "add_to_cart", product="kettle")
    desk.act("s", "add_to_cart", product="umbrella")
    assert desk.act("s", "remove_from_cart", product="desk lamp").report.outcome == "not_in_cart"
    assert desk.act("s", "remove_from_cart", product="the umbrela").report.outcome == "removed"
    step = desk.act("s", "remove_from_cart")
    assert step.report.used == {"product": "electric kettle"}
    assert desk.facts("s") == {"guest"}


def test_emptied_cart_leaves_nothing_to_confirm(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    desk.act("s", "remove_from_cart", product="kettle")
    assert desk.facts("s") == {"member"}


def test_order_reserves_stock_and_empties_the_cart(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle", "umbrella", address="12 Elm St, Leeds")
    step = desk.act("s", "confirm_order")
    assert step.raised == ("order_submitted", "SO-1001")
    assert step.report.messages[0].text == (
        "Order SO-1001 is submitted: 1 × electric kettle (29.90), 1 × umbrella (12.90). "
        "Total 42.80."
    )
    (order,) = desk.rows(Order)
    assert (order.address, order.total) == ("12 Elm St, Leeds", Decimal("42.80"))
    assert {line.sku: line.price for line in desk.rows(OrderLine)} == {
        "electric-kettle": Decimal("29.90"),
        "umbrella": Decimal("12.90"),
    }
    assert (stock(desk, "electric-kettle"), stock(desk, "umbrella")) == (39, 89)
    assert desk.rows(CartLine) == []
    assert desk.rows(Checkout) == []
    assert desk.facts("s") == {"member"}
    changed = [(c.table, c.change) for c in step.report.changes]
    assert changed.count(("products", "update")) == 2
    assert ("orders", "insert") in changed
    assert ("cart_lines", "delete") in changed


def test_address_of_the_last_order_is_used_again(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle", address="12 Elm St")
    desk.act("s", "confirm_order")
    assert desk.rows(Customer)[0].address == "12 Elm St"
    desk.act("s", "add_to_cart", product="tea")
    step = desk.act("s", "check_out")
    assert step.report.used == {"address": "12 Elm St"}


def test_first_order_without_address_is_asked_for(desk: "Desk") -> None:
    desk.log_in("s")
    desk.act("s", "add_to_cart", product="tea")
    step = desk.act("s", "check_out")
    assert (step.result, step.report.asked) == ("asked", "address")
    assert desk.facts("s") == {"member", "cart"}


def test_cart_that_changed_after_the_summary_is_confirmed_anew(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    desk.act("s", "add_to_cart", product="umbrella")
    step = desk.act("s", "confirm_order")
    assert (step.result, step.report.outcome) == ("refused", "changed")
    assert "42.80" in step.report.messages[0].text
    assert desk.act("s", "confirm_order").report.outcome == "submitted"


def test_price_that_changed_after_the_summary_is_confirmed_anew(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    set_product(desk, "electric-kettle", price=Decimal("35.00"))
    assert desk.act("s", "confirm_order").report.outcome == "changed"
    desk.act("s", "confirm_order")
    assert desk.rows(Order)[0].total == Decimal("35.00")


def test_sold_out_meanwhile_submits_nothing_and_reserves_nothing(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle", "umbrella")
    set_product(desk, "umbrella", stock=0)
    step = desk.act("s", "confirm_order")
    assert step.report.outcome == "out_of_stock"
    assert step.report.messages[0].text.startswith("umbrella has just sold out (0 left)")
    assert [c for c in step.report.changes if c.table == "products"] == []
    assert stock(desk, "electric-kettle") == 40
    assert desk.rows(Order) == []
    assert desk.facts("s") == {"member", "cart", "confirming"}


def test_decline_keeps_the_cart(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    desk.act("s", "decline_order")
    assert desk.facts("s") == {"member", "cart"}


def test_cancelling_gives_the_stock_back_once(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    desk.act("s", "confirm_order")
    for _ in range(2):
        assert desk.act("s", "cancel_order", order="last").report.outcome == "cancelled"
        assert stock(desk, "electric-kettle") == 40
    assert desk.rows(Order)[0].status is OrderStatus.CANCELLED


def test_order_that_the_courier_has_cannot_be_cancelled(desk: "Desk") -> None:
    desk.log_in("s")
    desk.order(status=OrderStatus.ASSIGNED, collected=True)
    step = desk.act("s", "cancel_order", order="last")
    assert step.report.outcome == "too_late"
    assert "on its way" in step.report.messages[0].text


def test_threads_do_not_oversell(desk: "Desk") -> None:
    """Sixteen customers want one of the last three board games at once."""
    sessions = [f"s{i}" for i in range(16)]
    for session in sessions:
        desk.log_in(session, f"{session}@example.com")
        desk.check_out(session, "board game")
    barrier, outcomes = Barrier(len(sessions)), list[str | None]()

    def buy(session: str) -> None:
        barrier.wait()
        outcomes.append(desk.act(session, "confirm_order").report.outcome)

    threads = [Thread(target=buy, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["out_of_stock"] * 13 + ["submitted"] * 3
    assert stock(desk, "board-game") == 0
    assert len(desk.rows(Order)) == 3
