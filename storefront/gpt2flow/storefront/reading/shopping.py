"""Customer of a session, with cart, checkout, code and conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.inbox import Said, read_conversation
from gpt2flow.agent.cases.messages import sent_codes
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import (
    CartLine,
    Checkout,
    Customer,
    CustomerSession,
    Product,
    Verification,
)
from gpt2flow.agent.wording import Language
from gpt2flow.storefront.reading.catalogue import Ware, ware

# Latest messages that a chat box has.
_SHOWN: Final = 50


@dataclass(frozen=True)
class Shopper:
    """Customer of a session, as far as the shop knows them.

    Attributes:
        customer_id: Id of the logged-in customer; None if nobody is.
        name: Name of the customer; empty if unknown.
        contact: Contact of the customer; empty if unknown.
        address: Last address of delivery; empty without one.
        is_verifying: Whether a code was sent and has not come back yet.
        cart_size: Number of items in the cart.
    """

    customer_id: int | None = None
    name: str = ""
    contact: str = ""
    address: str = ""
    is_verifying: bool = False
    cart_size: int = 0

    @property
    def is_member(self) -> bool:
        """Whether a customer is logged in."""
        return self.customer_id is not None


@dataclass(frozen=True)
class Line:
    """Products of one kind in a cart, a summary or an order.

    Attributes:
        product: Product.
        quantity: Number of items.
        price: Price of one, as it was agreed.
    """

    product: Ware
    quantity: int
    price: Decimal

    @property
    def sum(self) -> Decimal:
        """Price of all."""
        return self.price * self.quantity


@dataclass(frozen=True)
class Summary:
    """Order that waits for the customer's yes.

    Attributes:
        lines: Products.
        address: Address of delivery.
    """

    lines: Sequence[Line]
    address: str


@dataclass(frozen=True)
class SentCode:
    """Code that was sent to a contact.

    Attributes:
        contact: Contact that got it.
        name: Name for a new account; empty for a login.
        sent_at: Time of sending.
        expires_at: End of its lifetime.
        attempts: Wrong codes so far.
        most_attempts: Wrong codes after which the code is void.
    """

    contact: str
    name: str
    sent_at: datetime
    expires_at: datetime
    attempts: int
    most_attempts: int


def find_shopper(db: Session, session_id: str | None) -> Shopper:
    """Return the customer of a session."""
    session = None if session_id is None else db.get(CustomerSession, session_id)
    if session is None:
        return Shopper()
    customer = db.get(Customer, session.customer_id) if session.customer_id else None
    items = select(func.sum(CartLine.quantity)).where(CartLine.session_id == session.id)
    return Shopper(
        customer_id=session.customer_id,
        name=customer.name if customer else "",
        contact=customer.contact if customer else "",
        address=(customer.address or "") if customer else "",
        is_verifying=customer is None and db.get(Verification, session.id) is not None,
        cart_size=db.scalar(items) or 0,
    )


def read_cart(db: Session, session_id: str | None, language: Language) -> list[Line]:
    """Return the lines of a session's cart."""
    rows = db.execute(
        select(Product, CartLine.quantity)
        .join(CartLine, CartLine.sku == Product.sku)
        .where(CartLine.session_id == (session_id or ""))
        .order_by(Product.sku)
    )
    return [Line(ware(product, language), quantity, product.price) for product, quantity in rows]


def read_summary(db: Session, session_id: str | None, language: Language) -> Summary | None:
    """Return the order summary of a session, with its prices."""
    checkout = None if session_id is None else db.get(Checkout, session_id)
    if checkout is None:
        return None
    lines = [
        Line(ware(db.get_one(Product, sku), language), int(quantity), Decimal(price))
        for sku, quantity, price in checkout.lines
    ]
    return Summary(lines, checkout.address)


def read_sent_code(db: Session, session_id: str | None, book: FlowBook) -> SentCode | None:
    """Return the code that a session waits for."""
    pending = None if session_id is None else db.get(Verification, session_id)
    if pending is None:
        return None
    flow = book.flow_of["verify"]
    return SentCode(
        contact=pending.contact,
        name=pending.name or "",
        sent_at=pending.expires_at - timedelta(minutes=int(flow.policies["code_minutes"])),
        expires_at=pending.expires_at,
        attempts=pending.attempts,
        most_attempts=int(flow.policies["code_attempts"]),
    )


def total(lines: Sequence[Line]) -> Decimal:
    """Return the price of some lines."""
    return sum((line.sum for line in lines), start=Decimal(0))


def read_chat(db: Session, session_id: str | None, book: FlowBook) -> list[Said]:
    """Return the latest messages of a conversation, oldest first.

    What went to a contact is left out: whoever chats need not be its owner. Codes are hidden,
    because an operator may read along.

    Args:
        db: Session on the shop.
        session_id: Id of the conversation; None has no messages.
        book: Loaded flows.
    """
    if session_id is None:
        return []
    said, _ = read_conversation(db, session_id, sent_codes(db, session_id, book), _SHOWN)
    return [each for each in said if each.to is None]
