"""Finds the products and orders that a customer means."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from gpt2flow.agent.flows.slots import LAST_ORDER
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.operations.wording import cart_line, listing, money
from gpt2flow.agent.shop import CartLine, Order, OrderStatus, Product, Shipment, order_id
from gpt2flow.agent.shop.matching import match_product

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class Found:
    """The product that is meant, if that is clear, and those that come close."""

    product: Product | None
    suggestions: list[Product]


def find_product(context: Context, phrase: str) -> Found:
    """Find the product that a phrase names; what is found is then in focus."""
    products = {
        product.sku: product
        for product in context.db.scalars(select(Product).options(selectinload(Product.aliases)))
    }
    match = match_product(phrase, {sku: product.names for sku, product in products.items()})
    if match.sku is not None:
        context.session.focus_sku = match.sku
    product = products[match.sku] if match.sku else None
    return Found(product, [products[sku] for sku in match.suggestions])


def unknown_product(context: Context, phrase: str, found: Found) -> Outcome:
    """The outcome for a phrase that names no product, or more than one."""
    names = (product.name(context.language) for product in found.suggestions)
    return "unknown_product", {
        "product": phrase,
        "suggestions": listing(names, context.language),
    }


def cart(context: Context) -> list[tuple[Product, int]]:
    """The products in the session's cart with their quantities."""
    rows = context.db.execute(
        select(Product, CartLine.quantity)
        .join(CartLine, CartLine.sku == Product.sku)
        .where(CartLine.session_id == context.session.id)
        .order_by(Product.sku)
    )
    return [(product, quantity) for product, quantity in rows]


def bill(context: Context, lines: Sequence[tuple[Product, int]]) -> dict[str, str | int]:
    """The fields `lines` and `total` of a message about a cart or an order."""
    texts = (cart_line(n, product.name(context.language), product.price) for product, n in lines)
    return {
        "lines": listing(texts, context.language),
        "total": money(total_of(lines)),
    }


def total_of(lines: Sequence[tuple[Product, int]]) -> Decimal:
    """What so many of these products cost today."""
    return sum((product.price * quantity for product, quantity in lines), start=_NOTHING)


def orders_of(context: Context) -> list[Order]:
    """The customer's orders, the newest first."""
    query = select(Order).where(Order.customer_id == context.member.id).order_by(Order.id.desc())
    return list(context.db.scalars(query))


def own_order(context: Context, number: str) -> Order | None:
    """The customer's order of that number, or the newest for `last`; it is then in focus.

    Another customer's order is not found: nobody learns that it exists.
    """
    orders = orders_of(context)
    if number == LAST_ORDER:
        order = orders[0] if orders else None
    else:
        order = next((o for o in orders if o.id == order_id(number)), None)
    if order is not None:
        context.session.focus_order_id = order.id
    return order


def unknown_order(context: Context, number: str) -> Outcome:
    """The outcome for an order that the customer does not have."""
    orders = [order.number for order in orders_of(context)]
    if not orders:
        return "no_orders", {}
    return "unknown_order", {"order": number, "orders": listing(orders, context.language)}


def status_at(db: Session, order: Order, now: datetime) -> OrderStatus:
    """An order's status at an instant; the courier's plan says when it set off."""
    if order.status is OrderStatus.ASSIGNED:
        shipment = db.get(Shipment, order.id)
        if shipment is not None and now >= shipment.collected_at:
            return OrderStatus.ON_ITS_WAY
    return order.status
