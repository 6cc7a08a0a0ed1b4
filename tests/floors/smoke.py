"""Smoke test of server and client on the packages of this interpreter.

Usage: python -m tests.floors.smoke {client ADDRESS | server}
"""

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

import grpc
from tests.support.bombs import MAX_GROWTH, peak_bytes, refusal_of_bomb
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import eventually

from gpt2flow import client as api

_PROMPT = "Where is my order?"
_SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}})


def use_client(address: str) -> None:
    """Make calls of each kind, sync and async."""
    constraints = (
        api.JsonSchema(_SCHEMA),
        api.Regex("[a-c]{2,9}"),
        api.Choices(("yes", "no")),
        api.Lark("start: /[a-z]{1,5}/"),
    )
    decodings = (api.Sampling(seed=1), api.Sampling(temperature=0.0), api.BeamSearch(num_beams=3))
    every = [api.Options(decoding=each, max_new_tokens=8) for each in decodings]
    every += [api.Options(constraint=each, max_new_tokens=40) for each in constraints]
    with api.Client(address) as client:
        [model] = client.models()
        assert client.model(model.name) == model
        for options in every:
            assert client.generate(_PROMPT, options).usage.completion_tokens
        assert list(client.stream(_PROMPT, every[0]))
        assert client.score(_PROMPT, [" yes", " no"]).scores
        ids = [token.id for token in client.tokenize(_PROMPT)]
        assert client.detokenize(ids) == _PROMPT
        assert [each.field for each in _violations(client)] == ["options.sampling.temperature"]
    asyncio.run(_use_async_client(address, every[0]))


def _violations(client: api.Client) -> tuple[api.Violation, ...]:
    try:
        client.generate(_PROMPT, api.Options(decoding=api.Sampling(temperature=-1.0)))
    except api.InvalidRequestError as error:
        return tuple(error.violations)
    return ()


async def _use_async_client(address: str, options: api.Options) -> None:
    async with api.AsyncClient(address) as client:
        assert [delta async for delta in client.stream(_PROMPT, options)]


def use_server() -> None:
    """Serve the shipped bundle, use it, and send it a bomb."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server_process(SHIPPED_BUNDLE, Path(folder)) as server,
    ):
        use_client(server.address)
        assert not server.metric("requests_running")
        _reload(server)
        peak = peak_bytes(server.process.pid)
        assert refusal_of_bomb(server.address) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert peak_bytes(server.process.pid) < peak + MAX_GROWTH
        server.stop()
        assert not server.events("internal_error")


def _reload(server: ServerProcess) -> None:
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: bool(server.events("reloaded", "reload_failed")))
    assert not server.events("reload_failed")


if __name__ == "__main__":
    if sys.argv[1] == "client":
        use_client(sys.argv[2])
    else:
        use_server()
