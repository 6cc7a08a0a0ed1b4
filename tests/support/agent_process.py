"""Agent process that answers messages on its standard input.

Runs as `python -m tests.support.agent_process DATABASE SECONDS PAYMENTS COLLECTOR HOLD SHOP TOKEN`.
It reads lines of session, id and text, separated by tabs, and writes a JSON report for each. Its
model follows a script, and takes that many seconds an answer.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.conversations import CHINESE, ENGLISH
from tests.support.project import PROJECT
from tests.support.scripted_model import Script, ScriptedModel
from tests.support.shop import CODE

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig, BrowserConfig
from gpt2flow.agent.errors import AgentError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.telemetry.log import logging_to_stderr
from gpt2flow.agent.turns import recovery

SCRIPT: Script = {
    "i'm Ann, ann@example.com": [Choice("register", {"name": "Ann", "contact": "ann@example.com"})],
    CODE: [Choice("verify", {"code": CODE})],
    "a kettle to 5 Oak Rd": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("check_out", {"address": "5 Oak Rd"}),
    ],
    "a kettle and a lamp": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("add_to_cart", {"product": "lamp"}),
    ],
    "no kettle": [Choice("remove_from_cart", {"product": "kettle"})],
    "yes": ["confirm_order"],
    "my cart": ["view_cart"],
    "cancel": [Choice("cancel_order", {"order": "last"})],
    "hello": ["greet"],
    "order_submitted": ["assign_courier", "send_delivery_details"],
}


class AgentUnderTest:
    """Agent process that a test sends messages to, and kills.

    Args:
        database: Path or URL of the shop database.
        seconds: Latency of one answer of the model.
        payments: URL of the payment service; empty is payment on account.
        collector: URL of the collector of traces; empty exports none.
        shop: URL of the shop on whose screens it works; empty works in the database.
        token: Path of its token there.
    """

    def __init__(
        self,
        database: str,
        seconds: float = 0.0,
        payments: str = "",
        collector: str = "",
        *,
        shop: str = "",
        token: str = "",
    ) -> None:
        module = "tests.support.agent_process"
        self._folder = tempfile.TemporaryDirectory()
        self._hold = Path(self._folder.name, "hold")
        arguments = [database, str(seconds), payments, collector, str(self._hold), shop, token]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if it has not been killed."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self.release()
            self._process.stdin.close()
            self._process.wait()
        self._stdout.close()
        self._folder.cleanup()

    @property
    def _stdout(self) -> Any:
        assert self._process.stdout is not None
        return self._process.stdout

    def send(self, session: str, message_id: str, text: str) -> None:
        """Send a message, without waiting for the report."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{session}\t{message_id}\t{text}\n")
        self._process.stdin.flush()

    def report(self) -> dict[str, Any]:
        """Return the next report, or an object with `error`."""
        report: dict[str, Any] = json.loads(self._stdout.readline())
        return report

    def handle(self, session: str, message_id: str, text: str) -> list[str]:
        """Send a message, and return the outcomes of its actions."""
        self.send(session, message_id, text)
        return [action["outcome"] for action in self.report()["actions"]]

    def hold(self) -> None:
        """Stop each turn after its first action, until `release`."""
        self._hold.touch()

    def release(self) -> None:
        """Let the held turns go on."""
        self._hold.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the process at once."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Answer messages until the input ends."""
    database, seconds, payments, collector, hold, shop, token = sys.argv[1:]
    # A test should not wait for long. A busy machine that stalls loses a turn to another process,
    # which is harmless.
    recovery._HEARTBEAT_SECONDS, recovery._DEAD_SECONDS = 0.5, 3.0
    config = AgentConfig(
        database=database,
        payments=payments,
        otlp_endpoint=collector or None,
        browser=BrowserConfig(shop, Path(token), settle_seconds=3.0) if shop else None,
    )
    script = {**ENGLISH.script, **CHINESE.script, **SCRIPT}
    model = ScriptedModel(script, float(seconds), Path(hold))
    with logging_to_stderr("json"), Agent(config, model=model, codes=lambda: CODE) as agent:
        _write("ready")
        for line in sys.stdin:
            session, message_id, text = line.rstrip("\n").split("\t")
            try:
                _write(agent.handle(session, text, message_id).model_dump_json())
            except AgentError as error:
                _write(json.dumps({"error": str(error)}))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
