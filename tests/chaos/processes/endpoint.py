"""Keeper of an endpoint, whose messages go over HTTP."""

import json
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
from tests.chaos.processes.commands import run_endpoint, secrets_file
from tests.chaos.processes.keeper import POLL_SECONDS, ForkedKeeper, Obituaries, ProcessDiedError
from tests.chaos.processes.kill_points import Victim
from tests.chaos.processes.roles import RoleSetup
from tests.support.http_endpoint import sign
from tests.support.webhook_receiver import SECRET

# Longest time for an answer, which is beyond the endpoint's own.
_ANSWER_SECONDS = 120.0
# Time within which a process whose connection broke is found dead.
_DEATH_SECONDS = 5.0
# How often a report is asked for as an event stream.
_STREAMS = 0.3
_THREADS = 32


class EndpointKeeper(ForkedKeeper):
    """Keeper of `gpt2flow agent serve`.

    Args:
        obituaries: Where its deaths are recorded.
        rng: Source of the pauses before it is started again.
        setup: Settings of the run.
        port: Port that it always has.
    """

    def __init__(
        self, obituaries: Obituaries, rng: random.Random, setup: RoleSetup, port: int
    ) -> None:
        secrets_file(setup.folder).write_text(f"{SECRET}\n", encoding="utf-8")
        setup = replace(setup, endpoint_port=port)
        super().__init__(Victim.ENDPOINT, obituaries, rng, run_endpoint, setup)
        self._threads = ThreadPoolExecutor(_THREADS)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=_ANSWER_SECONDS,
            # Connections to a process that was killed since would look like its successor's.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._streams = random.Random(rng.random())

    def ask(self, session: str, message_id: str, text: str) -> "Future[Any]":
        """Send a signed message; see `ForkedKeeper.ask`."""
        return self._threads.submit(self._post, session, message_id, text)

    def stop(self) -> None:
        super().stop()
        self._threads.shutdown()
        self._client.close()

    def _post(self, session: str, message_id: str, text: str) -> list[Any]:
        process = self._process
        if not self.is_ready:
            raise ProcessDiedError
        content = json.dumps(
            {"session": session, "id": message_id, "text": text, "channel": "chaos"},
            ensure_ascii=False,
        )
        accept = "text/event-stream" if self._streams.random() < _STREAMS else "application/json"
        headers = {"content-type": "application/json", "accept": accept}
        headers |= sign(content, SECRET, f"{session}/{message_id}")
        try:
            response = self._client.post("/v1/messages", content=content.encode(), headers=headers)
            return read_answer(response)
        except httpx.TransportError as error:
            if self._is_gone(process):
                raise ProcessDiedError from error
            return [None, f"{error!r} from an endpoint that lives", False]

    def _is_gone(self, process: Any) -> bool:
        """Return whether a process has ended, or ends soon."""
        deadline = time.monotonic() + _DEATH_SECONDS
        while self.is_ready and self._process is process:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def read_answer(response: httpx.Response) -> list[Any]:
    """Return report, error, and whether the error is a clear one.

    Raises:
        RemoteProtocolError: An event stream ended without an event.
    """
    status, content = response.status_code, response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        _, found, content = content.partition("\ndata: ")
        if not found or not content.endswith("\n\n"):
            raise httpx.RemoteProtocolError("the stream ended without an event")
        status = json.loads(content).get("status", status)
    answer = json.loads(content)
    if status == httpx.codes.OK:
        return [answer, None, True]
    reason = answer["error"]["message"]
    return [None, f"{status}: {reason}", not reason.startswith("internal error")]
