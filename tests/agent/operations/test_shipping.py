"""Couriers, parcels, and changes of orders until collection."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import update
from tests.support.shop import Shop

from gpt2flow.agent.operations.shipping import _add_working_days
from gpt2flow.agent.shop import Case, CaseKind, Courier, Order, OrderStatus, Shipment
from gpt2flow.agent.turns.execution import Event


@pytest.fixture
def event(shop: Shop) -> Event:
    """Event of a newly submitted order."""
    shop.log_in("s")
    shop.check_out("s", "kettle", address="12 Elm St")
    step = shop.act("s", "confirm_order")
    assert step.raised is not None
    return Event(*step.raised)


def test_submitted_order_gets_a_courier_and_its_customer_the_details(
    shop: Shop, event: Event
) -> None:
    assert shop.executor.event_facts(event) == {"submitted"}
    step = shop.event("s", event, "assign_courier")
    assert step.report.outcome == "courier_assigned"
    assert step.facts == {"assigned"}
    assert step.report.messages == []
    step = shop.event("s", event, "send_delivery_details")
    (sent,) = step.report.messages
    assert sent.to == "ann@example.com"
    assert sent.text == (
        "Order SO-1001 travels with Blue Crane Delivery, tracking number BC00000001, "
        "and should arrive at 12 Elm St by Monday 9 March 2026."
    )
    assert step.facts == frozenset()
    assert shop.rows(Order)[0].status is OrderStatus.ASSIGNED


def test_parcels_are_spread_over_the_couriers(shop: Shop) -> None:
    shop.log_in("s")
    for _ in range(6):
        shop.check_out("s", "kettle")
        step = shop.act("s", "confirm_order")
        assert step.raised is not None
        shop.event("s", Event(*step.raised), "assign_courier")
    codes = [shipment.courier_code for shipment in shop.rows(Shipment)]
    assert sorted(codes) == ["BC", "BC", "HL", "HL", "NW", "NW"]


def test_missing_courier_opens_a_case(shop: Shop, event: Event) -> None:
    with shop.database.transaction() as db:
        db.execute(update(Courier).values(active=False))
    step = shop.event("s", event, "assign_courier")
    assert (step.result, step.report.outcome) == ("refused", "no_courier")
    assert shop.rows(Case)[0].kind is CaseKind.NO_COURIER


def test_order_is_on_its_way_after_collection(shop: Shop, event: Event) -> None:
    shop.event("s", event, "assign_courier")
    texts = []
    for hours in (0, 13):
        shop.clock.forward(hours=hours)
        texts.append(shop.act("s", "track_order", order="SO-1001").report.messages[0].text)
    assert texts[0].startswith("Order SO-1001 is waiting for the courier: Blue Crane")
    assert texts[1].startswith("Order SO-1001 is on its way: Blue Crane")


def test_order_without_parcel_has_only_a_status(shop: Shop, event: Event) -> None:
    del event
    step = shop.act("s", "track_order", order="last")
    assert step.report.outcome == "no_parcel"
    assert step.report.messages[0].text == "Order SO-1001 is being prepared."


def test_address_can_change_until_collection(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(status=OrderStatus.ASSIGNED)
    step = shop.act("s", "change_address", order=number, address="7 Oak Rd")
    assert step.report.outcome == "changed"
    assert shop.rows(Order)[0].address == "7 Oak Rd"
    shop.clock.forward(hours=6)
    step = shop.act("s", "change_address", order=number, address="8 Oak Rd")
    assert step.report.outcome == "too_late"
    assert shop.rows(Order)[0].address == "7 Oak Rd"


def test_customer_confirms_the_delivery_once(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(status=OrderStatus.ASSIGNED, collected=True)
    assert shop.act("s", "confirm_delivery", order=number).report.outcome == "delivered"
    (order,) = shop.rows(Order)
    assert (order.status, order.delivered_at) == (OrderStatus.DELIVERED, shop.clock.now)
    shop.clock.forward(days=3)
    shop.act("s", "confirm_delivery", order=number)
    assert shop.rows(Order)[0].delivered_at == datetime(2026, 3, 4, 10, 30, tzinfo=UTC)


def test_delivery_report_on_an_unsent_order_opens_a_case(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(status=OrderStatus.SUBMITTED)
    step = shop.act("s", "confirm_delivery", message="it is here", order=number)
    assert step.report.outcome == "not_on_its_way"
    (case,) = shop.rows(Case)
    assert (case.kind, case.note) == (CaseKind.DELIVERY_REPORT, "it is here")


def test_only_eligible_order_is_inferred(shop: Shop) -> None:
    shop.log_in("s")
    shop.order(delivered_days_ago=3)
    under_way = shop.order(status=OrderStatus.ASSIGNED)
    shop.order(status=OrderStatus.CANCELLED)
    for action in ("track_order", "cancel_order"):
        assert shop.act("s", action).report.used == {"order": under_way}


def test_order_in_focus_is_inferred(shop: Shop) -> None:
    shop.log_in("s")
    first, _ = shop.order(), shop.order()
    assert shop.act("s", "track_order").report.asked == "order"
    shop.act("s", "track_order", order=first)
    assert shop.act("s", "cancel_order").report.used == {"order": first}


def test_customer_without_orders_gets_no_orders(shop: Shop) -> None:
    shop.log_in("s")
    orders: list[dict[str, Any]] = [{}, {"order": "last"}, {"order": "SO-1001"}]
    for arguments in orders:
        assert shop.act("s", "track_order", **arguments).report.outcome == "no_orders"


@pytest.mark.parametrize(
    "action, arguments",
    [
        ("track_order", {}),
        ("cancel_order", {}),
        ("change_address", {"address": "1 Theft Rd"}),
        ("confirm_delivery", {}),
        ("request_refund", {"reason": "damaged"}),
        ("request_return", {"reason": "damaged"}),
        ("request_exchange", {"reason": "damaged"}),
    ],
)
def test_customer_cannot_access_the_order_of_another(
    shop: Shop, action: str, arguments: dict[str, Any]
) -> None:
    shop.log_in("ann")
    hers = shop.order(delivered_days_ago=2)
    shop.log_in("bob", "bob@example.com", "Bob")
    his = shop.order("bob@example.com")
    before = [(o.id, o.status, o.address) for o in shop.rows(Order)]
    step = shop.act("bob", action, order=hers, **arguments)
    assert step.report.outcome == "unknown_order"
    assert step.report.messages[0].text == f"You have no order {hers}. Your orders: {his}."
    assert [(o.id, o.status, o.address) for o in shop.rows(Order)] == before
    assert shop.rows(Case) == []


def test_weekends_are_no_working_days() -> None:
    assert _add_working_days(date(2026, 3, 4), 3) == date(2026, 3, 9)
    assert _add_working_days(date(2026, 3, 6), 1) == date(2026, 3, 9)
    assert _add_working_days(date(2026, 3, 7), 1) == date(2026, 3, 9)
