"""Messages over HTTP: reports, refusals, and idempotency."""

import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select
from tests.support.http_endpoint import RunningEndpoint, Served, error, new_session
from tests.support.waiting import eventually

from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import (
    Database,
    ExecutedAction,
    OutboxMessage,
    ReceivedMessage,
    database_url,
)

pytestmark = pytest.mark.process


def actions(served: Served, session: str) -> list[str]:
    """Return the names of the executed actions of a session."""
    database = Database(database_url(served.database))
    with database.transaction() as db:
        query = select(ExecutedAction).where(ExecutedAction.session_id == session)
        names = [row.action for row in db.scalars(query)]
    database.close()
    return names


def is_known(served: Served, session: str) -> bool:
    """Return whether a message of a session was received."""
    database = Database(database_url(served.database))
    with database.transaction() as db:
        query = select(ReceivedMessage).where(ReceivedMessage.session_id == session)
        found = db.scalars(query).first() is not None
    database.close()
    return found


def sent_to(served: Served, contact: str) -> str:
    """Return the text of the one message to a contact."""
    database = Database(database_url(served.database))
    with database.transaction() as db:
        text = db.scalars(select(OutboxMessage.text).where(OutboxMessage.contact == contact)).one()
    database.close()
    return text


def test_a_message_is_answered_with_the_report_of_its_turn(endpoint: RunningEndpoint) -> None:
    response = endpoint.post(" a\tkettle ", session="s1", id="m1", channel="web")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    report = TurnReport.model_validate_json(response.text)
    assert (report.session, report.message_id, report.message) == ("s1", "m1", "a kettle")
    assert [action.outcome for action in report.actions] == ["added"]
    assert report.messages[0].text.startswith("Added 1 × electric kettle")


def test_no_answer_has_the_text_of_a_message_to_a_contact(
    endpoint: RunningEndpoint, served: Served
) -> None:
    """A page that shows all answers must not show a code."""
    session = new_session()
    message = {"session": session, "text": "i'm Ann, ann@example.com", "id": "m1"}
    report = endpoint.send(json.dumps(message))
    stream = endpoint.send(json.dumps(message), accept="text/event-stream")
    [code] = re.findall(r"\d{6}", sent_to(served, "ann@example.com"))
    for response in (report, stream):
        assert response.status_code == 200
        assert code not in response.text
    messages = [each for action in report.json()["actions"] for each in action["messages"]]
    assert [(each["to"], each["text"]) for each in messages] == [("ann@example.com", None)]


def test_a_message_without_an_id_gets_one(endpoint: RunningEndpoint) -> None:
    session = new_session()
    ids = {endpoint.post("hello", session).json()["message_id"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    "body, refusal",
    [
        (b"", (400, "body", "is not JSON: EOF while parsing")),
        (b"{", (400, "body", "is not JSON: EOF while parsing")),
        (b"[]", (400, "body", "is not a JSON object")),
        (b'"hello"', (400, "body", "is not a JSON object")),
        (b'{"session": "\xff"}', (400, "body", "is not UTF-8")),
        (
            rb'{"session": "x", "text": "\ud800"}',
            (400, "body", "is not JSON: unexpected end of hex"),
        ),
        (b"[" * 50_000, (400, "body", "is not JSON: recursion limit exceeded")),
        ({"text": "hello"}, (422, "session", "is missing")),
        ({"session": "x"}, (422, "text", "is missing")),
        ({"session": 7, "text": "hello"}, (422, "session", "should be a valid string")),
        ({"session": "x", "text": None}, (422, "text", "should be a valid string")),
        ({"session": "x", "text": ["hello"]}, (422, "text", "should be a valid string")),
        (
            {"session": "x", "text": "hello", "sesion": "x"},
            (422, "sesion", "unknown field; allowed: session, text, id, channel"),
        ),
        ({"session": "", "text": "hello"}, (422, "session", "must be 1 to 200 printable")),
        ({"session": "a\nb", "text": "hello"}, (422, "session", "must be 1 to 200 printable")),
        ({"session": "x" * 201, "text": "hello"}, (422, "session", "must be 1 to 200 printable")),
        ({"session": "x", "text": "hello", "id": " "}, (422, "id", "must be 1 to 200 printable")),
        (
            {"session": "x", "text": "hello", "channel": "A b"},
            (422, "channel", "must be 1 to 32 of the characters a-z 0-9 _ -"),
        ),
        ({"session": "x", "text": ""}, (422, "text", "the message is empty")),
        ({"session": "x", "text": "\u200b \n"}, (422, "text", "the message is empty")),
        (
            {"session": "x", "text": "x" * 1001},
            (422, "text", "message too long: 1,001 characters, limit 1,000"),
        ),
        (
            {"session": "x", "text": "hi\x07"},
            (422, "text", "has the control character U+0007 at position 2"),
        ),
        ({"session": "x", "text": "\x00" * 1000}, (422, "text", "control character U+0000")),
        ({"session": "x", "text": "x" * 100_000}, (413, "body", "has more than 65,536 bytes")),
    ],
    ids=[
        *("nothing", "half", "list", "text", "latin-1", "surrogate", "deep", "no session"),
        *("no text", "number", "null", "texts", "unknown", "empty session", "two lines"),
        *("long session", "blank id", "channel", "empty", "blank", "long", "bell", "controls"),
        "100 kB",
    ],
)
def test_a_bad_message_is_refused_with_its_field(
    endpoint: RunningEndpoint,
    served: Served,
    body: bytes | dict[str, Any],
    refusal: tuple[int, str, str],
) -> None:
    calls = len(served.model.prompts)
    sent = body if isinstance(body, bytes) else json.dumps(body)
    status, field, message = error(endpoint.send(sent))
    assert (status, field) == refusal[:2]
    assert refusal[2] in message
    assert len(served.model.prompts) == calls
    assert not is_known(served, "x")


def test_a_body_without_a_length_is_limited_too(endpoint: RunningEndpoint) -> None:
    chunks = iter([b"x" * 40_000] * 3)
    response = endpoint.client.post(
        "/v1/messages", content=chunks, headers={"content-type": "application/json"}
    )
    assert error(response)[:2] == (413, "body")


def test_a_body_of_another_type_is_refused(endpoint: RunningEndpoint) -> None:
    """A browser sends this type to 127.0.0.1 without asking first."""
    body = json.dumps({"session": new_session(), "text": "hello"})
    status, field, message = error(endpoint.send(body, content_type="text/plain"))
    assert (status, field) == (415, "content-type")
    assert message == "is 'text/plain', must be application/json"


def test_an_unsigned_request_under_a_foreign_name_is_refused(endpoint: RunningEndpoint) -> None:
    body = json.dumps({"session": new_session(), "text": "hello"})
    assert error(endpoint.send(body, host="attacker.example"))[:2] == (421, "host")
    assert endpoint.send(body, host="localhost:8080").status_code == 200


def test_another_path_or_method_is_refused(endpoint: RunningEndpoint) -> None:
    assert error(endpoint.get("/v1/message"))[:2] == (404, "path")
    response = endpoint.get("/v1/messages")
    assert error(response)[:2] == (405, "method")
    assert response.headers["allow"] == "POST"


def test_twenty_posts_of_one_id_are_one_turn(endpoint: RunningEndpoint, served: Served) -> None:
    session = new_session()
    with ThreadPoolExecutor(20) as threads:
        responses = list(
            threads.map(lambda _: endpoint.post("a kettle and a lamp", session, id="m1"), range(20))
        )
    assert [response.status_code for response in responses] == [200] * 20
    assert len({json.dumps(response.json()["actions"]) for response in responses}) == 1
    assert actions(served, session) == ["add_to_cart"] * 2
    assert endpoint.count("turn_seconds_count") == 1


def test_an_id_is_not_taken_twice_for_different_texts(endpoint: RunningEndpoint) -> None:
    session = new_session()
    first = endpoint.post("hello", session, id="m1")
    status, field, message = error(endpoint.post("a kettle", session, id="m1"))
    assert (status, field) == (409, "id")
    assert message == "message id 'm1' was already used for another message; use a new id"
    again = endpoint.post("hello", session, id="m1")
    assert again.json()["actions"] == first.json()["actions"]


def test_messages_of_a_session_are_handled_in_order(
    endpoint: RunningEndpoint, served: Served
) -> None:
    """The first waits in the model, and the others behind it."""
    session = new_session()
    served.held.set()
    texts = ["a kettle", "hello", "a kettle and a lamp"]
    with ThreadPoolExecutor(3) as threads:
        posts = []
        for number, text in enumerate(texts, start=1):
            posts.append(threads.submit(endpoint.post, text, session))
            eventually(lambda number=number: len(endpoint.turns) == number)  # type: ignore[misc]
        assert (endpoint.turns.running, endpoint.turns.waiting) == (1, 2)
        served.held.clear()
        assert [post.result().json()["message"] for post in posts] == texts
    assert actions(served, session) == ["add_to_cart", "greet", "add_to_cart", "add_to_cart"]


def test_a_caller_that_leaves_does_not_end_the_turn(
    endpoint: RunningEndpoint, served: Served
) -> None:
    session = new_session()
    served.held.set()
    body = json.dumps({"session": session, "text": "a kettle", "id": "m1"}).encode()
    with socket.create_connection(("127.0.0.1", endpoint.port)) as caller:
        caller.sendall(
            b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        eventually(lambda: endpoint.turns.running == 1)
    served.held.clear()
    eventually(lambda: actions(served, session) == ["add_to_cart"])
    assert endpoint.post("a kettle", session, id="m1").json()["actions"][0]["outcome"] == "added"
    assert actions(served, session) == ["add_to_cart"]


def test_a_late_turn_goes_on(open_endpoint: Callable[..., Any], served: Served) -> None:
    session = new_session()
    with open_endpoint(request_timeout=0.2) as endpoint:
        served.held.set()
        response = endpoint.post("a kettle", session, id="m1")
        assert error(response) == (
            504,
            None,
            "no report within 0.2 s; the turn goes on, ask again with id 'm1'",
        )
        assert response.headers["retry-after"] == "1"
        served.held.clear()
        eventually(lambda: endpoint.post("a kettle", session, id="m1").status_code == 200)
    assert actions(served, session) == ["add_to_cart"]


def test_a_failed_model_is_answered_with_503_and_the_turn_resumes(
    endpoint: RunningEndpoint, served: Served
) -> None:
    session = new_session()
    served.model.error = ModelError("no server answers at 10.0.0.1:50051")
    response = endpoint.post("a kettle", session, id="m1")
    status, field, message = error(response)
    assert (status, field) == (503, None)
    assert message == "the model server failed; send the message again with the same id"
    assert response.headers["retry-after"] == "5"
    served.model.error = None
    assert endpoint.post("a kettle", session, id="m1").status_code == 200
    assert actions(served, session) == ["add_to_cart"]


def test_a_stream_has_comments_until_the_report(
    open_endpoint: Callable[..., Any], served: Served
) -> None:
    session = new_session()
    served.held.set()
    with (
        open_endpoint(heartbeat_seconds=0.05) as endpoint,
        endpoint.client.stream(
            "POST",
            "/v1/messages",
            json={"session": session, "text": "a kettle"},
            headers={"accept": "text/event-stream"},
        ) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert [next(lines) for _ in range(4)] == [": waiting", ""] * 2
        served.held.clear()
        name, data = [line for line in lines if line and not line.startswith(":")]
    assert name == "event: report"
    report = TurnReport.model_validate_json(data.removeprefix("data: "))
    assert report.actions[0].outcome == "added"


def test_a_stream_ends_with_an_error_at_its_deadline(
    open_endpoint: Callable[..., Any], served: Served
) -> None:
    served.held.set()
    body = json.dumps({"session": new_session(), "text": "a kettle", "id": "m1"})
    with open_endpoint(heartbeat_seconds=0.05, request_timeout=0.2) as endpoint:
        lines = endpoint.send(body, accept="text/event-stream").text.splitlines()
    name, data = [line for line in lines if line and not line.startswith(":")]
    assert name == "event: error"
    content = json.loads(data.removeprefix("data: "))
    assert content["status"] == 504
    assert "ask again with id 'm1'" in content["error"]["message"]


def test_a_refused_stream_has_the_status_of_the_refusal(endpoint: RunningEndpoint) -> None:
    response = endpoint.send("{}", accept="text/event-stream")
    assert error(response)[:2] == (422, "session")
