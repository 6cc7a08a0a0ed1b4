"""What a slot means that the customer left out, where only one thing can be meant."""

from collections.abc import Collection

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import LAST_ORDER
from gpt2flow.agent.operations.context import Context
from gpt2flow.agent.operations.lookup import cart, orders_of, status_at
from gpt2flow.agent.operations.order import CHANGEABLE
from gpt2flow.agent.shop import Order, OrderStatus, Product

_ARRIVING = (OrderStatus.ASSIGNED, OrderStatus.ON_ITS_WAY)
_OPEN = (OrderStatus.SUBMITTED, *_ARRIVING)
_DELIVERED = (OrderStatus.DELIVERED,)

# Orders in other states cannot be meant, unless there is just one.
_ELIGIBLE: dict[str, Collection[OrderStatus]] = {
    "cancel_order": CHANGEABLE,
    "change_address": CHANGEABLE,
    "track_order": _OPEN,
    "confirm_delivery": _ARRIVING,
    "request_refund": _DELIVERED,
    "request_return": _DELIVERED,
    "request_exchange": _DELIVERED,
}


def with_defaults(context: Context, operation: str, missing: Collection[str]) -> Arguments:
    """Find values for missing slots, for those that have one.

    A product is the one last talked about, an order the only one that the
    operation is possible for, an address for a checkout the customer's own.
    """
    found: Arguments = {}
    if "product" in missing and (product := _product(context, operation)) is not None:
        found["product"] = product.name(context.language)
    if "order" in missing and (number := _order(context, operation)) is not None:
        found["order"] = number
    if "address" in missing and operation == "check_out" and context.member.address:
        found["address"] = context.member.address
    return found


def _product(context: Context, operation: str) -> Product | None:
    lines = cart(context) if operation == "remove_from_cart" else []
    if len(lines) == 1:
        return lines[0][0]
    if context.session.focus_sku is None:
        return None
    return context.db.get_one(Product, context.session.focus_sku)


def _order(context: Context, operation: str) -> str | None:
    orders = orders_of(context)
    if not orders:
        return LAST_ORDER
    eligible = [order for order in orders if _is_eligible(context, operation, order)]
    if len(eligible) == 1:
        return eligible[0].number
    in_focus = [o for o in eligible if o.id == context.session.focus_order_id]
    if in_focus or len(orders) == 1:
        return (in_focus or orders)[0].number
    return None


def _is_eligible(context: Context, operation: str, order: Order) -> bool:
    return status_at(context.db, order, context.now) in _ELIGIBLE[operation]
