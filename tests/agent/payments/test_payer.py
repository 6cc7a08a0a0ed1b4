"""Settlement of payments at the real service."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.payment_process import PaymentProcess, payment_service
from tests.support.shop import Clock, Shop
from tests.support.turns import InlineWorkflow, say

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.people import Person
from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.payer import OrderPayment, Payer
from gpt2flow.agent.payments.port import (
    InvoicePayments,
    PaymentKind,
    PaymentRequest,
    PaymentResult,
)
from gpt2flow.agent.payments.sweep import PaymentSweep
from gpt2flow.agent.shop import (
    Case,
    CaseKind,
    CaseStatus,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    PaymentStatus,
    Product,
)

pytestmark = pytest.mark.process

ANN = "ann@example.com"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PaymentProcess]:
    with payment_service(tmp_path) as service:
        yield service


@pytest.fixture
def payer(shop: Shop, clock: Clock, service: PaymentProcess) -> Iterator[Payer]:
    with closing(HttpPayments(service.url, timeout=5.0)) as port:
        yield Payer(port, shop.database, shop.book.cases, clock)


def order_kettle(shop: Shop) -> None:
    """Submit an order of 29.90, whose charge is requested."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    shop.act("s", "confirm_order")


def settle(shop: Shop, payer: Payer) -> list[tuple[PaymentKind, PaymentStatus]]:
    """Settle what is due, and return kind and status of all payments."""
    for payment in payer.due():
        payer.settle(payment)
    return [(row.kind, row.status) for row in shop.rows(Payment)]


def stock(shop: Shop) -> int:
    return {row.sku: row.stock for row in shop.rows(Product)}["electric-kettle"]


def test_an_order_is_charged_once(shop: Shop, payer: Payer) -> None:
    order_kettle(shop)
    assert payer.order_payment("SO-1001") is OrderPayment.WAITING
    for _ in range(3):
        assert settle(shop, payer) == [(PaymentKind.CHARGE, PaymentStatus.PAID)]
    (payment,) = shop.rows(Payment)
    assert (payment.key, payment.amount, payment.attempts) == (
        "SO-1001/1/charge",
        Decimal("29.90"),
        1,
    )
    assert payment.reference
    assert payer.order_payment("SO-1001") is OrderPayment.PAID


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_refused_charge_cancels_the_order_and_tells_the_customer(
    shop: Shop, clock: Clock, tmp_path: Path, language: str
) -> None:
    before = stock(shop)
    with (
        payment_service(tmp_path, "--refuse", ANN) as service,
        closing(HttpPayments(service.url)) as port,
    ):
        payer = Payer(port, shop.database, shop.book.cases, clock)
        shop.log_in("s")
        shop.check_out("s", "kettle")
        shop.act("s", "confirm_order", message="好的" if language == "zh" else "yes")
        assert stock(shop) == before - 1
        assert settle(shop, payer) == [(PaymentKind.CHARGE, PaymentStatus.REFUSED)]
    assert payer.order_payment("SO-1001") is OrderPayment.VOID
    assert shop.rows(Order)[0].status is OrderStatus.CANCELLED
    assert stock(shop) == before
    told = shop.rows(OutboxMessage)[-1]
    assert (told.contact, told.language) == (ANN, language)
    assert "29.90" in told.text
    assert "SO-1001" in told.text
    assert not shop.rows(Case)


def test_a_refused_charge_of_an_order_that_has_left_is_a_person_s(
    shop: Shop, clock: Clock, tmp_path: Path
) -> None:
    with (
        payment_service(tmp_path, "--refuse", ANN) as service,
        closing(HttpPayments(service.url)) as port,
    ):
        payer = Payer(port, shop.database, shop.book.cases, clock)
        order_kettle(shop)
        with shop.database.transaction() as db:
            db.get_one(Order, 1).status = OrderStatus.DELIVERED
        settle(shop, payer)
    (case,) = shop.rows(Case)
    assert (case.kind, case.status, case.amount) == (
        CaseKind.FAILURE,
        CaseStatus.OPEN,
        Decimal("29.90"),
    )
    assert shop.rows(Order)[0].status is OrderStatus.DELIVERED


def test_a_cancelled_order_is_paid_back(shop: Shop, payer: Payer) -> None:
    order_kettle(shop)
    settle(shop, payer)
    shop.act("s", "cancel_order", order="last")
    assert settle(shop, payer) == [
        (PaymentKind.CHARGE, PaymentStatus.PAID),
        (PaymentKind.REFUND, PaymentStatus.PAID),
    ]
    assert shop.rows(OutboxMessage)[-1].text == "We have paid back 29.90 for order SO-1001."
    shop.act("s", "cancel_order", order="last")
    assert len(shop.rows(Payment)) == 2


def test_a_refund_waits_for_the_charge_of_its_order(shop: Shop, payer: Payer) -> None:
    order_kettle(shop)
    shop.act("s", "cancel_order", order="last")
    charge, refund = payer.due()
    assert payer.settle(refund).status is PaymentStatus.REQUESTED
    assert payer.settle(charge).status is PaymentStatus.PAID
    assert payer.settle(refund).status is PaymentStatus.PAID


def test_an_unknown_outcome_is_read_back_before_another_attempt(
    shop: Shop, clock: Clock, tmp_path: Path
) -> None:
    """The service is killed after it has paid and before it answers."""
    order_kettle(shop)
    with (
        payment_service(tmp_path, "--delay", "1000") as service,
        closing(HttpPayments(service.url, timeout=1.0)) as port,
    ):
        payer = Payer(port, shop.database, shop.book.cases, clock)
        assert settle(shop, payer) == [(PaymentKind.CHARGE, PaymentStatus.REQUESTED)]
        service.kill()
    assert not payer.due()
    clock.forward(seconds=5)
    with (
        payment_service(tmp_path, "--refuse", ANN) as service,
        closing(HttpPayments(service.url)) as port,
    ):
        # It would refuse a second request, which shows that none was made.
        payer = Payer(port, shop.database, shop.book.cases, clock)
        assert settle(shop, payer) == [(PaymentKind.CHARGE, PaymentStatus.PAID)]


def test_a_provider_that_stays_silent_makes_a_case(
    shop: Shop, clock: Clock, payer: Payer, service: PaymentProcess
) -> None:
    order_kettle(shop)
    service.kill()
    pauses = []
    while settle(shop, payer)[0][1] is PaymentStatus.REQUESTED:
        (payment,) = shop.rows(Payment)
        pauses.append(payment.next_attempt_at - clock.now)
        assert not payer.due()
        clock.now = payment.next_attempt_at
        assert len(pauses) < 30
    assert pauses[:4] == [timedelta(seconds=seconds) for seconds in (2, 4, 8, 16)]
    assert max(pauses) == timedelta(minutes=10)
    assert shop.rows(Payment)[0].status is PaymentStatus.STUCK
    assert [case.kind for case in shop.rows(Case)] == [CaseKind.FAILURE]


def test_a_payment_that_another_process_is_making_is_left_alone(shop: Shop, payer: Payer) -> None:
    order_kettle(shop)
    with shop.database.transaction() as db:
        payment = db.get_one(Payment, 1)
        payment.attempts, payment.next_attempt_at = 1, shop.clock.now + timedelta(seconds=60)
    assert not payer.due()
    assert payer.settle(1).status is PaymentStatus.REQUESTED
    shop.clock.forward(seconds=60)
    assert settle(shop, payer) == [(PaymentKind.CHARGE, PaymentStatus.PAID)]


def test_the_sweep_leaves_a_new_charge_to_its_turn_for_a_while(
    shop: Shop, payer: Payer, clock: Clock
) -> None:
    """A turn that finds its charge claimed leaves the order waiting."""
    sweep = PaymentSweep(payer, lambda _: None)
    order_kettle(shop)
    sweep._sweep()
    assert shop.rows(Payment)[0].attempts == 0
    clock.forward(seconds=5)
    sweep._sweep()
    assert [row.status for row in shop.rows(Payment)] == [PaymentStatus.PAID]


def test_the_sweep_makes_another_attempt_and_a_refund_as_soon_as_they_are_due(
    shop: Shop, payer: Payer
) -> None:
    order_kettle(shop)
    with shop.database.transaction() as db:
        db.get_one(Payment, 1).attempts = 1
    shop.act("s", "cancel_order", order="last")
    PaymentSweep(payer, lambda _: None)._sweep()
    assert {row.status for row in shop.rows(Payment)} == {PaymentStatus.PAID}
    assert len(shop.rows(Payment)) == 2


def delivered(shop: Shop, payer: Payer, sku: str = "umbrella", quantity: int = 1) -> str:
    """Add a delivered order whose charge is paid."""
    shop.log_in("s")
    shop.check_out("s", sku)
    if quantity > 1:
        shop.act("s", "set_quantity", product=sku, quantity=quantity)
        shop.act("s", "check_out", address="5 Oak Rd")
    shop.act("s", "confirm_order")
    settle(shop, payer)
    with shop.database.transaction() as db:
        order = db.get_one(Order, 1)
        order.status, order.delivered_at = OrderStatus.DELIVERED, shop.clock.now
        return order.number


def test_an_approved_refund_is_made_after_its_wait(shop: Shop, payer: Payer) -> None:
    number = delivered(shop, payer)
    shop.act("s", "request_refund", order=number, reason="damaged")
    assert settle(shop, payer)[1] == (PaymentKind.REFUND, PaymentStatus.REQUESTED)
    shop.clock.forward(hours=24)
    assert settle(shop, payer)[1] == (PaymentKind.REFUND, PaymentStatus.PAID)


def test_a_claim_can_be_changed_until_its_refund_is_made(shop: Shop, payer: Payer) -> None:
    number = delivered(shop, payer)
    shop.act("s", "request_refund", order=number, reason="damaged")
    step = shop.act(
        "s", "request_exchange", message="exchange it instead", order=number, reason="damaged"
    )
    assert step.report.outcome == "changed"
    assert [row.status for row in shop.rows(Payment)] == [PaymentStatus.PAID, PaymentStatus.VOID]
    step = shop.act(
        "s", "request_refund", message="a refund instead", order=number, reason="damaged"
    )
    assert step.report.outcome == "changed"
    shop.clock.forward(hours=24)
    assert settle(shop, payer)[-1] == (PaymentKind.REFUND, PaymentStatus.PAID)
    step = shop.act(
        "s", "request_exchange", message="exchange it instead", order=number, reason="damaged"
    )
    assert step.report.outcome == "already_open"


def test_a_person_s_approval_pays_the_approved_amount(
    shop: Shop, clock: Clock, payer: Payer
) -> None:
    number = delivered(shop, payer, "headphones", 4)
    step = shop.act("s", "request_refund", order=number, reason="defective")
    assert step.report.outcome == "needs_approval"
    desk = Desk(shop.book, shop.database, clock)
    digest = desk.show("C-1").digest
    ben = Person("ben", may_approve=True)
    desk.approve(ben, "C-1", seen=digest, amount=Decimal("99.90"))
    assert settle(shop, payer)[1] == (PaymentKind.REFUND, PaymentStatus.PAID)
    assert shop.rows(Payment)[1].amount == Decimal("99.90")


def test_an_order_is_not_sent_before_it_is_paid(
    shop: Shop, payer: Payer, service: PaymentProcess
) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    service.kill()
    workflow = InlineWorkflow()
    report = say(shop, "yes", "confirm_order", payer=payer, workflow=workflow)
    assert [event.postponed for event in report.events] == ["order SO-1001 is not paid yet"]
    assert [event.subject for _, event, _ in workflow.retries] == ["SO-1001"]
    assert shop.rows(Order)[0].status is OrderStatus.SUBMITTED


def test_without_a_provider_everything_is_on_account(shop: Shop, clock: Clock) -> None:
    payer = Payer(InvoicePayments(), shop.database, shop.book.cases, clock)
    order_kettle(shop)
    shop.act("s", "cancel_order", order="last")
    sent = len(shop.rows(OutboxMessage))
    assert [status for _, status in settle(shop, payer)] == [PaymentStatus.PAID] * 2
    # Nobody is told of money that has not moved.
    assert len(shop.rows(OutboxMessage)) == sent


class KilledPort(InvoicePayments):
    """Payments on account, of a process that dies in the attempt."""

    def __init__(self, longest_attempt: timedelta) -> None:
        self.longest_attempt = longest_attempt

    def submit(self, request: PaymentRequest) -> PaymentResult:
        raise SystemExit(request.key)


@pytest.mark.parametrize("seconds", [0, 30])
def test_a_killed_attempt_delays_the_next_by_no_more_than_its_own_length(
    shop: Shop, clock: Clock, seconds: int
) -> None:
    order_kettle(shop)
    killed = KilledPort(timedelta(seconds=seconds))
    with pytest.raises(SystemExit):
        Payer(killed, shop.database, shop.book.cases, clock).settle(1)
    other = Payer(InvoicePayments(), shop.database, shop.book.cases, clock)
    if seconds:
        assert other.settle(1).status is PaymentStatus.REQUESTED
        clock.now += timedelta(seconds=seconds)
    assert other.settle(1).status is PaymentStatus.PAID


def test_a_claim_outlasts_both_calls_of_an_attempt() -> None:
    with closing(HttpPayments("https://pay.example", timeout=25.0)) as port:
        assert port.longest_attempt > timedelta(seconds=2 * 25)
