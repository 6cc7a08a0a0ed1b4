"""Clients that leave, servers that die, and what stays of them."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.gateway_process import (
    PROMPT,
    RunningGateway,
    answered,
    events,
    gateway_process,
    refusal,
)
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.process

# At this pace, a generation of this length takes far longer than any test may.
STEP_SECONDS = 0.2
LONG = {"max_tokens": 490, "ignore_eos": True}


@contextmanager
def slow_server(folder: Path) -> Iterator[ServerProcess]:
    """Run a server whose steps are slow."""
    with server_process(SHIPPED_BUNDLE, folder, name="shop", step_seconds=STEP_SECONDS) as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Server whose steps are slow."""
    with slow_server(tmp_path_factory.mktemp("slow")) as server:
        yield server


@pytest.fixture(scope="module")
def front(
    slow: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """Gateway in front of the slow server."""
    with gateway_process(slow.address, tmp_path_factory.mktemp("front")) as gateway:
        yield gateway


def codes(server: ServerProcess, request_id: str) -> list[str]:
    """Return the codes of the calls that were logged under an id."""
    return [each["code"] for each in server.events("rpc") if each["request_id"] == request_id]


def assert_cancelled(front: RunningGateway, slow: ServerProcess, name: str, calls: int = 1) -> None:
    eventually(lambda: codes(slow, name) == ["CANCELLED"] * calls)
    eventually(lambda: slow.metric("requests_running") == 0)
    eventually(lambda: [e["status"] for e in requests(front, name)] != [])


def requests(front: RunningGateway, name: str) -> list[dict[str, Any]]:
    return [each for each in front.process.events("request") if each["request_id"] == name]


@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT, "Hello", "Bye"]])
def test_a_stream_that_nobody_reads_frees_its_slots(
    front: RunningGateway, slow: ServerProcess, prompt: Any
) -> None:
    body = {"model": "shop", "prompt": prompt, "stream": True, **LONG}
    headers = {"x-request-id": f"stream-{len(prompt)}"}
    with front.client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
        next(response.iter_bytes())
        assert slow.metric("requests_running") >= 1
    calls = len(prompt) if isinstance(prompt, list) else 1
    assert_cancelled(front, slow, f"stream-{len(prompt)}", calls)


def test_an_answer_that_nobody_awaits_frees_its_slots(
    front: RunningGateway, slow: ServerProcess
) -> None:
    body = {"model": "shop", "prompt": PROMPT, "n": 3, **LONG}
    headers = {"x-request-id": "answer"}
    # A client without patience closes the connection.
    with pytest.raises(httpx.ReadTimeout):
        front.client.post("/v1/completions", json=body, headers=headers, timeout=1.0)
    assert_cancelled(front, slow, "answer")
    [line] = requests(front, "answer")
    assert line["status"] == 499


def test_a_client_that_leaves_before_the_first_event_frees_its_slots(
    front: RunningGateway, slow: ServerProcess
) -> None:
    """Beams stream nothing until their end."""
    body = {"model": "shop", "prompt": PROMPT, "stream": True, "num_beams": 4, **LONG}
    headers = {"x-request-id": "beams"}
    with pytest.raises(httpx.ReadTimeout):
        front.client.post("/v1/completions", json=body, headers=headers, timeout=1.0)
    assert_cancelled(front, slow, "beams")


def test_many_clients_that_leave_leave_nothing(front: RunningGateway, slow: ServerProcess) -> None:
    async def leave(client: httpx.AsyncClient, number: int) -> None:
        body = {"model": "shop", "prompt": PROMPT, "stream": number % 2 == 0, **LONG}
        try:
            async with asyncio.timeout(0.02 * number):
                await client.post("/v1/completions", json=body)
        except (TimeoutError, httpx.TransportError):
            pass

    async def leave_all() -> None:
        url = str(front.client.base_url)
        async with (
            httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(60):
                group.create_task(leave(client, number))

    asyncio.run(leave_all())
    eventually(lambda: slow.metric("requests_running") == 0)
    eventually(lambda: slow.metric("requests_waiting") == 0)
    assert answered(front.complete(max_tokens=1))


def test_a_full_queue_is_a_rate_limit(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    limits = ("--max-sequences", "1", "--max-queued", "1", "--threads", "1")
    settings: dict[str, Any] = {"limits": limits, "step_seconds": STEP_SECONDS}
    server = server_process(SHIPPED_BUNDLE, folder, name="shop", **settings)
    with (
        server as narrow,
        gateway_process(narrow.address, tmp_path) as front,
        ThreadPoolExecutor(2) as threads,
    ):
        held = [threads.submit(front.complete, max_tokens=100, ignore_eos=True)]
        eventually(lambda: narrow.metric("requests_running") == 1)
        held.append(threads.submit(front.complete, max_tokens=1))
        eventually(lambda: narrow.metric("requests_waiting") == 1)
        for stream in (False, True):
            response = front.complete(stream=stream)
            status, _, code, _ = refusal(response)
            assert (status, code) == (429, "rate_limit_exceeded")
            assert int(response.headers["retry-after"]) >= 1
            assert int(response.headers["retry-after-ms"]) > 0
        narrow.hurry()
        assert all(answered(each.result()) for each in held)


def test_a_server_that_dies_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with slow_server(folder) as slow, gateway_process(slow.address, tmp_path) as front:
        check_death(front, slow)


def check_death(front: RunningGateway, slow: ServerProcess) -> None:
    body = {"model": "shop", "prompt": PROMPT, "stream": True, **LONG}
    with front.client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        slow.process.kill()
        *_, last = [line for line in lines if line]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "unavailable")
    status, _, code, _ = refusal(front.complete())
    assert (status, code) == (503, "unavailable")
    ready = front.client.get("/readyz")
    assert (ready.status_code, ready.json()["failing"]) == (503, ["server"])
    assert front.client.get("/healthz").status_code == 200


def test_a_gateway_outlives_its_server(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with server_process(SHIPPED_BUNDLE, tmp_path / "first", name="shop") as server:
        port = server.port
        with gateway_process(server.address, tmp_path) as front:
            before = answered(front.complete())
            server.stop()
            response = front.complete()
            assert refusal(response)[0] == 503
            assert response.headers["retry-after"] == "1"
            address = ("--address", f"127.0.0.1:{port}")
            with server_process(SHIPPED_BUNDLE, tmp_path / "second", *address, name="shop"):
                eventually(lambda: front.client.get("/readyz").status_code == 200)
                after = answered(front.complete())
                assert after["choices"] == before["choices"]


def test_a_deadline_is_an_error_before_the_stream_and_within_it(
    slow: ServerProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "impatient"
    folder.mkdir()
    with gateway_process(slow.address, folder, "--request-timeout", "2") as front:
        response = front.complete(**LONG)
        status, _, code, _ = refusal(response)
        assert (status, code) == (504, "timeout")
        # The client of OpenAI would ask again otherwise.
        assert response.headers["x-should-retry"] == "false"
        streamed = front.complete(stream=True, **LONG)
        assert streamed.status_code == 200
        assert '"code":"timeout"' in streamed.text.replace(": ", ":")
        assert "[DONE]" not in streamed.text


def test_a_partial_answer_is_kept_on_request(front: RunningGateway) -> None:
    fields = {"time_limit_ms": 1500, "return_partial_on_time_limit": True, **LONG}
    [choice] = answered(front.complete(**fields))["choices"]
    assert choice["finish_reason"] == "length"
    assert events(front.complete(stream=True, **fields))
