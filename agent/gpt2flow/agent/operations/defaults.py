"""Inference of slot values that the customer omitted."""

from collections.abc import Collection

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import LAST_ORDER
from gpt2flow.agent.operations.context import Context
from gpt2flow.agent.operations.lookup import load_cart, load_orders, status_at
from gpt2flow.agent.operations.order import CHANGEABLE
from gpt2flow.agent.shop import Order, OrderStatus, Product

_ARRIVING = (OrderStatus.ASSIGNED, OrderStatus.ON_ITS_WAY)
_OPEN = (OrderStatus.SUBMITTED, *_ARRIVING)
_DELIVERED = (OrderStatus.DELIVERED,)

# States in which an operation applies to an order. An order in another state is
# inferred only if it is the only one.
_ELIGIBLE: dict[str, Collection[OrderStatus]] = {
    "cancel_order": CHANGEABLE,
    "change_address": CHANGEABLE,
    "track_order": _OPEN,
    "confirm_delivery": _ARRIVING,
    "request_refund": _DELIVERED,
    "request_return": _DELIVERED,
    "request_exchange": _DELIVERED,
}


def infer_arguments(context: Context, operation: str, missing: Collection[str]) -> Arguments:
    """Return values for those missing slots that have an unambiguous value.

    - `product`: the product in focus; for `remove_from_cart`, first the only product
      in the cart.
    - `order`: the only eligible order, the eligible order in focus, or the customer's
      only order. A customer without orders gets `last`.
    - `address`: for `check_out`, the customer's stored address.

    Args:
        context: Context of the action.
        operation: Name of the operation.
        missing: Required slots without a value.
    """
    inferred: Arguments = {}
    if "product" in missing and (product := _infer_product(context, operation)) is not None:
        inferred["product"] = product.name(context.language)
    if "order" in missing and (number := _infer_order(context, operation)) is not None:
        inferred["order"] = number
    if "address" in missing and operation == "check_out" and context.member.address:
        inferred["address"] = context.member.address
    return inferred


def _infer_product(context: Context, operation: str) -> Product | None:
    lines = load_cart(context) if operation == "remove_from_cart" else []
    if len(lines) == 1:
        return lines[0][0]
    if context.session.focus_sku is None:
        return None
    return context.db.get_one(Product, context.session.focus_sku)


def _infer_order(context: Context, operation: str) -> str | None:
    orders = load_orders(context)
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
