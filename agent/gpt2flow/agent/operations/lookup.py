"""Lookup of the products and orders that a customer refers to."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import LAST_ORDER
from gpt2flow.agent.operations.context import Context, Operation, Outcome
from gpt2flow.agent.shop import CartLine, Order, OrderStatus, Product, Shipment, order_id
from gpt2flow.agent.shop.matching import match_product, packed_product
from gpt2flow.agent.wording import format_line, format_money, join_items

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class ProductLookup:
    """Result of a product lookup.

    Attributes:
        product: Product that the phrase names; None if it is unclear.
        suggestions: Most similar products, best first.
    """

    product: Product | None
    suggestions: list[Product]


def look_up_product(context: Context, phrase: str) -> ProductLookup:
    """Return the product that a phrase names, and put it into focus."""
    products = _load_products(context)
    match = match_product(phrase, {sku: product.names for sku, product in products.items()})
    if match.sku is not None:
        context.session.focus_sku = match.sku
    product = products[match.sku] if match.sku else None
    return ProductLookup(product, [products[sku] for sku in match.suggestions])


def find_packed_product(context: Context, unit: str) -> Product | None:
    """Return the product whose unit the message names; see `packed_product`."""
    products = _load_products(context)
    names = {sku: product.names for sku, product in products.items()}
    sku = packed_product(unit, context.message, names)
    return products[sku] if sku else None


def product_names(context: Context) -> list[list[str]]:
    """Return the names of each product, aliases included."""
    return [product.names for product in _load_products(context).values()]


def _load_products(context: Context) -> dict[str, Product]:
    """Return all products, by stock-keeping unit."""
    rows = context.db.scalars(select(Product).options(selectinload(Product.aliases)))
    return {product.sku: product for product in rows}


def unknown_product(context: Context, phrase: str, found: ProductLookup) -> Outcome:
    """Return the outcome for a phrase that names no product or several."""
    names = (product.name(context.language) for product in found.suggestions)
    return "unknown_product", {
        "product": phrase,
        "suggestions": join_items(names, context.language),
    }


def load_cart(context: Context) -> list[tuple[Product, int]]:
    """Return the products in the session's cart with their quantities."""
    rows = context.db.execute(
        select(Product, CartLine.quantity)
        .join(CartLine, CartLine.sku == Product.sku)
        .where(CartLine.session_id == context.session.id)
        .order_by(Product.sku)
    )
    return [(product, quantity) for product, quantity in rows]


def bill_fields(context: Context, lines: Sequence[tuple[Product, int]]) -> dict[str, str | int]:
    """Return the message fields `lines` and `total` of some lines."""
    texts = (format_line(n, product.name(context.language), product.price) for product, n in lines)
    return {
        "lines": join_items(texts, context.language),
        "total": format_money(total_price(lines)),
    }


def total_price(lines: Sequence[tuple[Product, int]]) -> Decimal:
    """Return the total price of products and quantities at current prices."""
    return sum((product.price * quantity for product, quantity in lines), start=_NOTHING)


def load_orders(context: Context) -> list[Order]:
    """Return the customer's orders, newest first."""
    query = select(Order).where(Order.customer_id == context.member.id).order_by(Order.id.desc())
    return list(context.db.scalars(query))


def latest_order(context: Context, number: str) -> str:
    """Return a number, with the order's own in place of `last`."""
    if number != LAST_ORDER or context.customer is None:
        return number
    orders = load_orders(context)
    return orders[0].number if orders else number


def find_own_order(context: Context, number: str) -> Order | None:
    """Return the customer's order of a number, and put it into focus.

    Another customer's order is treated like an unknown number, so that its existence
    is not disclosed.

    Args:
        context: Context of the action.
        number: Number of the order, or `last` for the newest order.
    """
    orders = load_orders(context)
    if number == LAST_ORDER:
        order = orders[0] if orders else None
    else:
        order = next((o for o in orders if o.id == order_id(number)), None)
    if order is not None:
        # Another session of the customer may be deciding about the order at this moment.
        context.db.refresh(order, with_for_update={"key_share": True})
        context.session.focus_order_id = order.id
    return order


def on_own_order(operation: Callable[[Context, Arguments, Order], Outcome]) -> Operation:
    """Give an operation the customer's order that its argument names."""

    @functools.wraps(operation)
    def run(context: Context, arguments: Arguments) -> Outcome:
        number = str(arguments["order"])
        order = find_own_order(context, number)
        if order is None:
            return _unknown_order(context, number)
        return operation(context, arguments, order)

    return run


def missing_order(context: Context, arguments: Arguments) -> bool:
    """Return whether the arguments name an order of nobody or somebody else."""
    number = arguments.get("order")
    return number is not None and find_own_order(context, str(number)) is None


def _unknown_order(context: Context, number: str) -> Outcome:
    """Return the outcome for an order that the customer does not have."""
    orders = [order.number for order in load_orders(context)]
    if not orders:
        return "no_orders", {}
    return "unknown_order", {"order": number, "orders": join_items(orders, context.language)}


def status_at(db: Session, order: Order, now: datetime) -> OrderStatus:
    """Return the status of an order at a point in time.

    An assigned order is on its way from its planned collection time on.
    """
    if order.status is OrderStatus.ASSIGNED:
        shipment = db.get(Shipment, order.id)
        if shipment is not None and now >= shipment.collected_at:
            return OrderStatus.ON_ITS_WAY
    return order.status
