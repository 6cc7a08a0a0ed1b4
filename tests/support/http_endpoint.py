"""HTTP endpoint of the agent, in a thread of this process."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook
from tests.support.scripted_model import OneReading, Script, ScriptedModel
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import Clock, utc_now
from gpt2flow.agent.errors import AgentError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.endpoint import Endpoint
from gpt2flow.agent.http.handling import ObservedTurns
from gpt2flow.agent.http.routes import Services
from gpt2flow.agent.http.signatures import SignatureVerifier
from gpt2flow.agent.http.telemetry.metrics import TurnMetrics
from gpt2flow.agent.http.telemetry.readiness import Readiness
from gpt2flow.agent.http.turn_queue import TurnQueue
from gpt2flow.agent.metrics.gauges import DatabaseGauges
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.net.addresses import bind
from gpt2flow.agent.shop import database_url
from gpt2flow.agent.turns.model import ModelAnswer

SECRET = "whsec_" + "YWJj" * 10
OTHER_SECRET = "whsec_" + "eHl6" * 10
SCRIPT: Script = {
    "hello": ["greet"],
    "a kettle": [Choice("add_to_cart", {"product": "kettle"})],
    "a kettle and a lamp": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("add_to_cart", {"product": "lamp"}),
    ],
    "a person please": ["escalate"],
    "i'm Ann, ann@example.com": [Choice("register", {"name": "Ann", "contact": "ann@example.com"})],
}
_NUMBERS = itertools.count()


class HeldModel(OneReading):
    """Scripted model whose answers wait while a condition holds.

    Args:
        is_held: Function of the prompt.

    Attributes:
        error: Error of each call; None lets the calls succeed.
        waiting: Number of calls that wait.
    """

    def __init__(self, is_held: Callable[[str], bool]) -> None:
        self._model = ScriptedModel(SCRIPT)
        self._is_held = is_held
        self.error: Exception | None = None
        self.waiting = 0

    @property
    def prompts(self) -> list[str]:
        return self._model.prompts

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        del session
        self.waiting += 1
        eventually(lambda: not self._is_held(prompt))
        self.waiting -= 1
        if self.error is not None:
            raise self.error
        return self._model.choose(prompt, grammar)


@dataclass
class Served:
    """Agent with what its endpoints share.

    Attributes:
        held: Whether calls of the model wait.
        failing: Names of the readiness checks that fail.
    """

    agent: Agent
    model: HeldModel
    database: str
    held: threading.Event
    clock: Clock = utc_now
    failing: set[str] = field(default_factory=set)

    def check(self, name: str) -> None:
        if name in self.failing:
            raise AgentError(f"{name} fails")


@dataclass(frozen=True)
class RunningEndpoint:
    """Endpoint in a thread.

    Attributes:
        port: Port that it listens on.
        turns: Queue of its turns.
        metrics: Metrics of its turns.
        client: Client of this endpoint.
        secret: Secret to sign with; None does not sign.
        drain: Function that starts the drain.
    """

    port: int
    turns: TurnQueue
    metrics: TurnMetrics
    client: httpx.Client
    secret: str | None
    drain: Callable[[], "Future[None]"]

    def post(self, text: str, session: str | None = None, **more: Any) -> httpx.Response:
        """Send a message; `more` has further fields of it."""
        message = {"session": session or new_session(), "text": text, **more}
        return self.send(json.dumps(message))

    def send(self, body: str | bytes, **headers: str) -> httpx.Response:
        """Send a body as it is; `_` in a header becomes `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if isinstance(body, str) else body.decode(errors="replace")
        signed = {} if self.secret is None else sign(text, self.secret)
        sent = {"content-type": "application/json"} | signed | named
        return self.client.post("/v1/messages", content=body, headers=sent)

    def get(self, target: str) -> httpx.Response:
        """Send a GET request."""
        signed = {} if self.secret is None else sign(f"GET {target}", self.secret)
        return self.client.get(target, headers=signed)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric."""
        value = self.metrics.registry.get_sample_value(f"gpt2flow_agent_{name}", labels)
        return value or 0.0


def new_session() -> str:
    """Return a session that no other test uses."""
    return f"session-{next(_NUMBERS)}"


def sign(
    content: str, secret: str, message_id: str | None = None, seconds_ago: float = 0.0
) -> dict[str, str]:
    """Return the headers that sign a request."""
    message_id = message_id or f"msg-{next(_NUMBERS)}"
    sent_at = datetime.fromtimestamp(time.time() - seconds_ago, UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, sent_at, content),
    }


def error(response: httpx.Response) -> tuple[int, str | None, str]:
    """Return status, field and message of a refusal."""
    content = response.json()["error"]
    assert set(content) == {"field", "message"}
    return response.status_code, content["field"], content["message"]


@contextmanager
def running_endpoint(
    served: Served, config: HttpConfig, secret: str | None = None
) -> Iterator[RunningEndpoint]:
    """Run an endpoint until the block ends.

    Args:
        served: Agent of the endpoint.
        config: Settings; the address is replaced.
        secret: Secret that the client signs with.
    """
    verifier = None if config.secret_file is None else SignatureVerifier(config.secret_file)
    reader = ShopReader(database_url(served.database))
    metrics = TurnMetrics()
    metrics.registry.register(DatabaseGauges(reader, served.clock))
    observed = ObservedTurns(served.agent, metrics, log_messages=config.log_messages)
    started: Future[tuple[int, TurnQueue, Endpoint, asyncio.Event]] = Future()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        turns = TurnQueue(observed.handle, max_turns=config.max_turns, max_queued=config.max_queued)
        checks = {
            "database": reader.check,
            "model": lambda: served.check("model"),
        }
        services = Services(verifier, turns, reader, Readiness(checks), metrics, served.clock)
        endpoint, end = Endpoint(config, services), asyncio.Event()
        with bind("127.0.0.1:0", "address") as bound:
            started.set_result((await endpoint.start(bound), turns, endpoint, end))
            await end.wait()
            await endpoint.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    port, turns, endpoint, end = started.result(SECONDS)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False)

    def drain() -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(endpoint.drain(asyncio.Event()), loop)

    try:
        with client:
            yield RunningEndpoint(port, turns, metrics, client, secret, drain)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(SECONDS)
        loop.close()
        reader.close()
