"""Invariants of the chaos runs, in shops in which something is wrong."""

import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, update
from standardwebhooks import Webhook
from tests.chaos.conversations import CONVERSATIONS
from tests.chaos.facts import differences, normal, read_facts, stock, unsettled
from tests.chaos.invariants import unexpected_errors, violations, wrong_decisions
from tests.support.shop import Clock
from tests.support.waiting import eventually
from tests.support.webhook_receiver import SECRET, WebhookReceiver, webhook_receiver

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.delivery.message import OutgoingMessage
from gpt2flow.agent.delivery.webhook import header_id
from gpt2flow.agent.payments.contract import PaymentBody
from gpt2flow.agent.payments.ledger import PaymentLedger, PaymentRules
from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.shop import (
    Case,
    CaseEvent,
    CaseKind,
    CaseStatus,
    Customer,
    Database,
    Delivery,
    Order,
    OrderLine,
    OrderStatus,
    OutboxMessage,
    Payment,
    PaymentStatus,
    Product,
    Shipment,
    database_url,
)

pytestmark = pytest.mark.process

NOW = Clock.now
ANN = next(each for each in CONVERSATIONS if each.name == "order-en")
KEY = "order_submitted/SO-1001/send_delivery_details"


@dataclass
class Settled:
    """Shop with an order that was paid and sent."""

    database: Database
    ledger: PaymentLedger
    path: Path
    receiver: WebhookReceiver
    stock: dict[str, int]

    def violations(self) -> list[str]:
        return violations(self.database, self.path, self.receiver, self.stock)

    def change(self, statement: Any) -> None:
        with self.database.transaction() as db:
            db.execute(statement)

    def add(self, *rows: Any) -> None:
        with self.database.transaction() as db:
            db.add_all(rows)

    def pay(self, key: str, kind: PaymentKind, amount: str) -> None:
        body = PaymentBody(kind=kind, order="SO-1001", account=ANN.contact, amount=amount)
        self.ledger.submit(key, body)

    def deliver(self, text: str, key: str = KEY) -> None:
        """Deliver a message as a dispatcher would."""
        row = new_message(key, text, id=1, attempts=0)
        content, now = httpx.Request("POST", "/", json=payload(row)).content, utc_now()
        signature = Webhook(SECRET).sign(header_id(key), now, content.decode())
        headers = {
            "webhook-id": header_id(key),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        httpx.post(self.receiver.url, content=content, headers=headers).raise_for_status()


def payload(row: OutboxMessage) -> dict[str, Any]:
    return OutgoingMessage.from_row(row).payload()


def new_message(key: str, text: str, **columns: Any) -> OutboxMessage:
    columns = {"delivery": Delivery.SENT, "contact": ANN.contact, "flow": "shipping"} | columns
    return OutboxMessage(
        key=key, session_id=ANN.name, language="en", text=text, created_at=NOW, **columns
    )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Settled]:
    database = Database.open(database_url(str(tmp_path / "shop.sqlite")))
    path = tmp_path / "payments.sqlite"
    with (
        closing(database),
        webhook_receiver() as receiver,
        closing(PaymentLedger(path, PaymentRules())) as ledger,
    ):
        with database.transaction() as db:
            before = stock(db)
            fill(db)
        settled = Settled(database, ledger, path, receiver, before)
        settled.pay("SO-1001/1/charge", PaymentKind.CHARGE, "25.80")
        settled.deliver("on its way")
        yield settled


def fill(db: Any) -> None:
    """Write an order, and all that belongs to it."""
    customer = Customer(name="Ann", contact=ANN.contact, language="en", created_at=NOW)
    db.add(customer)
    db.flush()
    umbrella = db.get_one(Product, "umbrella")
    umbrella.stock -= 2
    order = Order(
        customer_id=customer.id,
        status=OrderStatus.ASSIGNED,
        address="5 Oak Rd",
        total=umbrella.price * 2,
        created_at=NOW,
        lines=[OrderLine(sku="umbrella", quantity=2, price=umbrella.price)],
    )
    db.add(order)
    db.flush()
    charge = Payment(
        key=f"{order.number}/1/charge",
        kind=PaymentKind.CHARGE,
        order_id=order.id,
        amount=order.total,
        status=PaymentStatus.PAID,
        next_attempt_at=NOW,
        created_at=NOW,
    )
    parcel = Shipment(
        order_id=order.id,
        courier_code="NW",
        tracking="NW00000001",
        collected_at=NOW,
        expected_on=NOW.date(),
        details_sent_at=NOW,
    )
    db.add_all([charge, parcel, new_message(KEY, "on its way")])


def test_a_shop_in_order_has_no_violations(shop: Settled) -> None:
    assert not shop.violations()
    assert not unsettled_rows(shop)


def unsettled_rows(shop: Settled) -> list[str]:
    """Return what is not finished; DBOS has no records here."""
    with closing(sqlite3.connect(f"{shop.database.url.database}-dbos")) as records:
        records.execute("CREATE TABLE workflow_status (workflow_uuid, name, status)")
    return unsettled(shop.database, NOW)


def new_case(**columns: Any) -> Case:
    return Case(
        kind=CaseKind.FAILURE, status=CaseStatus.OPEN, order_id=1, created_at=NOW, **columns
    )


def claim(shop: Settled, status: CaseStatus, *changes: str) -> None:
    """Add a refund claim with a history."""
    case = Case(
        kind=CaseKind.REFUND, status=status, order_id=1, amount=Decimal("25.80"), created_at=NOW
    )
    shop.add(case)
    shop.add(
        *(
            CaseEvent(case_id=1, actor="eva", change=change, status=status, created_at=NOW)
            for change in changes
        )
    )


VIOLATIONS: dict[str, Callable[[Settled], None]] = {
    r"charged \[2580, 2580\]": lambda shop: shop.pay("k", PaymentKind.CHARGE, "25.80"),
    "k is in the ledger, and unknown": lambda shop: shop.pay("k", PaymentKind.CHARGE, "1.00"),
    "charge is in the ledger, and unknown": lambda shop: shop.change(delete(Payment)),
    "charge is requested": lambda shop: shop.change(
        update(Payment).values(status=PaymentStatus.REQUESTED)
    ),
    "in the ledger None": lambda shop: shop.add(
        Payment(
            key="lost",
            kind=PaymentKind.REFUND,
            order_id=1,
            amount=Decimal(1),
            status=PaymentStatus.PAID,
            next_attempt_at=NOW,
            created_at=NOW,
        )
    ),
    "cancelled: 0 of 2580 cents": lambda shop: shop.change(
        update(Order).values(status=OrderStatus.CANCELLED)
    ),
    "stock of umbrella is 89": lambda shop: shop.change(
        update(Product).where(Product.sku == "umbrella").values(stock=89)
    ),
    "without a parcel": lambda shop: shop.change(delete(Shipment)),
    "does not know of the parcel": lambda shop: shop.change(
        update(Shipment).values(details_sent_at=None)
    ),
    "was not handled": lambda shop: shop.change(update(Order).values(status=OrderStatus.SUBMITTED)),
    "with two texts": lambda shop: shop.deliver("another"),
    "is not in the outbox": lambda shop: shop.deliver("hello", "unknown"),
    "is sent, delivered as None": lambda shop: shop.add(new_message("k", "never arrived")),
    "answered, and delivered": lambda shop: shop.change(
        update(OutboxMessage).values(delivery=Delivery.ANSWERED)
    ),
    "case C-1 due: 2 messages": lambda shop: shop.add(
        *(new_message(f"case/1/{change}/due", "x", flow="cases") for change in (1, 2))
    ),
    "without a timer": lambda shop: shop.add(new_case()),
    "was approved and rejected": lambda shop: claim(
        shop, CaseStatus.REJECTED, "approved", "rejected"
    ),
    r"was rejected, messages to the customer: \[\]": lambda shop: claim(
        shop, CaseStatus.REJECTED, "rejected"
    ),
    r"refund C-1 of 25.80 is approved, paid \[\]": lambda shop: claim(
        shop, CaseStatus.APPROVED, "approved"
    ),
    "is closed, closed in its history: False": lambda shop: claim(shop, CaseStatus.CLOSED),
    "is rejected, closed in its history: True": lambda shop: claim(
        shop, CaseStatus.REJECTED, "closed"
    ),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_every_violation_is_found(shop: Settled, violation: str) -> None:
    VIOLATIONS[violation](shop)
    found = "\n".join(shop.violations())
    assert re.search(violation, found)


def test_a_rejected_claim_with_its_message_is_no_violation(shop: Settled) -> None:
    claim(shop, CaseStatus.REJECTED, "rejected")
    shop.add(new_message("case/1/1/rejected", "no", delivery=Delivery.ANSWERED, flow="cases"))
    assert not shop.violations()


def test_a_decision_must_be_in_the_history_once(shop: Settled) -> None:
    claim(shop, CaseStatus.REJECTED, "rejected", "assigned", "assigned")
    decisions = [("C-1", "rejected"), ("C-1", "assigned"), ("C-2", "closed")]
    assert wrong_decisions(shop.database, decisions) == [
        "case C-1 was assigned 2 times",
        "case C-2 was closed 0 times",
    ]


def test_an_error_that_a_command_did_not_expect_is_a_defect(tmp_path: Path) -> None:
    (tmp_path / "desk.log").write_text(
        "gpt2flow: error: there is no case C-9\ngpt2flow: error: unexpected KeyError: 1\n"
    )
    assert unexpected_errors(tmp_path) == ["desk.log: gpt2flow: error: unexpected KeyError: 1"]


def test_a_wrong_signature_is_a_violation(shop: Settled) -> None:
    httpx.post(shop.receiver.url, content=b"{}", headers={"webhook-id": "1"})
    assert any(each.startswith("webhook: ") for each in shop.violations())


def test_a_request_of_a_killed_sender_is_no_violation(shop: Settled) -> None:
    """A dispatcher can be killed in the middle of a request."""
    with socket.create_connection(("127.0.0.1", httpx.URL(shop.receiver.url).port or 0)) as sender:
        sender.sendall(b"POST /hook HTTP/1.1\r\nContent-Length: 9\r\nwebhook-id: 1\r\n\r\n{")
    eventually(lambda: shop.receiver.truncated == 1)
    assert not shop.violations()


def test_unfinished_work_is_not_settled(shop: Settled) -> None:
    shop.change(update(Order).values(status=OrderStatus.SUBMITTED))
    shop.change(update(Payment).values(status=PaymentStatus.REQUESTED))
    shop.change(update(OutboxMessage).values(delivery=Delivery.PENDING))
    shop.add(new_case(attention_at=NOW))
    found = unsettled_rows(shop)
    assert found == [
        "payment SO-1001/1/charge",
        f"message {KEY}",
        "order SO-1001",
        "timer of C-1",
    ]


def test_rows_are_compared_without_numbers(shop: Settled) -> None:
    assert normal("SO-1001 C-7 NW00000012 case/1/22/due 订单SO-9") == "# # # case/#/due 订单#"
    then = read_facts(shop.database, [ANN])
    assert {"customers", "orders", "order_lines", "payments", "shipments", "outbox"} == set(
        then[ANN.name]
    )
    assert not differences(then, then)
    shop.add(new_message("k", "on its way"))
    [line] = differences(then, read_facts(shop.database, [ANN]))
    assert line.startswith("order-en: outbox: unexpected: ")
    [line] = differences(read_facts(shop.database, [ANN]), then)
    assert line.startswith("order-en: outbox: missing: ")
