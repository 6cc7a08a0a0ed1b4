"""Inference of slot values that the customer omitted."""

from collections.abc import Collection

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import LAST_ORDER, named_orders
from gpt2flow.agent.operations.after_sales import find_open_claim
from gpt2flow.agent.operations.context import Context
from gpt2flow.agent.operations.lookup import find_own_order, load_cart, load_orders, status_at
from gpt2flow.agent.operations.order import CHANGEABLE
from gpt2flow.agent.shop import Order, OrderStatus, Product

CLAIM_OPERATIONS = ("request_refund", "request_return", "request_exchange")
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


def infer_arguments(
    context: Context, operation: str, missing: Collection[str], given: Arguments
) -> Arguments:
    """Return values for those missing slots that have an unambiguous value.

    - `product`: the product in focus; to change or remove what is in the cart, first the
      only product in it.
    - `order`: the only order that the message names, the order of the latest claim, the
      only eligible order, the eligible order in focus, or the customer's only order. A
      customer without orders gets `last`.
    - `reason`: the reason of the order's open claim, or of the latest claim.
    - `address`: for `check_out`, that of the latest summary, or the customer's stored one.

    Args:
        context: Context of the action.
        operation: Name of the operation.
        missing: Required slots without a value.
        given: Values of the other slots.
    """
    inferred: Arguments = {}
    if "product" in missing and (product := _infer_product(context, operation)) is not None:
        inferred["product"] = product.name(context.language)
    if "order" in missing and (number := _infer_order(context, operation, given)) is not None:
        inferred["order"] = number
    if "reason" in missing and (reason := _infer_reason(context, inferred | given)) is not None:
        inferred["reason"] = reason
    if "address" in missing and operation == "check_out" and (known := _infer_address(context)):
        inferred["address"] = known
    return inferred


def _infer_product(context: Context, operation: str) -> Product | None:
    in_cart = operation in ("remove_from_cart", "set_quantity")
    lines = load_cart(context) if in_cart else []
    if len(lines) == 1:
        return lines[0][0]
    if context.session.focus_sku is None:
        return None
    return context.db.get_one(Product, context.session.focus_sku)


def _infer_address(context: Context) -> str | None:
    summarised = (
        str(entry["arguments"]["address"])
        for entry in reversed(context.session.past)
        if entry["action"] == "check_out" and "address" in entry["arguments"]
    )
    return next(summarised, context.member.address)


def _infer_order(context: Context, operation: str, given: Arguments) -> str | None:
    # An order that the message names is never replaced by another one.
    if named := _named_orders(context.message, given):
        return named[0] if len(named) == 1 else None
    orders = load_orders(context)
    if not orders:
        return LAST_ORDER
    if operation in CLAIM_OPERATIONS and (claim := _latest_claim(context)) is not None:
        return str(claim["order"])
    eligible = [order for order in orders if _is_eligible(context, operation, order)]
    if len(eligible) == 1:
        return eligible[0].number
    in_focus = [o for o in eligible if o.id == context.session.focus_order_id]
    if in_focus or len(orders) == 1:
        return (in_focus or orders)[0].number
    return None


def _named_orders(message: str, given: Arguments) -> list[str]:
    """Return the orders that a message names outside its other values."""
    for value in given.values():
        message = message.replace(str(value), " ")
    return named_orders(message)


def _infer_reason(context: Context, known: Arguments) -> str | None:
    number = str(known.get("order", ""))
    order = find_own_order(context, number) if number else None
    if order is not None and (claim := find_open_claim(context, order)) is not None:
        return claim.reason
    latest = _latest_claim(context)
    return str(latest["reason"]) if latest and latest["order"] == number else None


def _latest_claim(context: Context) -> Arguments | None:
    """Return the arguments of the session's latest claim, if it is recent."""
    for entry in reversed(context.session.past):
        arguments: Arguments = entry["arguments"]
        # What the agent only asked about may have been denied.
        is_made = entry["result"] != "asked" and entry["action"] in CLAIM_OPERATIONS
        if is_made and {"order", "reason"} <= arguments.keys():
            return arguments
    return None


def _is_eligible(context: Context, operation: str, order: Order) -> bool:
    return status_at(context.db, order, context.now) in _ELIGIBLE[operation]
