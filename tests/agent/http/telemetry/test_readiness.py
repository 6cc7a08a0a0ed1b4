"""Health and readiness."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.http_endpoint import RunningEndpoint, Served, error
from tests.support.shipped_server import address
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import InputError, ModelError
from gpt2flow.agent.http.telemetry.readiness import ModelCheck, Readiness
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.shop import database_url
from gpt2flow.client import Security

pytestmark = pytest.mark.process
__all__ = ["address"]


def test_a_process_that_works_is_alive_and_ready(signed: RunningEndpoint) -> None:
    for path, content in (
        ("/healthz", {"status": "alive"}),
        ("/readyz", {"status": "ready", "failing": []}),
    ):
        # Probes do not sign.
        response = signed.client.get(path)
        assert (response.status_code, response.json()) == (200, content)


def test_a_model_server_that_is_away_is_not_ready_but_alive(
    endpoint: RunningEndpoint, served: Served
) -> None:
    served.failing.add("model")
    response = endpoint.get("/readyz")
    assert (response.status_code, response.json()) == (
        503,
        {"status": "not ready", "failing": ["model"]},
    )
    assert endpoint.get("/healthz").status_code == 200
    served.failing.clear()
    eventually(lambda: endpoint.get("/readyz").status_code == 200)


def test_a_database_that_is_away_is_not_ready(
    open_endpoint: Callable[..., Any], served: Served, tmp_path: Path
) -> None:
    whole, served.database = served.database, str(tmp_path / "nowhere" / "shop.sqlite")
    try:
        with open_endpoint() as endpoint:
            assert endpoint.get("/readyz").json()["failing"] == ["database"]
    finally:
        served.database = whole


def test_a_file_that_is_no_shop_is_not_ready(tmp_path: Path) -> None:
    reader = ShopReader(database_url(str(tmp_path / "empty.sqlite")))
    with pytest.raises(Exception, match="no such table"):
        reader.check()
    reader.close()


async def test_probes_do_not_become_load() -> None:
    calls: list[str] = []
    readiness = Readiness({"database": lambda: calls.append("database")})
    await asyncio.gather(*(readiness.failing() for _ in range(50)))
    assert calls == ["database"]


def test_a_draining_endpoint_refuses_messages_and_is_not_ready(
    endpoint: RunningEndpoint, served: Served
) -> None:
    served.held.set()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(endpoint.post, "hello")
        eventually(lambda: endpoint.turns.running == 1)
        drained = endpoint.drain()
        eventually(lambda: endpoint.turns.is_closed)
        response = endpoint.post("a kettle")
        assert error(response) == (503, None, "the process is stopping; send the request again")
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"
        assert endpoint.get("/readyz").json() == {"status": "not ready", "failing": ["draining"]}
        assert endpoint.get("/healthz").status_code == 200
        assert not drained.done()
        served.held.clear()
        assert running.result().status_code == 200
        drained.result(SECONDS)


def test_a_served_model_is_found(address: str) -> None:
    check = ModelCheck(AgentConfig(address=address))
    check()
    check.close()
    missing = ModelCheck(AgentConfig(address=address, model="other"))
    with pytest.raises(ModelError, match="other"):
        missing()
    missing.close()


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        check = ModelCheck(AgentConfig(address=f"127.0.0.1:{free.getsockname()[1]}"))
        with pytest.raises(ModelError, match="no server answers"):
            check()
        check.close()
    in_plain_text = Security(token="x")  # noqa: S106 - any token
    with pytest.raises(InputError, match="TLS"):
        ModelCheck(AgentConfig(address="shop.example:1", security=in_plain_text))
