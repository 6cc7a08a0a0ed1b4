"""Limits of the endpoint as callers see them."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.http_endpoint import Served, error, new_session
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.http.config import HttpConfig

pytestmark = pytest.mark.process


def test_a_full_queue_is_answered_with_503(
    open_endpoint: Callable[..., Any], served: Served
) -> None:
    served.held.set()
    with (
        ThreadPoolExecutor(2) as threads,
        open_endpoint(max_turns=1, max_queued=1) as endpoint,
    ):
        posts = [threads.submit(endpoint.post, "hello") for _ in range(2)]
        eventually(lambda: len(endpoint.turns) == 2)
        response = endpoint.post("hello")
        assert error(response) == (
            503,
            None,
            "queue full: 1 turns waiting, limit 1; retry in 2 s",
        )
        assert response.headers["retry-after"] == "2"
        served.held.clear()
        assert [post.result().status_code for post in posts] == [200, 200]


def test_a_session_has_a_number_of_requests_a_minute(open_endpoint: Callable[..., Any]) -> None:
    session = new_session()
    with open_endpoint(max_per_minute=2) as endpoint:
        assert [endpoint.post("hello", session).status_code for _ in range(2)] == [200, 200]
        response = endpoint.post("hello", session)
        assert error(response)[:2] == (429, "session")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        # Reading has a limit of its own, so that it takes none from the messages.
        target = f"/v1/sessions/{session}/messages"
        assert [endpoint.get(target).status_code for _ in range(3)] == [200, 200, 429]
        assert endpoint.post("hello").status_code == 200


def test_the_body_has_the_configured_limit(open_endpoint: Callable[..., Any]) -> None:
    with open_endpoint(max_body_bytes=60) as endpoint:
        assert endpoint.send(b" " * 60).status_code == 400
        assert error(endpoint.send(b" " * 61)) == (
            413,
            "body",
            "has more than 60 bytes, the limit",
        )


def test_a_body_that_does_not_arrive_is_given_up(open_endpoint: Callable[..., Any]) -> None:
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with (
        open_endpoint(body_seconds=0.1) as endpoint,
        socket.create_connection(("127.0.0.1", endpoint.port), SECONDS) as connection,
    ):
        connection.sendall(head + b"content-length: 100\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.1 s" in answer


def test_connections_are_limited(open_endpoint: Callable[..., Any]) -> None:
    with open_endpoint(max_connections=2) as endpoint:
        address = ("127.0.0.1", endpoint.port)
        with socket.create_connection(address), socket.create_connection(address):
            eventually(lambda: endpoint.client.get("/healthz").status_code == 503)
        eventually(lambda: endpoint.client.get("/healthz").status_code == 200)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"address": "here"}, "address is 'here', must be host:port with a port from 0 to 65535"),
        ({"address": "a:65536"}, "address is 'a:65536', must be host:port"),
        ({"address": ":80"}, "address is ':80'"),
        ({"metrics_address": "x"}, "metrics_address is 'x'"),
        ({"request_timeout": 0.0}, "request_timeout is 0.0, must be finite and above 0"),
        ({"request_timeout": float("nan")}, "request_timeout is nan"),
        ({"body_seconds": float("inf")}, "body_seconds is inf"),
        ({"heartbeat_seconds": -1.0}, "heartbeat_seconds is -1.0"),
        ({"drain_seconds": -1.0}, "drain_seconds is -1.0, must be finite and not below 0"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0, must be at least 1"),
        ({"max_turns": 0}, "max_turns is 0"),
        ({"max_queued": -1}, "max_queued is -1, must be at least 0"),
        ({"max_per_minute": 0}, "max_per_minute is 0"),
        ({"max_connections": 0}, "max_connections is 0"),
    ],
)
def test_an_invalid_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        HttpConfig(**settings)
    assert str(caught.value).startswith(message)
