"""Settlement of requested payments, with what follows from a refusal."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import open_case
from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows.case_rules import CaseRules, PaymentMessage
from gpt2flow.agent.payments.port import (
    PaymentKind,
    PaymentOutcome,
    PaymentPort,
    PaymentRejectedError,
    PaymentRequest,
    PaymentResult,
    PaymentUnknownError,
)
from gpt2flow.agent.report import Timer
from gpt2flow.agent.shop import (
    Case,
    CaseKind,
    CaseStatus,
    Customer,
    Database,
    Order,
    OrderStatus,
    OutboxMessage,
    Product,
    Shipment,
)
from gpt2flow.agent.shop.tables.orders import order_id
from gpt2flow.agent.shop.tables.payments import Payment, PaymentStatus, payments_of
from gpt2flow.agent.telemetry.spans import Attributes, Tracer, current_span
from gpt2flow.agent.wording import Language, format_money

# Flow that messages about payments are listed under.
_FLOW = "payments"
_FIRST_RETRY_SECONDS = 2.0
_MAX_RETRY_SECONDS = 600.0
# Attempts until a person has to find out: some two hours.
_MAX_ATTEMPTS = 20


class OrderPayment(StrEnum):
    """Whether an order may be handled further."""

    PAID = "paid"
    WAITING = "waiting"
    VOID = "void"


@dataclass(frozen=True)
class Settlement:
    """Result of an attempt at a payment.

    Attributes:
        status: Status after the attempt.
        timers: Timers of cases that it opened.
    """

    status: PaymentStatus
    timers: tuple[Timer, ...] = ()


class Payer:
    """Settler of the shop's payments.

    Args:
        port: Payment provider.
        database: Shop database.
        rules: Messages, and how cases are looked after.
        clock: Source of the current time.
        tracer: Source of spans, one an attempt.
    """

    def __init__(
        self,
        port: PaymentPort,
        database: Database,
        rules: CaseRules,
        clock: Clock,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._port = port
        self._database = database
        self._rules = rules
        self._clock = clock
        self._tracer = tracer or Tracer()

    def due(self, charge_after: timedelta = timedelta(0)) -> list[int]:
        """Return the ids of the payments that are due, oldest first.

        Args:
            charge_after: Time for which a charge without an attempt is left to its turn.
        """
        now = self._clock()
        is_free = or_(
            Payment.kind != PaymentKind.CHARGE,
            Payment.attempts > 0,
            Payment.next_attempt_at <= now - charge_after,
        )
        query = select(Payment.id).where(
            Payment.status == PaymentStatus.REQUESTED, Payment.next_attempt_at <= now, is_free
        )
        with self._database.translate_errors(), self._database.transaction() as db:
            return list(db.scalars(query.order_by(Payment.id)))

    def order_payment(self, number: str) -> OrderPayment:
        """Return whether an order is paid."""
        with self._database.translate_errors(), self._database.transaction() as db:
            order = db.get_one(Order, order_id(number))
            charges = [p for p in payments_of(db, order.id) if p.kind is PaymentKind.CHARGE]
            if order.status is OrderStatus.CANCELLED:
                return OrderPayment.VOID
            if all(payment.status is PaymentStatus.PAID for payment in charges):
                return OrderPayment.PAID
            return OrderPayment.WAITING

    def settle(self, payment_id: int) -> Settlement:
        """Make a payment, once, and record its outcome.

        The provider knows the payment by its key. After an attempt without an answer, it is asked
        what became of it before the next one.

        Args:
            payment_id: Id of the payment.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            payment = db.get_one(Payment, payment_id, with_for_update=True)
            if not self._is_due(db, payment):
                return Settlement(payment.status)
            payment.attempts += 1
            # Until then, a second process that finds the payment leaves it alone.
            payment.next_attempt_at = self._clock() + self._port.longest_attempt
            request, attempt = _request(db, payment), payment.attempts
        attributes: Attributes = {
            "gpt2flow.payment": payment_id,
            "gpt2flow.key": request.key,
            "gpt2flow.kind": request.kind.value,
            "gpt2flow.order": request.order,
            "gpt2flow.attempt": attempt,
        }
        with self._tracer.span("payment", attributes, is_call=True) as span:
            settlement = self._attempt(payment_id, request, is_repeated=attempt > 1)
            span.set({"gpt2flow.result": settlement.status.value})
            return settlement

    def _attempt(
        self, payment_id: int, request: PaymentRequest, *, is_repeated: bool
    ) -> Settlement:
        try:
            result = self._port.find(request.key) if is_repeated else None
            result = result or self._port.submit(request)
        except PaymentUnknownError as error:
            return self._postpone(payment_id, str(error))
        except PaymentRejectedError as error:
            result = PaymentResult(request.key, PaymentOutcome.REFUSED, None, str(error))
        return self._finish(payment_id, result)

    def _is_due(self, db: Session, payment: Payment) -> bool:
        """Return whether a payment can be made now.

        Those of an order are made in order.
        """
        is_first = not any(
            other.id < payment.id and other.status is PaymentStatus.REQUESTED
            for other in payments_of(db, payment.order_id)
        )
        is_open = payment.status is PaymentStatus.REQUESTED
        return is_open and is_first and payment.next_attempt_at <= self._clock()

    def _postpone(self, payment_id: int, why: str) -> Settlement:
        """Retry a payment of unknown outcome later, or hand it over."""
        with self._database.translate_errors(), self._database.transaction() as db:
            payment = db.get_one(Payment, payment_id, with_for_update=True)
            if payment.status is not PaymentStatus.REQUESTED:
                return Settlement(payment.status)
            payment.reason = why
            seconds = min(_FIRST_RETRY_SECONDS * 2.0 ** (payment.attempts - 1), _MAX_RETRY_SECONDS)
            payment.next_attempt_at = self._clock() + timedelta(seconds=seconds)
            if payment.attempts < _MAX_ATTEMPTS:
                return Settlement(payment.status)
            payment.status = PaymentStatus.STUCK
            return Settlement(payment.status, self._open_case(db, payment, why))

    def _finish(self, payment_id: int, result: PaymentResult) -> Settlement:
        with self._database.translate_errors(), self._database.transaction() as db:
            payment = db.get_one(Payment, payment_id, with_for_update=True)
            if payment.status is not PaymentStatus.REQUESTED:
                return Settlement(payment.status)
            payment.reference, payment.reason = result.reference, result.reason
            payment.settled_at = self._clock()
            is_charge = payment.kind is PaymentKind.CHARGE
            if result.outcome is PaymentOutcome.PAID:
                payment.status = PaymentStatus.PAID
                # Without a provider, no money has moved yet.
                if not is_charge and result.reference is not None:
                    self._tell(db, payment, "refunded")
                return Settlement(payment.status)
            payment.status = PaymentStatus.REFUSED
            order = db.get_one(Order, payment.order_id, with_for_update=True)
            if is_charge and cancel(db, order):
                self._tell(db, payment, "charge_refused")
                return Settlement(payment.status)
            why = f"{payment.kind} of {order.number} was refused: {result.reason}"
            return Settlement(payment.status, self._open_case(db, payment, why))

    def _open_case(self, db: Session, payment: Payment, why: str) -> tuple[Timer, ...]:
        """Hand a payment that cannot be settled to a person."""
        order = db.get_one(Order, payment.order_id)
        case = Case(
            kind=CaseKind.FAILURE,
            status=CaseStatus.OPEN,
            customer_id=order.customer_id,
            order_id=order.id,
            reason=f"{payment.kind}_{payment.status}",
            amount=payment.amount,
            note=why,
            created_at=self._clock(),
        )
        return tuple(open_case(db, case, self._rules))

    def _tell(self, db: Session, payment: Payment, message: PaymentMessage) -> None:
        order = db.get_one(Order, payment.order_id)
        customer = db.get_one(Customer, order.customer_id)
        language: Language = "zh" if customer.language == "zh" else "en"
        db.add(
            OutboxMessage(
                key=f"payment/{payment.key}",
                customer_id=customer.id,
                contact=customer.contact,
                flow=_FLOW,
                language=language,
                text=self._rules.payments[message][language].format(
                    order=order.number, amount=format_money(payment.amount)
                ),
                trace=current_span() or None,
                created_at=self._clock(),
            )
        )


def cancel(db: Session, order: Order) -> bool:
    """Cancel an order that was not paid, and release its stock.

    Returns:
        Whether the order is cancelled: its parcel had not left.
    """
    shipment = db.get(Shipment, order.id)
    if order.status is OrderStatus.CANCELLED:
        return True
    if order.status is not OrderStatus.SUBMITTED or shipment is not None:
        return False
    for line in order.lines:
        stock = Product.stock + line.quantity
        db.execute(update(Product).where(Product.sku == line.sku).values(stock=stock))
    order.status = OrderStatus.CANCELLED
    return True


def _request(db: Session, payment: Payment) -> PaymentRequest:
    order = db.get_one(Order, payment.order_id)
    return PaymentRequest(
        key=payment.key,
        kind=payment.kind,
        order=order.number,
        account=db.get_one(Customer, order.customer_id).contact,
        amount=payment.amount,
    )
