"""Dispatchers as processes: at the same time, killed, and stopped."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.outbox import AFTER_LEASE, Outbox
from tests.support.postgresql import DATABASES
from tests.support.shop import Clock
from tests.support.waiting import SECONDS, eventually
from tests.support.webhook_receiver import SECRET, HttpAnswer, Received, WebhookReceiver

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.delivery.backoff import Backoff
from gpt2flow.agent.delivery.dispatcher import Dispatcher
from gpt2flow.agent.delivery.queue import OutboxQueue
from gpt2flow.agent.shop import Database, database_url

pytestmark = [
    pytest.mark.process,
    pytest.mark.parametrize("shop_url", DATABASES, indirect=True),
]

CUSTOMERS, MESSAGES = 40, 5


@pytest.fixture
def outbox(shop_url: str) -> Iterator[Outbox]:
    database = Database.open(database_url(shop_url))
    yield Outbox(database, Clock())
    database.close()


@contextmanager
def dispatching(
    shop_url: str, receiver: WebhookReceiver, tmp_path: Path, *options: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run `gpt2flow agent dispatch` as a process."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n", encoding="utf-8")
    target = ["--webhook", receiver.url, "--webhook-secret-file", str(secret)]
    command = [sys.executable, "-m", "gpt2flow.cli", "agent", "dispatch", "--database", shop_url]
    with subprocess.Popen(
        [*command, *target, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def summary(process: "subprocess.Popen[str]") -> dict[str, int]:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    # The log has a line an attempt.
    assert all("delivery" in line for line in err.splitlines())
    figures: dict[str, int] = json.loads(out)
    return figures


def test_two_processes_send_each_message_once_and_in_order(
    shop_url: str, outbox: Outbox, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    for number in range(MESSAGES):
        for customer in range(CUSTOMERS):
            outbox.add(f"{customer}/{number}", contact=f"{customer}@example.com")
    # More at a time than one process sends: the first ones wait until both processes send.
    together, numbers = threading.Barrier(9), itertools.count()

    def answer(_: Received) -> HttpAnswer:
        if next(numbers) < together.parties:
            together.wait(SECONDS)
        return HttpAnswer()

    receiver.answer = answer
    with (
        dispatching(shop_url, receiver, tmp_path, "--once") as first,
        dispatching(shop_url, receiver, tmp_path, "--once") as second,
    ):
        sent = [summary(process)["sent"] for process in (first, second)]
    assert min(sent) > 0
    assert sum(sent) == len(receiver.keys) == len(set(receiver.keys)) == CUSTOMERS * MESSAGES
    assert set(outbox.deliveries().values()) == {"sent"}
    assert receiver.keys_by_contact() == {
        f"{customer}@example.com": [f"{customer}/{number}" for number in range(MESSAGES)]
        for customer in range(CUSTOMERS)
    }
    assert set(receiver.most_at_once.values()) == {1}


async def test_a_process_killed_before_it_records_is_followed_by_one_with_the_same_key(
    shop_url: str, outbox: Outbox, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    outbox.add("a1", "a2")
    with dispatching(shop_url, receiver, tmp_path, "--once") as process:

        def kill(_: Received) -> HttpAnswer:
            # The receiver has the message, and the sender never hears of it.
            os.kill(process.pid, signal.SIGKILL)
            process.wait(SECONDS)
            return HttpAnswer()

        receiver.answer = kill
        assert process.wait(SECONDS) == -signal.SIGKILL
    receiver.answer = lambda _: HttpAnswer()
    routes = outbox.webhook(receiver)
    for later, expected in ((timedelta(), ["a1"]), (timedelta(**AFTER_LEASE), ["a1", "a1", "a2"])):
        clock = Clock(utc_now() + later)
        queue = OutboxQueue(outbox.database, routes, clock, Backoff())
        await Dispatcher(queue).run(once=True)
        assert receiver.keys == expected
    assert outbox.deliveries() == {"a1": "sent", "a2": "sent"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_gets_a_signal_finishes_its_message_and_releases_the_others(
    shop_url: str,
    outbox: Outbox,
    receiver: WebhookReceiver,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    outbox.add("a1", "a2")
    with dispatching(shop_url, receiver, tmp_path) as process:

        def stop(_: Received) -> HttpAnswer:
            process.send_signal(number)
            return HttpAnswer()

        receiver.answer = stop
        assert summary(process) == {
            "revived": 0,
            "sent": 1,
            "failed": 0,
            "dead": 0,
            "pending": 1,
            "pending_without_transport": 0,
        }
    assert outbox.deliveries() == {"a1": "sent", "a2": "pending"}
    assert outbox.row("a2").claimed_until is None


def test_a_process_sends_what_is_written_while_it_runs(
    shop_url: str, outbox: Outbox, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    with dispatching(shop_url, receiver, tmp_path, "--interval", "0.1") as process:
        for key in ("a1", "a2"):
            outbox.add(key)
            eventually(lambda key=key: outbox.deliveries()[key] == "sent")  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        assert summary(process)["sent"] == 2
    assert receiver.keys == ["a1", "a2"]
