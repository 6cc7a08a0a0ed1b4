"""Tests of `gpt2flow agent dispatch`."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import UNREACHABLE, gpt2flow
from tests.support.otlp_collector import otlp_collector
from tests.support.outbox import Outbox
from tests.support.scraping import fetch
from tests.support.shop import Clock
from tests.support.waiting import SECONDS, eventually
from tests.support.webhook_receiver import SECRET

from gpt2flow.agent.shop import Database, database_url
from gpt2flow.cli.main import main

WEBHOOK = ["--webhook", f"http://{UNREACHABLE}", "--webhook-secret-file", "secret"]
SMTP = ["--smtp", "mail.example:587", "--smtp-from", "shop@example.com"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    (tmp_path / "empty").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def outbox(folder: Path) -> Outbox:
    return Outbox(Database.open(database_url(str(folder / "shop.sqlite"))), Clock())


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[object, str, str]:
    """Run the command in this process, which is faster."""
    monkeypatch.setattr(sys, "argv", ["gpt2flow", "agent", "dispatch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to send with: give --webhook, --smtp, --file or --console"),
        (["--console", "--database", ""], "the database is empty"),
        (["--console", "--database", "typo.sqlite"], "typo.sqlite: there is no such file"),
        (["--console", "--database", "mysql://x/y"], "database 'mysql' is not supported"),
        (["--console", "--attempts", "0"], "attempts is 0, must be from 1 to 100"),
        (["--console", "--attempts", "many"], "Invalid value for '--attempts'"),
        (["--console", "--interval", "0"], "interval is 0.0 s, must be from 0.1 to 3600"),
        (["--console", "--interval", "nan"], "--interval is nan, must be a finite number"),
        (["--console", "--dead", "--revive"], "--dead and --revive exclude each other"),
        (["--console", "--file", "x"], "--file takes everything, so that --console gets nothing"),
        (["--file", "nowhere/x"], "--file nowhere/x: No such file or directory"),
        (["--file", "secret"], "--file secret is no file of messages, name another one"),
        (["--webhook", "https://a.example"], "--webhook needs --webhook-secret-file"),
        ([*WEBHOOK, "--console"], "--webhook takes everything, so that --console gets nothing"),
        ([*WEBHOOK, "--webhook", "http://a.example"], "must be https except on this machine"),
        ([*WEBHOOK, "--webhook-secret-file", "nowhere"], "--webhook-secret-file nowhere: No such"),
        ([*WEBHOOK, "--webhook-secret-file", "empty"], "--webhook-secret-file empty: the file is"),
        ([*SMTP, "--webhook-secret-file", "secret"], "--webhook-secret-file needs --webhook"),
        (["--smtp", "mail.example:25"], "--smtp needs --smtp-from"),
        ([*SMTP, "--smtp", "mail.example"], "--smtp is 'mail.example', must be host:port"),
        ([*SMTP, "--smtp-from", "shop"], "--smtp-from: 'shop' is no e-mail address"),
        ([*SMTP, "--staff-address", "all"], "--staff-address: 'all' is no e-mail address"),
        ([*SMTP, "--smtp-user", "shop"], "--smtp-user needs --smtp-password-file"),
        ([*SMTP, "--smtp-password-file", "secret"], "--smtp-password-file needs --smtp-user"),
        ([*SMTP, "--smtp-tls", "ssl"], "Invalid value for '--smtp-tls'"),
        (["--console", "--smtp-tls", "none"], "--smtp-tls needs --smtp"),
        (["--console", "--smtp-from", "a@b.cd"], "--smtp-from needs --smtp"),
        (["--console", "--staff-address", "a@b.cd"], "--staff-address needs --smtp"),
        (
            ["--console", "--metrics-address", "9464"],
            "metrics_address is '9464', must be host:port",
        ),
        (["--console", "--otlp-endpoint", "here"], "otlp_endpoint is 'here', must be http://host"),
        (["--console", "--log-format", "xml"], "Invalid value for '--log-format'"),
        (["--unknown"], "No such option"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_mistake_is_reported_on_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("gpt2flow: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_help_describes_the_command() -> None:
    code, out, err = gpt2flow("agent", "dispatch", "--help")
    assert (code, err) == (0, "")
    for option in ("--webhook", "--smtp-tls", "--staff-address", "--once", "--revive", "--dead"):
        assert option in out


def test_the_console_shows_messages_and_then_a_summary(outbox: Outbox) -> None:
    outbox.add("a1", text="line\x1b[31m one\nline two")
    outbox.add("b1", contact=None)
    code, out, err = gpt2flow(
        *("agent", "dispatch", "--database", str(outbox.database.url.database)),
        *("--console", "--once"),
    )
    assert code == 0
    assert [line.count("result=sent") for line in err.splitlines()] == [1, 1]
    assert "line two" not in err
    *shown, figures = out.splitlines()
    assert sorted(shown) == [
        "line two",
        "→ ann@example.com: line\N{REPLACEMENT CHARACTER}[31m one",
        "→ s: text of b1",
    ]
    assert figures == (
        "0 revived, 2 sent, 0 failed, 0 dead, 0 pending, 0 pending without transport"
    )


def test_json_has_a_message_a_line_and_the_summary_last(
    outbox: Outbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add("a1", text="你好")
    monkeypatch.setenv("GPT2FLOW_DATABASE", "shop.sqlite")
    arguments = ("--console", "--once", "--json", "--log-format", "json")
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert code == 0
    assert json.loads(err)["key"] == "a1"
    message, figures = map(json.loads, out.splitlines())
    assert message["data"]["text"] == "你好"
    assert figures["sent"] == 1


def test_a_failure_is_one_line_without_the_text_and_the_exit_code_stays_0(
    outbox: Outbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add("a1")
    arguments = ("--database", "shop.sqlite", *WEBHOOK, "--once", "--json")
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert (code, json.loads(out)["failed"]) == (0, 1)
    for field in ("result=failed", "key=a1", "attempt=1", "attempts=12", "ConnectError"):
        assert field in err
    assert err.count("\n") == 1
    assert "text of a1" not in err


def test_dead_messages_are_listed_and_revived(
    outbox: Outbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add("a1")
    shop = ("--database", "shop.sqlite")
    assert run(capsys, monkeypatch, *shop, *WEBHOOK, "--once", "--attempts", "1")[0] == 0
    reason = outbox.row("a1").error
    code, out, _ = run(capsys, monkeypatch, *shop, "--dead")
    assert (code, out) == (0, f"a1: 1 attempts, {reason}\n")
    code, out, _ = run(capsys, monkeypatch, *shop, "--dead", "--json")
    assert json.loads(out) == {"key": "a1", "attempts": 1, "error": reason}
    code, out, _ = run(capsys, monkeypatch, *shop, "--revive", "--json")
    assert json.loads(out) == {"revived": 1, "sent": 0, "failed": 0, "dead": 0, "pending": 1}
    assert outbox.deliveries() == {"a1": "pending"}
    code, out, _ = run(capsys, monkeypatch, *shop, "--console", "--once", "--json")
    assert json.loads(out.splitlines()[-1])["sent"] == 1


def test_secrets_can_come_from_the_environment(
    outbox: Outbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add("a1")
    monkeypatch.setenv("GPT2FLOW_WEBHOOK", f"http://{UNREACHABLE}")
    monkeypatch.setenv("GPT2FLOW_WEBHOOK_SECRET", SECRET)
    arguments = ("--database", "shop.sqlite", "--once", "--json")
    code, out, _ = run(capsys, monkeypatch, *arguments)
    assert (code, json.loads(out)["failed"]) == (0, 1)
    monkeypatch.delenv("GPT2FLOW_WEBHOOK")
    # A secret alone asks for nothing.
    code, out, _ = run(capsys, monkeypatch, *arguments, "--console")
    assert code == 0


@pytest.mark.usefixtures("folder")
def test_a_database_that_cannot_be_opened_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The file of the secret is no database.
    code, out, err = run(capsys, monkeypatch, "--console", "--database", "secret")
    assert (code, out) == (1, "")
    assert err.startswith("gpt2flow: error: database secret: ")


@pytest.mark.process
def test_a_dispatcher_serves_metrics_and_exports_traces(outbox: Outbox, folder: Path) -> None:
    outbox.add("a1")
    with otlp_collector() as collector:
        options = ("--log-format", "json", "--otlp-endpoint", collector.endpoint)
        shop = ("--database", "shop.sqlite", "--console", "--interval", "0.1")
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gpt2flow.cli", "agent", "dispatch"),
                    *(*shop, *options, "--metrics-address", "127.0.0.1:0"),
                ],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            eventually(lambda: outbox.deliveries() == {"a1": "sent"} or process.poll() is not None)
            eventually(lambda: len(lines(folder / "log")) == 2)
            ready, delivery = lines(folder / "log")
            series = fetch(ready["metrics_port"]).splitlines()
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
        [span] = collector.named("delivery")
    assert ready["event"] == "ready"
    assert (delivery["event"], delivery["key"], delivery["result"]) == ("delivery", "a1", "sent")
    assert delivery["trace_id"] == span.trace_id.hex()
    sent = 'gpt2flow_agent_delivery_attempts_total{result="sent",transport="console"} 1.0'
    assert sent in series
    assert "gpt2flow_agent_delivery_seconds_count 1.0" in series
    assert "gpt2flow_agent_outbox_oldest_seconds 0.0" in series


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a log."""
    text = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in text if line.endswith("\n")]


@pytest.mark.usefixtures("outbox")
def test_an_address_of_metrics_that_is_taken_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("--database", "shop.sqlite", "--console", "--once")
        code, out, err = run(capsys, monkeypatch, *arguments, "--metrics-address", address)
    assert (code, out) == (1, "")
    assert (
        err == f"gpt2flow: error: cannot listen on {address} for metrics: Address already in use\n"
    )
