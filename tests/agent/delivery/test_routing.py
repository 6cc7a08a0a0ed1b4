"""Choice of the transport for each message."""

import pytest
from sqlalchemy import select
from tests.support.outbox import Outbox

from gpt2flow.agent.delivery.local import ConsoleTransport
from gpt2flow.agent.delivery.routing import (
    Route,
    mail_route,
    recipient,
    remaining_route,
    route_number,
)
from gpt2flow.agent.shop import Audience, OutboxMessage

MAIL, REST = ConsoleTransport(lambda _: None), ConsoleTransport(lambda _: None)
STAFF = {"audience": Audience.STAFF, "contact": None}


@pytest.fixture
def messages(outbox: Outbox) -> Outbox:
    outbox.add("mail")
    outbox.add("phone", contact="+4915112345678")
    outbox.add("session", contact=None)
    outbox.add("staff", **STAFF)
    outbox.add("staff mail", audience=Audience.STAFF, contact="bob@example.com")
    return outbox


def taken(outbox: Outbox, routes: list[Route]) -> list[int | None]:
    with outbox.database.transaction() as db:
        query = select(route_number(routes)).select_from(OutboxMessage)
        return list(db.scalars(query.order_by(OutboxMessage.id)))


@pytest.mark.parametrize(
    "routes, expected",
    [
        ([mail_route(MAIL, has_staff_address=True)], [0, None, None, 0, 0]),
        ([mail_route(MAIL, has_staff_address=False)], [0, None, None, None, 0]),
        ([mail_route(MAIL, has_staff_address=True), remaining_route(REST)], [0, 1, 1, 0, 0]),
        ([mail_route(MAIL, has_staff_address=False), remaining_route(REST)], [0, 1, 1, 1, 0]),
        ([remaining_route(REST)], [0, 0, 0, 0, 0]),
        ([], [None] * 5),
    ],
)
def test_mails_go_first_and_the_rest_takes_the_others(
    messages: Outbox, routes: list[Route], expected: list[int | None]
) -> None:
    assert taken(messages, routes) == expected


def test_a_recipient_is_a_contact_else_a_session_else_the_staff(messages: Outbox) -> None:
    messages.add("same contact", session_id="another")
    messages.add("another session", contact=None, session_id="another")
    messages.add("no session", contact=None, session_id=None)
    messages.add("staff of another session", session_id="another", **STAFF)
    with messages.database.transaction() as db:
        rows = db.execute(select(OutboxMessage.key, *recipient()).order_by(OutboxMessage.id))
        groups: dict[tuple[object, ...], list[str]] = {}
        for key, *parts in rows:
            groups.setdefault(tuple(parts), []).append(key)
    assert list(groups.values()) == [
        ["mail", "same contact"],
        ["phone"],
        ["session"],
        ["staff", "staff of another session"],
        ["staff mail"],
        ["another session"],
        ["no session"],
    ]
