"""Process of the gateway: drain, metrics, log, failures, and its imports."""

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.gateway_process import (
    PROMPT,
    RunningGateway,
    answered,
    gateway_process,
    refusal,
)
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import SECONDS, eventually

from gpt2flow.cli.commands.gateway import GatewayOptions
from gpt2flow.gateway.config import GatewayConfig

pytestmark = pytest.mark.process

LONG = {"max_tokens": 490, "ignore_eos": True, "stream": True}
BODY: dict[str, Any] = {"model": "shop", "prompt": PROMPT, **LONG}


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[ServerProcess]:
    folder = tmp_path / "server"
    folder.mkdir()
    with server_process(SHIPPED_BUNDLE, folder, name="shop", step_seconds=0.2) as server:
        yield server


def draining(gateway: RunningGateway) -> bool:
    return gateway.process.events("draining") != []


def test_a_signal_lets_running_streams_end(slow: ServerProcess, tmp_path: Path) -> None:
    with gateway_process(slow.address, tmp_path) as gateway:
        with gateway.client.stream("POST", "/v1/completions", json=BODY) as response:
            lines = response.iter_lines()
            next(lines)
            gateway.process.terminate()
            eventually(lambda: draining(gateway))
            # The port stays open, so that probes and callers get an answer.
            refused = gateway.complete()
            assert refusal(refused)[0] == 503
            assert refused.headers["retry-after"] == "1"
            for path in ("/readyz", "/health"):
                ready = gateway.client.get(path)
                assert (ready.status_code, ready.json()["failing"]) == (503, ["draining"])
            assert gateway.client.get("/healthz").status_code == 200
            slow.hurry()
            *_, last = [line for line in lines if line]
            assert last == "data: [DONE]"
        assert gateway.process.wait() == 0
        assert gateway.process.events("stopped")
        assert not gateway.process.events("requests_abandoned")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_or_the_drain_time_ends_the_streams(
    slow: ServerProcess, tmp_path: Path, number: signal.Signals
) -> None:
    seconds = "0.2" if number is signal.SIGTERM else "600"
    with gateway_process(slow.address, tmp_path, "--drain-seconds", seconds) as gateway:
        with gateway.client.stream("POST", "/v1/completions", json=BODY) as response:
            lines = response.iter_lines()
            next(lines)
            gateway.process.process.send_signal(number)
            eventually(lambda: draining(gateway))
            if number is signal.SIGINT:
                gateway.process.process.send_signal(number)
            *_, last = [line for line in lines if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "unavailable"
        assert gateway.process.wait() == 0
        assert gateway.process.events("requests_abandoned")[0]["requests"] == 1
        eventually(lambda: slow.metric("requests_running") == 0)


def metrics(gateway: RunningGateway) -> str:
    [ready] = gateway.process.events("ready")
    url = f"http://127.0.0.1:{ready['metrics_port']}/metrics"
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        text: str = answer.read().decode()
    return text


def value(text: str, name: str) -> float:
    found = re.search(rf"^gpt2flow_gateway_{re.escape(name)} (.+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_requests_are_counted_by_route_and_status(server: ServerProcess, tmp_path: Path) -> None:
    option = ("--metrics-address", "127.0.0.1:0")
    with gateway_process(server.address, tmp_path, *option) as gateway:
        answered(gateway.complete())
        answered(gateway.chat())
        gateway.complete(stream=True).read()
        gateway.complete(n=0)
        gateway.client.get("/unknown/path")
        eventually(lambda: len(gateway.process.events("request")) == 5)
        text = metrics(gateway)
    completions = 'route="/v1/completions"'
    assert value(text, f'http_requests_total{{{completions},status="200"}}') == 2
    assert value(text, f'http_requests_total{{{completions},status="400"}}') == 1
    assert value(text, 'http_requests_total{route="/v1/chat/completions",status="200"}') == 1
    assert value(text, 'http_requests_total{route="other",status="404"}') == 1
    assert value(text, f"request_seconds_count{{{completions}}}") == 3
    assert value(text, f"first_event_seconds_count{{{completions}}}") == 1
    assert value(text, "requests_running") == 0
    assert "process_resident_memory_bytes" in text


def test_the_log_has_a_line_a_request_without_texts(server: ServerProcess, tmp_path: Path) -> None:
    with gateway_process(server.address, tmp_path) as gateway:
        gateway.client.headers["authorization"] = "Bearer secret-key"
        response = gateway.complete("zebra", stream=True)
        gateway.complete("zebra", temperature="zebra")
        # A line is written after the last byte, which the client need not wait for.
        eventually(lambda: len(gateway.process.events("request")) == 2)
        second, first = sorted(gateway.process.events("request"), key=lambda e: e["streams"])
    log = (tmp_path / "log").read_text()
    assert first["request_id"] == response.headers["x-request-id"]
    assert (first["route"], first["status"], first["streams"]) == ("/v1/completions", 200, True)
    assert (second["status"], second["streams"]) == (400, False)
    assert first["milliseconds"] > 0
    assert "zebra" not in log
    assert "secret-key" not in log


def test_a_defect_is_an_answer_with_an_id(server: ServerProcess, tmp_path: Path) -> None:
    """The process goes on, and the log has the calls alone."""
    program = tmp_path / "defective.py"
    program.write_text(
        "from gpt2flow.gateway.http import endpoints\n"
        "def fail(fields): raise RuntimeError(fields.prompt)\n"
        "endpoints.plan_completion = fail\n"
        "from gpt2flow.cli.main import main\n"
        "main()\n"
    )
    options = ["--address", "127.0.0.1:0", "--server", server.address]
    command = [sys.executable, str(program), "gateway", *options, "--ready-file", "port"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually((tmp_path / "port").exists)
            url = f"http://127.0.0.1:{int((tmp_path / 'port').read_text())}/v1"
            body = {"model": "shop", "prompt": "zebra"}
            with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as client:
                failed = client.post("/completions", json=body)
                assert client.get("/models").status_code == 200
            status, _, code, text = refusal(failed)
            assert (status, code) == (500, "internal_error")
        finally:
            process.terminate()
        _, log = process.communicate(timeout=SECONDS)
    [line] = [
        each for each in map(json.loads, log.splitlines()) if each["event"] == "internal_error"
    ]
    assert line["incident"] in text
    assert "plan_completion" in line["calls"]
    assert "zebra" not in log


def test_garbage_does_not_end_the_gateway(gateway: RunningGateway) -> None:
    import random
    import socket

    bits = random.Random(1)
    port = gateway.client.base_url.port or 0
    starts = [b"", b"POST /v1/completions HTTP/1.1\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01"]

    def send(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
            connection.sendall(starts[number % len(starts)] + bits.randbytes(200))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert answered(gateway.complete())
    assert not gateway.process.events("internal_error")


def test_the_options_are_the_settings() -> None:
    options, config = GatewayOptions(), GatewayConfig()
    names = {"chat_template": "chat_templates", "allowed_host": "allowed_hosts"}
    for name, given in vars(options).items():
        assert (given or ()) == (getattr(config, names.get(name, name)) or ()), name


def test_the_gateway_imports_no_server() -> None:
    heavy = ["gpt2flow.server", "gpt2flow.agent", "onnxruntime", "numpy", "sqlalchemy", "torch"]
    code = (
        f"import sys, gpt2flow.gateway.process; print(*[m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
