"""Operations on couriers and parcels."""

from datetime import date, timedelta

from sqlalchemy import func, select

from gpt2flow.agent.cases.life import open_case
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.operations.lookup import on_own_order, status_at
from gpt2flow.agent.operations.order import CHANGEABLE
from gpt2flow.agent.shop import (
    Case,
    CaseKind,
    CaseStatus,
    Courier,
    Order,
    OrderStatus,
    Shipment,
    order_id,
)
from gpt2flow.agent.wording import format_date, status_name

_SATURDAY = 5


def assign_courier(context: Context, arguments: Arguments) -> Outcome:
    """Assign the parcel to the courier with the fewest parcels under way.

    If no courier is active, a case goes to a person.
    """
    order = context.db.get_one(Order, order_id(str(arguments["order"])))
    courier = _least_busy_courier(context)
    if courier is None:
        _open_case(context, order, CaseKind.NO_COURIER, None)
        return "no_courier", {"order": order.number}
    context.db.add(
        Shipment(
            order_id=order.id,
            courier_code=courier.code,
            tracking=f"{courier.code}{order.id:08}",
            collected_at=context.now + timedelta(hours=context.int_policy("handover_hours")),
            expected_on=_add_working_days(context.now.date(), context.int_policy("delivery_days")),
        )
    )
    order.status = OrderStatus.ASSIGNED
    return "courier_assigned", {"order": order.number}


def send_delivery_details(context: Context, arguments: Arguments) -> Outcome:
    """Send the customer the courier, tracking number and date of delivery."""
    order = context.db.get_one(Order, order_id(str(arguments["order"])))
    shipment = context.db.get_one(Shipment, order.id)
    shipment.details_sent_at = context.now
    return "details_sent", _parcel_fields(context, order, shipment) | {"address": order.address}


@on_own_order
def track_order(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Report the status of an order and its parcel."""
    del arguments
    status = status_at(context.db, order, context.now)
    fields: dict[str, str | int] = {
        "order": order.number,
        "status": status_name(status, context.language),
    }
    shipment = context.db.get(Shipment, order.id)
    if shipment is None or status is OrderStatus.CANCELLED:
        return "no_parcel", fields
    return "tracked", fields | _parcel_fields(context, order, shipment)


@on_own_order
def change_address(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Change the address of an order before its collection."""
    status = status_at(context.db, order, context.now)
    if status not in CHANGEABLE:
        word = status_name(status, context.language)
        return "too_late", {"order": order.number, "status": word}
    order.address = str(arguments["address"])
    return "changed", {"order": order.number, "address": order.address}


@on_own_order
def confirm_delivery(context: Context, arguments: Arguments, order: Order) -> Outcome:
    """Mark an order as delivered.

    The customer's report takes precedence over the courier's plan. For an order that
    has not been sent, a case goes to a person instead.
    """
    del arguments
    status = status_at(context.db, order, context.now)
    if status in (OrderStatus.SUBMITTED, OrderStatus.CANCELLED):
        _open_case(context, order, CaseKind.DELIVERY_REPORT, context.message)
        word = status_name(status, context.language)
        return "not_on_its_way", {"order": order.number, "status": word}
    if status is not OrderStatus.DELIVERED:
        order.status = OrderStatus.DELIVERED
        order.delivered_at = context.now
    return "delivered", {"order": order.number}


def _parcel_fields(context: Context, order: Order, shipment: Shipment) -> dict[str, str | int]:
    return {
        "order": order.number,
        "courier": shipment.courier.name(context.language),
        "tracking": shipment.tracking,
        "date": format_date(shipment.expected_on, context.language),
    }


def _least_busy_courier(context: Context) -> Courier | None:
    """Return the active courier with the fewest parcels under way."""
    under_way = (
        select(Shipment.courier_code, func.count().label("parcels"))
        .join(Order, Order.id == Shipment.order_id)
        .where(Order.status == OrderStatus.ASSIGNED)
        .group_by(Shipment.courier_code)
        .subquery()
    )
    return context.db.scalar(
        select(Courier)
        .outerjoin(under_way, under_way.c.courier_code == Courier.code)
        .where(Courier.active)
        .order_by(func.coalesce(under_way.c.parcels, 0), Courier.code)
        .limit(1)
    )


def _open_case(context: Context, order: Order, kind: CaseKind, note: str | None) -> None:
    case = Case(
        kind=kind,
        status=CaseStatus.OPEN,
        session_id=context.session.id,
        customer_id=order.customer_id,
        order_id=order.id,
        note=note,
        created_at=context.now,
    )
    context.timers += open_case(context.db, case, context.case_rules)


def _add_working_days(start: date, days: int) -> date:
    while days:
        start += timedelta(days=1)
        days -= start.weekday() < _SATURDAY
    return start
