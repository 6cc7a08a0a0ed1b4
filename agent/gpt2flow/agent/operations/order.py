"""Catalogue, cart, checkout and the submitted order."""

from collections.abc import Sequence

from sqlalchemy import update

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.operations.lookup import (
    bill,
    cart,
    own_order,
    status_at,
    total_of,
    unknown_order,
    unknown_product,
)
from gpt2flow.agent.operations.lookup import find_product as look_up
from gpt2flow.agent.operations.wording import money, status_word
from gpt2flow.agent.report import RowChange
from gpt2flow.agent.shop import CartLine, Checkout, Order, OrderLine, OrderStatus, Product
from gpt2flow.agent.shop.matching import match_product

# Until the courier has the parcel, an order can still be changed or cancelled.
CHANGEABLE = (OrderStatus.SUBMITTED, OrderStatus.ASSIGNED)


def find_product(context: Context, arguments: Arguments) -> Outcome:
    """Tell price and stock."""
    phrase = str(arguments["product"])
    found = look_up(context, phrase)
    if found.product is None:
        return unknown_product(context, phrase, found)
    product = found.product
    return "found" if product.stock else "out_of_stock", {
        "product": product.name(context.language),
        "price": money(product.price),
        "stock": product.stock,
    }


def add_to_cart(context: Context, arguments: Arguments) -> Outcome:
    """Put so many of a product into the cart, one if no number was said."""
    phrase, asked = str(arguments["product"]), int(arguments.get("quantity", 1))
    found = look_up(context, phrase)
    if found.product is None:
        return unknown_product(context, phrase, found)
    product = found.product
    line = context.db.get(CartLine, (context.session.id, product.sku))
    quantity = asked + (line.quantity if line else 0)
    fields: dict[str, str | int] = {
        "product": product.name(context.language),
        "quantity": asked,
        "stock": product.stock,
        "max_quantity": context.number("max_quantity"),
    }
    if asked < 1 or quantity > context.number("max_quantity"):
        return "too_many", fields | {"quantity": quantity}
    if quantity > product.stock:
        return "out_of_stock", fields | {"quantity": quantity}
    if line is None:
        line = CartLine(session_id=context.session.id, sku=product.sku)
        context.db.add(line)
    line.quantity = quantity
    context.db.flush()
    return "added", fields | bill(context, cart(context))


def remove_from_cart(context: Context, arguments: Arguments) -> Outcome:
    """Take a product out of the cart; nothing is left to confirm in an empty one."""
    phrase, lines = str(arguments["product"]), cart(context)
    match = match_product(phrase, {product.sku: product.names for product, _ in lines})
    line = context.db.get(CartLine, (context.session.id, match.sku)) if match.sku else None
    if line is None:
        return "not_in_cart", {"product": phrase}
    product = context.db.get_one(Product, line.sku)
    context.db.delete(line)
    context.db.flush()
    if len(lines) == 1:
        _forget_checkout(context)
    fields = bill(context, cart(context))
    return "removed", {"product": product.name(context.language), "total": fields["total"]}


def view_cart(context: Context, arguments: Arguments) -> Outcome:
    """Tell what is in the cart."""
    del arguments
    lines = cart(context)
    return ("shown", bill(context, lines)) if lines else ("empty", {})


def check_out(context: Context, arguments: Arguments) -> Outcome:
    """Send the summary that the customer has to confirm."""
    lines = cart(context)
    checkout = context.db.get(Checkout, context.session.id)
    if checkout is None:
        checkout = Checkout(session_id=context.session.id)
        context.db.add(checkout)
    checkout.address = str(arguments["address"])
    checkout.lines = _summary(lines)
    return "summarised", bill(context, lines) | {"address": checkout.address}


def confirm_order(context: Context, arguments: Arguments) -> Outcome:
    """Submit what was confirmed, and reserves its stock.

    If the cart or a price is no longer what the summary said, the customer
    gets a new summary instead: nobody pays for what he did not confirm.
    """
    del arguments
    checkout = context.db.get_one(Checkout, context.session.id)
    lines = cart(context)
    if _summary(lines) != checkout.lines:
        checkout.lines = _summary(lines)
        return "changed", bill(context, lines) | {"address": checkout.address}
    short = _reserve(context, lines)
    if short is not None:
        return "out_of_stock", {
            "product": short.name(context.language),
            "stock": short.stock,
        }
    order = Order(
        customer_id=context.member.id,
        status=OrderStatus.SUBMITTED,
        address=checkout.address,
        total=total_of(lines),
        created_at=context.now,
        lines=[OrderLine(sku=p.sku, quantity=n, price=p.price) for p, n in lines],
    )
    context.db.add(order)
    for product, _ in lines:
        context.db.delete(context.db.get_one(CartLine, (context.session.id, product.sku)))
    _forget_checkout(context)
    context.db.flush()
    context.member.address = order.address
    context.session.focus_order_id = order.id
    return "submitted", bill(context, lines) | {"order": order.number}


def decline_order(context: Context, arguments: Arguments) -> Outcome:
    """Forget the summary; the cart stays."""
    del arguments
    _forget_checkout(context)
    return "declined", {}


def cancel_order(context: Context, arguments: Arguments) -> Outcome:
    """Cancel an order that no courier has yet, and gives its stock back."""
    number = str(arguments["order"])
    order = own_order(context, number)
    if order is None:
        return unknown_order(context, number)
    status = status_at(context.db, order, context.now)
    fields: dict[str, str | int] = {
        "order": order.number,
        "status": status_word(status, context.language),
        "total": money(order.total),
    }
    if status is OrderStatus.CANCELLED:
        return "cancelled", fields
    if status not in CHANGEABLE:
        return "too_late", fields
    for line in order.lines:
        _add_stock(context, line.product, line.quantity)
    order.status = OrderStatus.CANCELLED
    return "cancelled", fields


def _summary(lines: Sequence[tuple[Product, int]]) -> list[list[str | int]]:
    return [[product.sku, n, str(product.price)] for product, n in lines]


def _forget_checkout(context: Context) -> None:
    checkout = context.db.get(Checkout, context.session.id)
    if checkout is not None:
        context.db.delete(checkout)


def _reserve(context: Context, lines: Sequence[tuple[Product, int]]) -> Product | None:
    """Take all lines out of stock, or none; returns the product that is short."""
    savepoint, noted = context.db.begin_nested(), len(context.changes)
    for product, quantity in lines:
        if not _add_stock(context, product, -quantity):
            savepoint.rollback()
            del context.changes[noted:]
            context.db.refresh(product)
            return product
    savepoint.commit()
    return None


def _add_stock(context: Context, product: Product, quantity: int) -> bool:
    """Change a stock in one statement that fails rather than go below zero."""
    changed = context.db.execute(
        update(Product)
        .where(Product.sku == product.sku, Product.stock + quantity >= 0)
        .values(stock=Product.stock + quantity)
        .returning(Product.stock)
        .execution_options(synchronize_session=False)
    ).scalar()
    if changed is None:
        return False
    context.db.refresh(product)
    context.changes.append(
        RowChange(
            table=Product.__tablename__,
            key={"sku": product.sku},
            change="update",
            values={"stock": changed},
        )
    )
    return True
