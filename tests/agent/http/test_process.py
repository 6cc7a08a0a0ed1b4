"""Process of the endpoint: crashes, signals, the log, and the command line."""

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs
from tests.support.command_line import UNREACHABLE, gpt2flow
from tests.support.http_endpoint import SECRET, HeldModel, error, sign
from tests.support.http_process import endpoint_process
from tests.support.otlp_collector import attributes, otlp_collector
from tests.support.shipped_server import address
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.handling import ObservedTurns
from gpt2flow.agent.http.requests import Message, RequestError
from gpt2flow.agent.http.telemetry.metrics import TurnMetrics
from gpt2flow.agent.shop import CartLine, Database, ExecutedAction, OutboxMessage, database_url
from gpt2flow.cli.agent_options import agent_settings
from gpt2flow.cli.commands.agent.serve import HttpOptions, _server_options

pytestmark = pytest.mark.process
__all__ = ["address"]

TWO = "a kettle and a lamp"


@pytest.fixture
def folder(tmp_path: Path, new_shop: Path) -> Path:
    (tmp_path / "shop.sqlite").write_bytes(new_shop.read_bytes())
    return tmp_path


def rows(folder: Path) -> tuple[list[str], list[tuple[str, int]], list[str]]:
    """Return the actions, cart lines and messages of a shop."""
    database = Database(database_url(str(folder / "shop.sqlite")))
    with database.transaction() as db:
        actions = [row.action for row in db.scalars(select(ExecutedAction))]
        lines = sorted((row.sku, row.quantity) for row in db.scalars(select(CartLine)))
        messages = [row.text for row in db.scalars(select(OutboxMessage))]
    database.close()
    return actions, lines, messages


def until_half_done(folder: Path) -> None:
    """Wait until the first of two actions has been carried out."""
    eventually(lambda: rows(folder)[0] == ["add_to_cart"])


def assert_done_once(folder: Path) -> None:
    actions, lines, messages = rows(folder)
    assert actions == ["add_to_cart"] * 2
    assert lines == [("desk-lamp", 1), ("electric-kettle", 1)]
    assert len(messages) == 2


def test_a_turn_that_is_killed_half_way_ends_once_after_a_restart(folder: Path) -> None:
    hold = folder / "hold"
    hold.touch()
    with ThreadPoolExecutor(1) as threads:
        with endpoint_process(folder) as process:
            post = threads.submit(process.post, TWO, "m1")
            until_half_done(folder)
            process.kill()
            assert isinstance(post.exception(), httpx.TransportError)
        hold.unlink()
        with endpoint_process(folder) as process:
            response = process.post(TWO, "m1")
            assert [each["outcome"] for each in response.json()["actions"]] == ["added", "added"]
            assert_done_once(folder)
            process.terminate()
            assert process.wait() == 0


def test_a_signal_lets_the_running_turn_end(folder: Path) -> None:
    hold = folder / "hold"
    hold.touch()
    with ThreadPoolExecutor(1) as threads, endpoint_process(folder) as process:
        post = threads.submit(process.post, TWO, "m1")
        until_half_done(folder)
        process.terminate()
        eventually(lambda: process.events("draining") != [])
        # The port stays open, so that probes and callers get an answer.
        assert error(process.post("hello", "m2"))[0] == 503
        assert process.client.get("/readyz").status_code == 503
        hold.unlink()
        assert post.result().status_code == 200
        assert process.wait() == 0
    assert_done_once(folder)
    assert len(process.events("stopped")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_or_the_drain_time_ends_the_wait(
    folder: Path, number: signal.Signals
) -> None:
    """The turn goes on in the next process."""
    hold = folder / "hold"
    hold.touch()
    seconds = 0.2 if number is signal.SIGTERM else 600.0
    with ThreadPoolExecutor(1) as threads:
        with endpoint_process(folder, drain_seconds=seconds) as process:
            post = threads.submit(process.post, TWO, "m1")
            until_half_done(folder)
            process.process.send_signal(number)
            eventually(lambda: process.events("draining") != [])
            if seconds > 1:
                process.process.send_signal(number)
            status, _, message = error(post.result())
            assert status == 503
            assert "send the message again with id 'm1'" in message
            assert process.wait() == 0
            assert [event["turns"] for event in process.events("turns_abandoned")] == [1]
        hold.unlink()
        with endpoint_process(folder) as process:
            assert_done_once(folder)
            assert process.post(TWO, "m1").status_code == 200
    assert_done_once(folder)


def test_a_turn_has_one_line_without_texts(folder: Path) -> None:
    with endpoint_process(folder) as process:
        process.post(TWO, "m1")
        process.post("hello", "m1")
        eventually(lambda: len(process.events("turn")) == 2)
        first, second = process.events("turn")
    assert first["level"] == "info"
    assert first["milliseconds"] > 0
    assert {name: first[name] for name in ("session", "message_id", "actions", "result")} == {
        "session": "s",
        "message_id": "m1",
        "actions": ["add_to_cart", "add_to_cart"],
        "result": "handled",
    }
    assert (second["level"], second["result"], second["error"]) == (
        "warning",
        "conflict",
        "MessageIdError",
    )
    log = (folder / "log").read_text()
    assert TWO not in log
    assert "Added" not in log


def command(folder: Path, *options: str) -> tuple[str, ...]:
    """Return the command line that serves the shop of a folder."""
    files = ("--database", str(folder / "shop.sqlite"), "--ready-file", str(folder / "port"))
    return ("gpt2flow.cli", "agent", "serve", "--address", "127.0.0.1:0", *files, *options)


def test_the_shipped_model_answers_signed_messages(folder: Path, address: str) -> None:
    secrets = folder / "secrets"
    secrets.write_text(SECRET)
    options = ["--server", address, "--secret-file", str(secrets), "--metrics-address"]
    with endpoint_process(folder, *command(folder, *options, "127.0.0.1:0")) as process:
        assert process.client.get("/readyz").json() == {"status": "ready", "failing": []}
        body = json.dumps({"session": "s", "text": "two umbrellas please", "channel": "web"})
        headers = {"content-type": "application/json"} | sign(body, SECRET, "m1")
        report = process.client.post("/v1/messages", content=body, headers=headers).json()
        assert report["actions"][0]["used"] == {"product": "umbrellas", "quantity": 2}
        assert error(
            process.client.post(
                "/v1/messages", content=body, headers={"content-type": "application/json"}
            )
        )[:2] == (401, "webhook-id")
        [ready] = process.events("ready")
        url = f"http://127.0.0.1:{ready['metrics_port']}/metrics"
        metrics = httpx.get(url, trust_env=False).text
        assert 'actions_total{action="add_to_cart",result="ok"} 1.0' in metrics
        assert 'gpt2flow_agent_inbox_cases{status="open"} 0.0' in metrics
        process.terminate()
        assert process.wait() == 0
    [turn] = process.events("turn")
    assert (turn["message_id"], turn["channel"], turn["result"]) == ("m1", "web", "handled")


def test_texts_are_logged_and_traced_on_request(folder: Path, address: str) -> None:
    with otlp_collector() as collector:
        traces = ("--otlp-endpoint", collector.endpoint)
        options = command(folder, "--server", address, "--log-messages", *traces)
        with endpoint_process(folder, *options) as process:
            process.post("two umbrellas please", "m1")
            process.terminate()
            assert process.wait() == 0
        [line], [turn] = process.events("turn"), collector.named("turn")
    assert line["text"] == attributes(turn)["gpt2flow.text"] == "two umbrellas please"
    replies = ["Added 2 × umbrella. Your cart is now at 25.80."]
    assert line["replies"] == attributes(turn)["gpt2flow.replies"] == replies


def test_a_server_that_is_away_is_not_ready_and_names_no_address(folder: Path) -> None:
    options = command(folder, "--server", UNREACHABLE, "--patience", "0")
    with endpoint_process(folder, *options) as process:
        assert process.client.get("/readyz").json()["failing"] == ["model"]
        response = process.post("hello", "m1")
        assert error(response)[0] == 503
        assert UNREACHABLE not in response.text


@pytest.mark.parametrize(
    "options, code, message",
    [
        (["--address", "here"], 2, "address is 'here', must be host:port"),
        (["--address", "0.0.0.0:0"], 2, "name the secrets of signed requests with --secret-file"),
        (["--metrics-address", "x"], 2, "metrics_address is 'x', must be host:port"),
        (["--secret-file", "nowhere"], 2, "--secret-file nowhere: No such file or directory"),
        (["--secret-file", "bad"], 2, "--secret-file bad: line 1 is no secret"),
        (["--max-turns", "0"], 2, "max_turns is 0, must be at least 1"),
        (["--max-turns", "many"], 2, "--max-turns"),
        (["--request-timeout", "nan"], 2, "--request-timeout is nan, must be a finite number"),
        (["--log-format", "xml"], 2, "--log-format"),
        (["--database", "mysql://x"], 2, "mysql"),
        (["--timeout", "0"], 2, "timeout is 0.0 s"),
        (["--server", " "], 2, "the server address is empty"),
        (["--ready-file", "nowhere/port"], 2, "--ready-file nowhere/port: No such file"),
        (["--address", "192.0.2.1:0", "--secret-file", "good"], 1, "cannot listen on 192.0.2.1:0"),
        (["--database", "/nowhere/at/all.sqlite"], 1, "/nowhere/at/all"),
    ],
)
def test_a_mistake_is_reported_on_one_line(
    tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    (tmp_path / "bad").write_text("secret\n")
    (tmp_path / "good").write_text(f"{SECRET}\n")
    defaults = ["--address", "127.0.0.1:0", "--server", UNREACHABLE]
    returned, _, err = gpt2flow("agent", "serve", *defaults, *options, cwd=tmp_path)
    last = err.strip().splitlines()[-1]
    assert last.startswith("gpt2flow: error: ")
    assert message in last
    assert "Traceback" not in err
    assert returned == code


@pytest.mark.parametrize("package", ["uvicorn", "standardwebhooks"])
def test_a_missing_package_is_named_with_its_extra(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "sys.argv = ['gpt2flow', 'agent', 'serve']\n"
        "from gpt2flow.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"needs the package {package!r}: pip install 'gpt2flow[service]'" in done.stderr


def test_the_defaults_of_the_command_are_those_of_the_endpoint() -> None:
    options, config = asdict(HttpOptions()), HttpConfig()
    assert {name: getattr(config, name) for name in options} == options
    agent = asdict(_server_options()())
    # A customer who writes through a website cannot try again.
    assert agent.pop("patience") == 60.0
    agent["address"] = agent.pop("server")
    settings = agent_settings(agent)
    assert {name: getattr(AgentConfig(), name) for name in settings} == settings


def test_a_turn_under_which_the_agent_closes_is_no_defect(path: Path) -> None:
    """Such a turn goes on in the next process."""
    held = threading.Event()
    held.set()
    model = HeldModel(lambda _prompt: held.is_set())
    with (
        ThreadPoolExecutor(1) as threads,
        Agent(AgentConfig(database=str(path)), model=model) as agent,
        capture_logs() as logs,
    ):
        observed = ObservedTurns(agent, TurnMetrics(), log_messages=False)
        turn = threads.submit(observed.handle, Message("s", "m1", "hello"))
        eventually(lambda: model.waiting == 1)
        observed.stop()
        agent.close()
        held.clear()
        answer = turn.result()
    assert isinstance(answer, RequestError)
    assert answer.status == 503
    [line] = [each for each in logs if each["event"] == "turn"]
    assert (line["result"], line["log_level"]) == ("abandoned", "info")
