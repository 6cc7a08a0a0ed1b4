"""Operations on the catalogue, the cart, the checkout and submitted orders."""

from collections.abc import Sequence

from sqlalchemy import update

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.operations.lookup import (
    bill_fields,
    load_cart,
    load_orders,
    look_up_product,
    on_own_order,
    status_at,
    total_price,
    unknown_product,
)
from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.report import RowChange
from gpt2flow.agent.shop import CartLine, Checkout, Order, OrderLine, OrderStatus, Product
from gpt2flow.agent.shop.matching import match_product
from gpt2flow.agent.shop.tables.payments import refundable_amount, request_payment
from gpt2flow.agent.wording import (
    availability,
    format_money,
    join_items,
    status_name,
)

# An order can be changed or cancelled until the courier has collected the parcel.
CHANGEABLE = (OrderStatus.SUBMITTED, OrderStatus.ASSIGNED)


def find_product(context: Context, arguments: Arguments) -> Outcome:
    """Report the price and stock of a product."""
    phrase = str(arguments["product"])
    found = look_up_product(context, phrase)
    if found.product is None:
        return unknown_product(context, phrase, found)
    product = found.product
    return "found" if product.stock else "out_of_stock", {
        "product": product.name(context.language),
        "price": format_money(product.price),
        "stock": product.stock,
    }


def add_to_cart(context: Context, arguments: Arguments) -> Outcome:
    """Add a quantity of a product to the cart, 1 by default."""
    phrase, requested = str(arguments["product"]), int(arguments.get("quantity", 1))
    found = look_up_product(context, phrase)
    if found.product is None:
        return unknown_product(context, phrase, found)
    product = found.product
    line = context.db.get(CartLine, (context.session.id, product.sku))
    quantity = requested + (line.quantity if line else 0)
    fields: dict[str, str | int] = {
        "product": product.name(context.language),
        "quantity": requested,
        "availability": availability(product.stock, context.language),
        "max_quantity": context.int_policy("max_quantity"),
    }
    if requested < 1 or quantity > context.int_policy("max_quantity"):
        return "too_many", fields | {"quantity": quantity}
    if quantity > product.stock:
        return "out_of_stock", fields | {"quantity": quantity}
    if line is None:
        line = CartLine(session_id=context.session.id, sku=product.sku)
        context.db.add(line)
    line.quantity = quantity
    context.db.flush()
    return "added", fields | bill_fields(context, load_cart(context))


def set_quantity(context: Context, arguments: Arguments) -> Outcome:
    """Set the quantity of a product in the cart."""
    phrase, quantity = str(arguments["product"]), int(arguments["quantity"])
    line = _find_cart_line(context, phrase)
    if line is None:
        return "not_in_cart", {"product": phrase}
    product = context.db.get_one(Product, line.sku)
    context.session.focus_sku = product.sku
    fields: dict[str, str | int] = {
        "product": product.name(context.language),
        "quantity": quantity,
        "kept": line.quantity,
        "availability": availability(product.stock, context.language),
        "max_quantity": context.int_policy("max_quantity"),
    }
    if not 1 <= quantity <= context.int_policy("max_quantity"):
        return "too_many", fields
    if quantity > product.stock:
        return "out_of_stock", fields
    line.quantity = quantity
    context.db.flush()
    return "changed", fields | bill_fields(context, load_cart(context))


def remove_from_cart(context: Context, arguments: Arguments) -> Outcome:
    """Remove a product from the cart.

    An emptied cart loses its order summary.
    """
    phrase, lines = str(arguments["product"]), load_cart(context)
    line = _find_cart_line(context, phrase)
    if line is None:
        return "not_in_cart", {"product": phrase}
    product = context.db.get_one(Product, line.sku)
    context.db.delete(line)
    context.db.flush()
    if len(lines) == 1:
        _delete_checkout(context)
    fields = bill_fields(context, load_cart(context))
    return "removed", {"product": product.name(context.language), "total": fields["total"]}


def view_cart(context: Context, arguments: Arguments) -> Outcome:
    """Report the content of the cart."""
    del arguments
    lines = load_cart(context)
    return ("shown", bill_fields(context, lines)) if lines else ("empty", {})


def check_out(context: Context, arguments: Arguments) -> Outcome:
    """Send the order summary that the customer has to confirm."""
    lines = load_cart(context)
    checkout = context.db.get(Checkout, context.session.id)
    if checkout is None:
        checkout = Checkout(session_id=context.session.id)
        context.db.add(checkout)
    checkout.address = str(arguments["address"])
    checkout.lines = _summarize(lines)
    return "summarised", bill_fields(context, lines) | {"address": checkout.address}


def confirm_order(context: Context, arguments: Arguments) -> Outcome:
    """Submit the confirmed order and reserve its stock.

    If the cart or a price has changed since the summary, the customer gets a new
    summary instead, and has to confirm that.
    """
    del arguments
    checkout = context.db.get_one(Checkout, context.session.id)
    lines = load_cart(context)
    if _summarize(lines) != checkout.lines:
        checkout.lines = _summarize(lines)
        return "changed", bill_fields(context, lines) | {"address": checkout.address}
    short = _reserve_stock(context, lines)
    if short is not None:
        return "out_of_stock", {
            "product": short.name(context.language),
            "stock": short.stock,
        }
    order = Order(
        customer_id=context.member.id,
        status=OrderStatus.SUBMITTED,
        address=checkout.address,
        total=total_price(lines),
        created_at=context.now,
        lines=[OrderLine(sku=p.sku, quantity=n, price=p.price) for p, n in lines],
    )
    context.db.add(order)
    for product, _ in lines:
        context.db.delete(context.db.get_one(CartLine, (context.session.id, product.sku)))
    _delete_checkout(context)
    context.db.flush()
    charge = request_payment(context.db, PaymentKind.CHARGE, order, order.total, context.now)
    context.payments.append(charge.id)
    context.member.address = order.address
    context.session.focus_order_id = order.id
    fields = {"order": order.number, "address": order.address}
    return "submitted", bill_fields(context, lines) | fields


def list_orders(context: Context, arguments: Arguments) -> Outcome:
    """List the customer's orders with their status."""
    del arguments
    orders = load_orders(context)
    if not orders:
        return "none", {}
    if len(orders) == 1:
        context.session.focus_order_id = orders[0].id
    texts = (
        f"{order.number} ({format_money(order.total)}, "
        f"{status_name(status_at(context.db, order, context.now), context.language)})"
        for order in orders
    )
    return "listed", {"orders": join_items(texts, context.language)}


def decline_order(context: Context, arguments: Arguments) -> Outcome:
    """Discard the order summary and keep the cart."""
    del arguments
    _delete_checkout(context)
    return "declined", {}


@on_own_order
def cancel_order(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Cancel an order before its collection and release its stock."""
    del arguments
    status = status_at(context.db, order, context.now)
    fields: dict[str, str | int] = {
        "order": order.number,
        "status": status_name(status, context.language),
        "total": format_money(order.total),
    }
    if status is OrderStatus.CANCELLED:
        return "cancelled", fields
    if status not in CHANGEABLE:
        return "too_late", fields
    for line in order.lines:
        _add_stock(context, line.product, line.quantity)
    order.status = OrderStatus.CANCELLED
    amount = refundable_amount(context.db, order)
    if amount > 0:
        refund = request_payment(context.db, PaymentKind.REFUND, order, amount, context.now)
        context.payments.append(refund.id)
    return "cancelled", fields


def _find_cart_line(context: Context, phrase: str) -> CartLine | None:
    """Return the line of the cart that a phrase names."""
    names = {product.sku: product.names for product, _ in load_cart(context)}
    sku = match_product(phrase, names).sku
    return context.db.get(CartLine, (context.session.id, sku)) if sku else None


def _summarize(lines: Sequence[tuple[Product, int]]) -> list[list[str | int]]:
    return [[product.sku, n, str(product.price)] for product, n in lines]


def _delete_checkout(context: Context) -> None:
    checkout = context.db.get(Checkout, context.session.id)
    if checkout is not None:
        context.db.delete(checkout)


def _reserve_stock(context: Context, lines: Sequence[tuple[Product, int]]) -> Product | None:
    """Reserve the stock of all lines, or of none.

    Returns:
        The first product with insufficient stock; None if all lines were reserved.
    """
    savepoint, change_count = context.db.begin_nested(), len(context.changes)
    for product, quantity in lines:
        if not _add_stock(context, product, -quantity):
            savepoint.rollback()
            del context.changes[change_count:]
            context.db.refresh(product)
            return product
    savepoint.commit()
    return None


def _add_stock(context: Context, product: Product, quantity: int) -> bool:
    """Add to a stock atomically; return False if that makes it negative."""
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
