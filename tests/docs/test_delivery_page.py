"""Examples of docs/delivery.md, run verbatim."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook
from tests.support.command_line import gpt2flow
from tests.support.doc_pages import blocks
from tests.support.outbox import Outbox, outgoing
from tests.support.shop import Clock

from gpt2flow.agent.shop import Database, Delivery, database_url

(RECEIVER,) = blocks("delivery.md", "python")
(BODY,) = blocks("delivery.md", "json")
_, SECRET, *_OTHERS = blocks("delivery.md")


def keys(value: Any) -> Any:
    """Return the keys of nested objects."""
    if not isinstance(value, dict):
        return None
    return {name: keys(inner) for name, inner in value.items()}


def test_the_body_on_the_page_has_the_fields_of_a_message() -> None:
    assert keys(json.loads(BODY)) == keys(outgoing(case_id=7).payload())


def test_the_receiver_verifies_and_takes_each_message_once(tmp_path: Path) -> None:
    subprocess.run(["sh", "-c", SECRET], cwd=tmp_path, check=True)
    secret = tmp_path / "webhook.secret"
    assert secret.stat().st_mode & 0o077 == 0
    started = 'HTTPServer(("127.0.0.1", 8080), Receiver).serve_forever()'
    assert started in RECEIVER
    # A free port, which the receiver prints.
    code = RECEIVER.replace(
        started,
        'server = HTTPServer(("127.0.0.1", 0), Receiver)\n'
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()",
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as receiver:
        try:
            assert receiver.stdout is not None
            url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
            outbox = Outbox(Database.open(database_url(str(tmp_path / "shop.sqlite"))), Clock())
            outbox.add("a1", text="hello")
            dispatch = [
                *("agent", "dispatch", "--once", "--database", str(tmp_path / "shop.sqlite")),
                *("--webhook", url, "--webhook-secret-file", str(secret)),
            ]
            assert gpt2flow(*dispatch)[0] == 0
            assert outbox.deliveries() == {"a1": "sent"}
            outbox.change("a1", delivery=Delivery.PENDING)
            assert gpt2flow(*dispatch)[0] == 0
            assert outbox.deliveries() == {"a1": "sent"}
            assert httpx.post(url, content="{}").status_code == 401
            now = datetime.now(UTC)
            forged = {
                "webhook-id": "a2",
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(b"x" * 32).sign("a2", now, "{}"),
            }
            assert httpx.post(url, content="{}", headers=forged).status_code == 401
        finally:
            receiver.kill()
        assert receiver.stdout.read() == "ann@example.com hello\n"
