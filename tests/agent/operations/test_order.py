"""Catalogue, cart, checkout and orders."""

from decimal import Decimal
from threading import Barrier, Thread

import pytest
from sqlalchemy import update
from tests.support.shop import Shop

from gpt2flow.agent.shop import (
    CartLine,
    Checkout,
    Customer,
    Order,
    OrderLine,
    OrderStatus,
    Product,
)


def stock(shop: Shop, sku: str) -> int:
    return next(product.stock for product in shop.rows(Product) if product.sku == sku)


def set_product(shop: Shop, sku: str, **values: Decimal | int) -> None:
    with shop.database.transaction() as db:
        db.execute(update(Product).where(Product.sku == sku).values(**values))


def test_product_is_found_with_price_and_stock(shop: Shop) -> None:
    step = shop.act("s", "find_product", product="eletric ketle")
    assert step.report.messages[0].text == "electric kettle: 29.90 each, 40 in stock."
    step = shop.act("s", "find_product", message="羽绒服还有吗", product="羽绒服")
    assert (step.result, step.report.outcome) == ("refused", "out_of_stock")
    assert step.report.messages[0].text == "羽绒服 (139.00) 暂时缺货。"


def test_unknown_product_gets_suggestions(shop: Shop) -> None:
    step = shop.act("s", "add_to_cart", product="wireless keyboard")
    assert step.report.outcome == "unknown_product"
    assert "mechanical keyboard" in step.report.messages[0].text
    assert shop.facts("s") == {"guest"}


def test_product_in_focus_is_inferred(shop: Shop) -> None:
    shop.act("s", "find_product", product="yoga mat")
    step = shop.act("s", "add_to_cart", quantity=2)
    assert step.report.used == {"product": "yoga mat", "quantity": 2}
    assert step.report.outcome == "added"


def test_unmentioned_product_is_asked_for(shop: Shop) -> None:
    step = shop.act("s", "add_to_cart", quantity=2)
    assert (step.result, step.report.asked) == ("asked", "product")
    step = shop.act("s", "add_to_cart", product="mats")
    assert step.report.used == {"product": "mats", "quantity": 2}


def test_cart_adds_up(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="kettle")
    shop.act("s", "add_to_cart", product="electric kettles", quantity=2)
    step = shop.act("s", "view_cart")
    text = step.report.messages[0].text
    assert text == "Your cart: 3 × electric kettle (89.70). Total 89.70."


@pytest.mark.parametrize(
    "quantity, outcome", [(0, "too_many"), (51, "too_many"), (41, "out_of_stock"), (40, "added")]
)
def test_quantity_has_limits(shop: Shop, quantity: int, outcome: str) -> None:
    step = shop.act("s", "add_to_cart", product="kettle", quantity=quantity)
    assert step.report.outcome == outcome
    assert len(shop.rows(CartLine)) == (outcome == "added")


def test_quantity_limits_include_the_cart(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="kettle", quantity=30)
    step = shop.act("s", "add_to_cart", product="kettle", quantity=11)
    assert step.report.outcome == "out_of_stock"
    assert shop.rows(CartLine)[0].quantity == 30


@pytest.mark.parametrize(
    "stock_left, english, chinese",
    [
        (0, "out of stock at the moment", "暂时缺货"),
        (1, "only one is left", "只剩 1 件"),
        (3, "only 3 are left", "只剩 3 件"),
    ],
)
def test_short_stock_is_put_into_words(
    shop: Shop, stock_left: int, english: str, chinese: str
) -> None:
    set_product(shop, "board-game", stock=stock_left)
    step = shop.act("s", "add_to_cart", product="board game", quantity=4)
    text = f"Sorry, board game: {english}, so I have not added 4."
    assert step.report.messages[0].text == text
    step = shop.act("s", "add_to_cart", message="要四个", product="桌游", quantity=4)
    assert step.report.messages[0].text == f"抱歉, 桌游 {chinese}, 没有把 4 件加入购物车。"


def test_quantity_in_the_cart_is_set(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="kettle", quantity=5)
    shop.act("s", "add_to_cart", product="umbrella")
    step = shop.act("s", "set_quantity", product="kettles", quantity=2)
    assert step.report.messages[0].text == "electric kettle: 2 now. Your cart is at 72.70."
    quantities = {line.sku: line.quantity for line in shop.rows(CartLine)}
    assert quantities == {"electric-kettle": 2, "umbrella": 1}


def test_quantity_is_set_for_the_only_product(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="kettle")
    shop.act("s", "find_product", product="yoga mat")
    step = shop.act("s", "set_quantity", quantity=3)
    assert step.report.used == {"product": "electric kettle", "quantity": 3}
    assert step.report.outcome == "changed"


def test_quantity_is_set_for_the_product_in_focus(shop: Shop) -> None:
    for product in ("kettle", "umbrella", "tea"):
        shop.act("s", "add_to_cart", product=product)
    shop.act("s", "set_quantity", product="umbrella", quantity=2)
    step = shop.act("s", "set_quantity", quantity=3)
    assert step.report.used == {"product": "umbrella", "quantity": 3}


def test_missing_quantity_is_asked_for(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="kettle")
    step = shop.act("s", "set_quantity", product="kettle")
    assert (step.result, step.report.asked) == ("asked", "quantity")


@pytest.mark.parametrize(
    "product, quantity, outcome",
    [
        ("kettle", 0, "too_many"),
        ("kettle", 51, "too_many"),
        ("kettle", 41, "out_of_stock"),
        ("tea", 2, "not_in_cart"),
    ],
)
def test_refused_quantity_keeps_the_cart(
    shop: Shop, product: str, quantity: int, outcome: str
) -> None:
    shop.act("s", "add_to_cart", product="kettle", quantity=7)
    step = shop.act("s", "set_quantity", product=product, quantity=quantity)
    assert (step.result, step.report.outcome) == ("refused", outcome)
    assert ("still has 7" in step.report.messages[0].text) == (outcome != "not_in_cart")
    assert [(line.sku, line.quantity) for line in shop.rows(CartLine)] == [("electric-kettle", 7)]


def test_quantity_for_an_empty_cart_adds_the_product(shop: Shop) -> None:
    step = shop.act("s", "set_quantity", product="kettle", quantity=2)
    assert (step.report.action, step.report.wish) == ("add_to_cart", "set_quantity")
    assert step.report.used == {"product": "kettle", "quantity": 2}
    assert shop.rows(CartLine)[0].quantity == 2


def test_product_is_removed_from_the_cart(shop: Shop) -> None:
    shop.act("s", "add_to_cart", product="kettle")
    shop.act("s", "add_to_cart", product="umbrella")
    assert shop.act("s", "remove_from_cart", product="desk lamp").report.outcome == "not_in_cart"
    assert shop.act("s", "remove_from_cart", product="the umbrela").report.outcome == "removed"
    step = shop.act("s", "remove_from_cart")
    assert step.report.used == {"product": "electric kettle"}
    assert shop.facts("s") == {"guest"}


def test_emptied_cart_loses_its_order_summary(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    shop.act("s", "remove_from_cart", product="kettle")
    assert shop.facts("s") == {"member"}


def test_order_reserves_stock_and_empties_the_cart(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle", "umbrella", address="12 Elm St, Leeds")
    step = shop.act("s", "confirm_order")
    assert step.raised == ("order_submitted", "SO-1001")
    assert step.report.messages[0].text == (
        "Order SO-1001 is submitted: 1 × electric kettle (29.90), 1 × umbrella (12.90). "
        "Total 42.80."
    )
    (order,) = shop.rows(Order)
    assert (order.address, order.total) == ("12 Elm St, Leeds", Decimal("42.80"))
    assert {line.sku: line.price for line in shop.rows(OrderLine)} == {
        "electric-kettle": Decimal("29.90"),
        "umbrella": Decimal("12.90"),
    }
    assert (stock(shop, "electric-kettle"), stock(shop, "umbrella")) == (39, 89)
    assert shop.rows(CartLine) == []
    assert shop.rows(Checkout) == []
    assert shop.facts("s") == {"member"}
    changed = [(c.table, c.change) for c in step.report.changes]
    assert changed.count(("products", "update")) == 2
    assert ("orders", "insert") in changed
    assert ("cart_lines", "delete") in changed


def test_address_of_the_last_order_is_inferred(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle", address="12 Elm St")
    shop.act("s", "confirm_order")
    assert shop.rows(Customer)[0].address == "12 Elm St"
    shop.act("s", "add_to_cart", product="tea")
    step = shop.act("s", "check_out")
    assert step.report.used == {"address": "12 Elm St"}


def test_first_order_without_address_is_asked_for(shop: Shop) -> None:
    shop.log_in("s")
    shop.act("s", "add_to_cart", product="tea")
    step = shop.act("s", "check_out")
    assert (step.result, step.report.asked) == ("asked", "address")
    assert shop.facts("s") == {"member", "cart"}


def test_changed_cart_needs_another_confirmation(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    shop.act("s", "add_to_cart", product="umbrella")
    step = shop.act("s", "confirm_order")
    assert (step.result, step.report.outcome) == ("refused", "changed")
    assert "42.80" in step.report.messages[0].text
    assert shop.act("s", "confirm_order").report.outcome == "submitted"


def test_changed_price_needs_another_confirmation(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    set_product(shop, "electric-kettle", price=Decimal("35.00"))
    assert shop.act("s", "confirm_order").report.outcome == "changed"
    shop.act("s", "confirm_order")
    assert shop.rows(Order)[0].total == Decimal("35.00")


def test_sold_out_product_fails_the_order_and_reserves_nothing(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle", "umbrella")
    set_product(shop, "umbrella", stock=0)
    step = shop.act("s", "confirm_order")
    assert step.report.outcome == "out_of_stock"
    assert step.report.messages[0].text.startswith("umbrella has just sold out (0 left)")
    assert [c for c in step.report.changes if c.table == "products"] == []
    assert stock(shop, "electric-kettle") == 40
    assert shop.rows(Order) == []
    assert shop.facts("s") == {"member", "cart", "confirming"}


def test_decline_keeps_the_cart(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    shop.act("s", "decline_order")
    assert shop.facts("s") == {"member", "cart"}


def test_cancellation_releases_the_stock_once(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    shop.act("s", "confirm_order")
    for _ in range(2):
        assert shop.act("s", "cancel_order", order="last").report.outcome == "cancelled"
        assert stock(shop, "electric-kettle") == 40
    assert shop.rows(Order)[0].status is OrderStatus.CANCELLED


def test_collected_order_cannot_be_cancelled(shop: Shop) -> None:
    shop.log_in("s")
    shop.order(status=OrderStatus.ASSIGNED, collected=True)
    step = shop.act("s", "cancel_order", order="last")
    assert step.report.outcome == "too_late"
    assert "on its way" in step.report.messages[0].text


def test_orders_are_listed_newest_first(shop: Shop) -> None:
    shop.log_in("bob", "bob@example.com")
    shop.order("bob@example.com")
    shop.log_in("s")
    assert shop.act("s", "list_orders").report.outcome == "none"
    first = shop.order(delivered_days_ago=1)
    second = shop.order(quantity=2)
    step = shop.act("s", "list_orders")
    text = f"Your orders: {second} (25.80, being prepared), {first} (12.90, delivered)."
    assert (step.result, step.report.messages[0].text) == ("ok", text)
    step = shop.act("s", "list_orders", message="我的订单")
    text = f"您的订单: {second} (25.80, 正在备货)、{first} (12.90, 已签收)。"
    assert step.report.messages[0].text == text


@pytest.mark.parametrize(
    "message, outcome",
    [
        ("cancel {second} please", "cancelled"),
        ("取消订单{second}", "cancelled"),
        ("cancel {first} please", "too_late"),
        ("cancel SO-9999 please", "unknown_order"),
        ("cancel {first} or {second}", None),
    ],
)
def test_order_that_the_message_names_is_not_replaced(
    shop: Shop, message: str, outcome: str | None
) -> None:
    """The model leaves the order out, and one alone can be cancelled."""
    shop.log_in("s")
    first, second = shop.order(delivered_days_ago=1), shop.order()
    message = message.format(first=first, second=second)
    step = shop.act("s", "cancel_order", message=message)
    assert step.report.outcome == outcome
    assert step.report.asked == (None if outcome else "order")
    order = next(order for order in shop.rows(Order) if order.number == second)
    assert (order.status is OrderStatus.CANCELLED) == (outcome == "cancelled")


def test_digits_in_an_address_are_no_order(shop: Shop) -> None:
    shop.log_in("s")
    number, address = shop.order(), "14500 Elm St"
    step = shop.act("s", "change_address", message=f"send it to {address}", address=address)
    assert step.report.used == {"order": number, "address": address}
    assert step.report.outcome == "changed"


def test_threads_do_not_oversell(shop: Shop) -> None:
    """Sixteen customers order one of the last three board games at once."""
    sessions = [f"s{i}" for i in range(16)]
    for session in sessions:
        shop.log_in(session, f"{session}@example.com")
        shop.check_out(session, "board game")
    barrier, outcomes = Barrier(len(sessions)), list[str | None]()

    def buy(session: str) -> None:
        barrier.wait()
        outcomes.append(shop.act(session, "confirm_order").report.outcome)

    threads = [Thread(target=buy, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["out_of_stock"] * 13 + ["submitted"] * 3
    assert stock(shop, "board-game") == 0
    assert len(shop.rows(Order)) == 3
