"""Metrics of turns and requests."""

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.http_endpoint import RunningEndpoint, Served, new_session
from tests.support.waiting import SECONDS

from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.metrics.registry import serving_metrics
from gpt2flow.agent.net.addresses import ListenError
from gpt2flow.agent.shop import Database, database_url

pytestmark = pytest.mark.process


def test_a_turn_is_counted_with_its_actions_and_model_calls(endpoint: RunningEndpoint) -> None:
    endpoint.post("a kettle and a lamp")
    endpoint.post("hello")
    assert endpoint.count("turns_total", result="handled") == 2
    assert endpoint.count("turn_seconds_count") == 2
    assert endpoint.count("actions_total", action="add_to_cart", result="ok") == 2
    assert endpoint.count("actions_total", action="greet", result="ok") == 1
    # Each answer of the scripted model takes a millisecond, says the model.
    assert endpoint.count("model_call_seconds_count") == 5
    assert endpoint.count("model_call_seconds_sum") == pytest.approx(0.005)


def test_a_repeated_message_is_counted_apart(endpoint: RunningEndpoint) -> None:
    session = new_session()
    for _ in range(3):
        endpoint.post("a kettle", session, id="m1")
    assert endpoint.count("turns_total", result="handled") == 1
    assert endpoint.count("turns_total", result="repeated") == 2
    assert endpoint.count("turn_seconds_count") == 1
    assert endpoint.count("actions_total", action="add_to_cart", result="ok") == 1


def test_failed_turns_are_counted_by_result(endpoint: RunningEndpoint, served: Served) -> None:
    session = new_session()
    endpoint.post("hello", session, id="m1")
    endpoint.post("a kettle", session, id="m1")
    served.model.error = ModelError("down")
    endpoint.post("hello")
    assert endpoint.count("turns_total", result="conflict") == 1
    assert endpoint.count("turns_total", result="model_error") == 1
    assert endpoint.count("turn_seconds_count") == 1


def test_requests_are_counted_by_route_and_status(endpoint: RunningEndpoint) -> None:
    endpoint.post("hello")
    endpoint.send("{")
    endpoint.get("/v1/sessions/a/messages")
    endpoint.get("/v1/sessions/b/messages?after=x")
    endpoint.get("/healthz")
    for path in ("/a", "/b"):
        endpoint.get(path)
    name = "http_requests_total"
    session = "/v1/sessions/{session}/messages"
    assert endpoint.count(name, route="/v1/messages", status="200") == 1
    assert endpoint.count(name, route="/v1/messages", status="400") == 1
    assert endpoint.count(name, route=session, status="200") == 1
    assert endpoint.count(name, route=session, status="422") == 1
    assert endpoint.count(name, route="/healthz", status="200") == 1
    assert endpoint.count(name, route="other", status="404") == 2


def test_the_queue_has_gauges(endpoint: RunningEndpoint) -> None:
    assert endpoint.count("turns_running") == 0
    assert endpoint.count("turns_waiting") == 0


def test_metrics_have_an_address_of_their_own(endpoint: RunningEndpoint) -> None:
    endpoint.post("hello")
    assert endpoint.get("/metrics").status_code == 404
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serving_metrics("127.0.0.1:0", endpoint.metrics.registry) as port:
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as response:
            text = response.read().decode()
        with (
            pytest.raises(ListenError, match=r"cannot listen on 127.0.0.1:\d+ for metrics: Addr"),
            serving_metrics(f"127.0.0.1:{port}", endpoint.metrics.registry),
        ):
            pass
    assert 'gpt2flow_agent_turns_total{result="handled"} 1.0' in text


def test_a_turn_of_a_person_is_counted_apart(
    open_endpoint: Callable[..., Any], served: Served
) -> None:
    session = new_session()
    with open_endpoint() as endpoint:
        endpoint.post("hello", session)
        database = Database(database_url(served.database))
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE sessions SET attended_by = 'ann' WHERE id = '{session}'"  # noqa: S608
            )
        database.close()
        assert endpoint.post("are you there?", session).json()["attended_by"] == "ann"
        assert endpoint.count("turns_total", result="attended") == 1
