"""Choice of the transport for each message."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, null, or_, true

from gpt2flow.agent.delivery.message import Transport
from gpt2flow.agent.shop import Audience, OutboxMessage


@dataclass(frozen=True)
class Route:
    """Transport, and the condition of the messages that it takes.

    Attributes:
        condition: Condition on a row of the outbox. In SQL, so that claiming passes over messages
            without a transport, however many there are.
    """

    transport: Transport
    condition: ColumnElement[bool]


def mail_route(transport: Transport, *, has_staff_address: bool) -> Route:
    """Return the route of e-mail contacts.

    Args:
        transport: Transport that sends mails.
        has_staff_address: Whether it also takes messages to the staff that have no contact.
    """
    takes = OutboxMessage.contact.contains("@")
    if has_staff_address:
        is_staff = OutboxMessage.audience == Audience.STAFF
        takes = or_(takes, and_(OutboxMessage.contact.is_(None), is_staff))
    return Route(transport, takes)


def remaining_route(transport: Transport) -> Route:
    """Return the route of all messages that no earlier route takes."""
    return Route(transport, true())


def route_number(routes: Sequence[Route]) -> ColumnElement[Any]:
    """Return the SQL expression of a row's route, or null."""
    whens = [(route.condition, number) for number, route in enumerate(routes)]
    return case(*whens, else_=null()) if whens else null()


def recipient() -> list[ColumnElement[Any]]:
    """Return the SQL expressions that are equal for messages to one recipient.

    A recipient is a contact, else the session of a customer, else the staff.
    """
    session = case(
        (
            and_(
                OutboxMessage.contact.is_(None),
                OutboxMessage.audience == Audience.CUSTOMER,
            ),
            OutboxMessage.session_id,
        ),
        else_=null(),
    )
    return [OutboxMessage.audience.expression, OutboxMessage.contact.expression, session]
