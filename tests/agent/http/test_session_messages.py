"""Messages to a session: which, in what order, and for whom."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.http_endpoint import (
    OTHER_SECRET,
    RunningEndpoint,
    Served,
    error,
    new_session,
    sign,
)

from gpt2flow.agent.http.session_messages import PAGE, read_messages
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseKind,
    CaseStatus,
    Database,
    Delivery,
    OutboxMessage,
)

pytestmark = pytest.mark.process

NOW = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)


def add(database: Database, session: str, text: str, **values: Any) -> int:
    """Write a message into the outbox, and return its id."""
    with database.transaction() as db:
        row = OutboxMessage(
            key=f"{session}/{text}",
            session_id=session,
            flow="cases",
            language="en",
            text=text,
            **{"created_at": NOW - timedelta(minutes=1)} | values,
        )
        db.add(row)
        db.flush()
        return row.id


@pytest.fixture
def reader(database: Database) -> Iterator[ShopReader]:
    reader = ShopReader(database.url)
    yield reader
    reader.close()


both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@both
def test_only_messages_to_the_customer_of_the_session_are_read(
    database: Database, reader: ShopReader
) -> None:
    with database.transaction() as db:
        case = Case(kind=CaseKind.HAND_OVER, status=CaseStatus.OPEN, created_at=NOW)
        db.add(case)
        db.flush()
        case_id = case.id
    add(database, "a", "code 123456", contact="ann@example.com")
    add(database, "a", "a case waits", audience=Audience.STAFF)
    add(database, "b", "of another session")
    reply = add(database, "a", "hello", delivery=Delivery.ANSWERED)
    later = add(database, "a", "from a person", case_id=case_id)
    found = read_messages(reader, "a", 0, NOW)
    assert [(each.id, each.text) for each in found.messages] == [
        (reply, "hello"),
        (later, "from a person"),
    ]
    assert [each.in_report for each in found.messages] == [True, False]
    assert [each.case for each in found.messages] == [None, f"C-{case_id}"]
    assert found.messages[0].created_at == NOW - timedelta(minutes=1)
    assert found.after == later
    assert [each.id for each in read_messages(reader, "a", reply, NOW).messages] == [later]
    assert read_messages(reader, "a", later, NOW).model_dump() == {"messages": [], "after": later}


@both
def test_a_message_that_is_committed_late_is_not_lost(
    database: Database, reader: ShopReader
) -> None:
    """PostgreSQL can commit a message after one with a larger id."""
    old = add(database, "a", "old")
    add(database, "a", "recent", created_at=NOW - timedelta(seconds=2))
    assert read_messages(reader, "a", 0, NOW).after == old
    again = read_messages(reader, "a", old, NOW)
    assert [each.text for each in again.messages] == ["recent"]
    assert again.after == old


@both
def test_a_long_conversation_comes_in_pages(database: Database, reader: ShopReader) -> None:
    ids = [add(database, "a", f"message {n}", created_at=NOW) for n in range(PAGE + 1)]
    first = read_messages(reader, "a", 0, NOW)
    assert [each.id for each in first.messages] == ids[:-1]
    second = read_messages(reader, "a", first.after, NOW)
    assert [each.id for each in second.messages] == ids[-1:]


def test_the_reply_of_a_turn_can_be_read_again(endpoint: RunningEndpoint) -> None:
    session = new_session()
    report = endpoint.post("hello", session).json()
    content = endpoint.get(f"/v1/sessions/{session}/messages").json()
    [message] = content["messages"]
    assert message["text"] == report["actions"][0]["messages"][0]["text"]
    assert message["in_report"] is True
    after = message["id"]
    target = f"/v1/sessions/{session}/messages?after={after}"
    assert endpoint.get(target).json() == {"messages": [], "after": after}


def test_an_unknown_session_has_no_messages(endpoint: RunningEndpoint) -> None:
    response = endpoint.get("/v1/sessions/nobody/messages?after=7")
    assert (response.status_code, response.json()) == (200, {"messages": [], "after": 7})


@pytest.mark.parametrize("session", ["a/b", "会话", "a b?c#d", "%2F", "messages"])
def test_a_session_may_have_any_characters(signed: RunningEndpoint, session: str) -> None:
    signed.post("hello", session)
    response = signed.get(f"/v1/sessions/{quote(session, safe='')}/messages?after=0")
    assert len(response.json()["messages"]) == 1


@pytest.mark.parametrize(
    "target, field, message",
    [
        ("/v1/sessions/s/messages?after=-1", "after", "is '-1', must be the id of a message, or"),
        ("/v1/sessions/s/messages?after=", "after", "is ''"),
        ("/v1/sessions/s/messages?after=x", "after", "is 'x'"),
        ("/v1/sessions/s/messages?after=9223372036854775808", "after", "is '9223372036854775808'"),
        (f"/v1/sessions/s/messages?after={'9' * 5000}", "after", "is '999"),
        ("/v1/sessions/s/messages?before=1", "before", "unknown parameter; allowed: after"),
        ("/v1/sessions/%20/messages", "session", "must be 1 to 200 printable characters"),
    ],
)
def test_a_bad_parameter_is_named(
    endpoint: RunningEndpoint, target: str, field: str, message: str
) -> None:
    status, named, text = error(endpoint.get(target))
    assert (status, named) == (422, field)
    assert text.startswith(message)


def test_a_signature_is_bound_to_the_session(signed: RunningEndpoint) -> None:
    """A captured request opens no other session, and is no message."""
    one, two = "/v1/sessions/one/messages?after=0", "/v1/sessions/two/messages?after=0"
    headers = sign(f"GET {one}", signed.secret or "")
    assert signed.client.get(one, headers=headers).status_code == 200
    assert error(signed.client.get(two, headers=headers))[:2] == (401, "webhook-signature")
    assert error(signed.client.get(one))[:2] == (401, "webhook-id")
    foreign = sign(f"GET {one}", OTHER_SECRET)
    assert error(signed.client.get(one, headers=foreign))[:2] == (401, "webhook-signature")
    assert error(signed.send("", **sign("", signed.secret or ""), host="x"))[:2] == (400, "body")


def test_a_database_that_is_gone_is_answered_with_503(
    open_endpoint: Callable[..., Any], served: Served, tmp_path: Path
) -> None:
    whole, served.database = served.database, str(tmp_path / "nowhere" / "shop.sqlite")
    try:
        with open_endpoint() as endpoint:
            response = endpoint.get("/v1/sessions/s/messages")
            assert error(response) == (503, None, "the database failed")
            assert response.headers["retry-after"] == "5"
    finally:
        served.database = whole
