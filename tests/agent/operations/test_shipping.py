"""Parcels: who carries them, where they are, and until when an order can change."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from gpt2flow.agent.operations.shipping import _working_days_after
from gpt2flow.agent.shop import Case, CaseKind, Courier, Order, OrderStatus, Shipment
from gpt2flow.agent.turns.execution import Event

if TYPE_CHECKING:
    from tests.agent.conftest import Desk


@pytest.fixture
def event(desk: "Desk") -> Event:
    """An order that was just submitted."""
    desk.log_in("s")
    desk.check_out("s", "kettle", address="12 Elm St")
    step = desk.act("s", "confirm_order")
    assert step.raised is not None
    return Event(*step.raised)


def test_event_leads_to_a_courier_and_then_to_the_customer(desk: "Desk", event: Event) -> None:
    assert desk.executor.event_facts(event) == {"submitted"}
    step = desk.event("s", event, "assign_courier")
    assert step.report.outcome == "courier_assigned"
    assert step.facts == {"assigned"}
    assert step.report.messages == []
    step = desk.event("s", event, "send_delivery_details")
    (sent,) = step.report.messages
    assert sent.to == "ann@example.com"
    assert sent.text == (
        "Order SO-1001 travels with Blue Crane Delivery, tracking number BC00000001, "
        "and should arrive at 12 Elm St by Monday 9 March 2026."
    )
    assert step.facts == frozenset()
    assert desk.rows(Order)[0].status is OrderStatus.ASSIGNED


def test_couriers_share_the_parcels(desk: "Desk") -> None:
    desk.log_in("s")
    for _ in range(6):
        desk.check_out("s", "kettle")
        step = desk.act("s", "confirm_order")
        assert step.raised is not None
        desk.event("s", Event(*step.raised), "assign_courier")
    codes = [shipment.courier_code for shipment in desk.rows(Shipment)]
    assert sorted(codes) == ["BC", "BC", "HL", "HL", "NW", "NW"]


def test_without_a_courier_a_person_is_told(desk: "Desk", event: Event) -> None:
    with desk.database.transaction() as db:
        db.execute(update(Courier).values(active=False))
    step = desk.event("s", event, "assign_courier")
    assert (step.result, step.report.outcome) == ("refused", "no_courier")
    assert desk.rows(Case)[0].kind is CaseKind.NO_COURIER


def test_order_is_on_its_way_once_the_courier_has_it(desk: "Desk", event: Event) -> None:
    desk.event("s", event, "assign_courier")
    texts = []
    for hours in (0, 13):
        desk.clock.forward(hours=hours)
        texts.append(desk.act("s", "track_order", order="SO-1001").report.messages[0].text)
    assert texts[0].startswith("Order SO-1001 is waiting for the courier: Blue Crane")
    assert texts[1].startswith("Order SO-1001 is on its way: Blue Crane")


def test_order_without_parcel_has_only_a_status(desk: "Desk", event: Event) -> None:
    del event
    step = desk.act("s", "track_order", order="last")
    assert step.report.outcome == "no_parcel"
    assert step.report.messages[0].text == "Order SO-1001 is being prepared."


def test_address_changes_until_the_courier_has_it(desk: "Desk") -> None:
    desk.log_in("s")
    number = desk.order(status=OrderStatus.ASSIGNED)
    step = desk.act("s", "change_address", order=number, address="7 Oak Rd")
    assert step.report.outcome == "changed"
    assert desk.rows(Order)[0].address == "7 Oak Rd"
    desk.clock.forward(hours=6)
    step = desk.act("s", "change_address", order=number, address="8 Oak Rd")
    assert step.report.outcome == "too_late"
    assert desk.rows(Order)[0].address == "7 Oak Rd"


def test_customer_says_that_it_arrived(desk: "Desk") -> None:
    desk.log_in("s")
    number = desk.order(status=OrderStatus.ASSIGNED, collected=True)
    assert desk.act("s", "confirm_delivery", order=number).report.outcome == "delivered"
    (order,) = desk.rows(Order)
    assert (order.status, order.delivered_at) == (OrderStatus.DELIVERED, desk.clock.now)
    desk.clock.forward(days=3)
    desk.act("s", "confirm_delivery", order=number)
    assert desk.rows(Order)[0].delivered_at == datetime(2026, 3, 4, 10, 30, tzinfo=UTC)


def test_what_was_not_sent_cannot_arrive(desk: "Desk") -> None:
    desk.log_in("s")
    number = desk.order(status=OrderStatus.SUBMITTED)
    step = desk.act("s", "confirm_delivery", message="it is here", order=number)
    assert step.report.outcome == "not_on_its_way"
    (case,) = desk.rows(Case)
    assert (case.kind, case.note) == (CaseKind.DELIVERY_REPORT, "it is here")


def test_the_only_order_that_can_be_meant_is_meant(desk: "Desk") -> None:
    desk.log_in("s")
    desk.order(delivered_days_ago=3)
    under_way = desk.order(status=OrderStatus.ASSIGNED)
    desk.order(status=OrderStatus.CANCELLED)
    for action in ("track_order", "cancel_order"):
        assert desk.act("s", action).report.used == {"order": under_way}


def test_the_order_last_talked_about_is_meant(desk: "Desk") -> None:
    desk.log_in("s")
    first, _ = desk.order(), desk.order()
    assert desk.act("s", "track_order").report.asked == "order"
    desk.act("s", "track_order", order=first)
    assert desk.act("s", "cancel_order").report.used == {"order": first}


def test_who_never_ordered_is_told_so(desk: "Desk") -> None:
    desk.log_in("s")
    for arguments in ({}, {"order": "last"}, {"order": "SO-1001"}):
        assert desk.act("s", "track_order", **arguments).report.outcome == "no_orders"


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
def test_nobody_reaches_the_order_of_another(
    desk: "Desk", action: str, arguments: dict[str, str]
) -> None:
    desk.log_in("ann")
    hers = desk.order(delivered_days_ago=2)
    desk.log_in("bob", "bob@example.com", "Bob")
    his = desk.order("bob@example.com")
    before = [(o.id, o.status, o.address) for o in desk.rows(Order)]
    step = desk.act("bob", action, order=hers, **arguments)
    assert step.report.outcome == "unknown_order"
    assert step.report.messages[0].text == f"You have no order {hers}. Your orders: {his}."
    assert [(o.id, o.status, o.address) for o in desk.rows(Order)] == before
    assert desk.rows(Case) == []


def test_weekends_are_no_working_days() -> None:
    assert _working_days_after(date(2026, 3, 4), 3) == date(2026, 3, 9)
    assert _working_days_after(date(2026, 3, 6), 1) == date(2026, 3, 9)
    assert _working_days_after(date(2026, 3, 7), 1) == date(2026, 3, 9)
