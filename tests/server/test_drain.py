"""Signals to a server process: drain, forced stop and reload."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.support.bundles import copy_bundle, swap_bundle
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import eventually

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

pytestmark = pytest.mark.process

# A stream takes half a minute, unless `hurry` is called.
TOKENS, STEP_SECONDS = 70, 0.5
STOPPING = pb.StoppingCriteria(max_new_tokens=TOKENS, ignore_eos=True)
REQUEST = pb.GenerateStreamRequest(
    prompt=pb.Prompt(text="Where"), options=pb.GenerationOptions(stopping=STOPPING)
)


class Site:
    """Server process with slow decode steps, and a client of it.

    Attributes:
        server: The process.
        stub: Stub of its inference service.
        health: Stub of its health service.
    """

    def __init__(self, server: ServerProcess, channel: grpc.Channel) -> None:
        self.server = server
        self.stub: Any = InferenceServiceStub(channel)
        self.health: Any = HealthStub(channel)

    def streams(self, count: int) -> list[Any]:
        """Start streams and return them when each has its first message."""
        calls = [iter(self.stub.GenerateStream(REQUEST)) for _ in range(count)]
        for call in calls:
            next(call)
        return calls


@pytest.fixture
def start(bundle: Path, tmp_path: Path) -> Iterator[Callable[[float], Site]]:
    """Function that starts a server with a drain time in seconds."""
    with ExitStack() as stack:

        def start(drain_seconds: float) -> Site:
            place = copy_bundle(bundle, tmp_path / "bundle")
            options = ("--drain-seconds", str(drain_seconds), "--no-speculation")
            process = server_process(place, tmp_path, *options, step_seconds=STEP_SECONDS)
            server = stack.enter_context(process)
            channel = stack.enter_context(grpc.insecure_channel(server.address))
            return Site(server, channel)

        yield start


def code_of(call: Any) -> grpc.StatusCode:
    """Return the status code of a stream that the shutdown must end."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert isinstance(caught.value, grpc.Call)
    assert "shutting down" in (caught.value.details() or "")
    return caught.value.code()


def events(server: ServerProcess) -> list[str]:
    """Return the logged events, without calls and unloaded models."""
    return [each["event"] for each in server.events() if each["event"] not in {"unloaded", "rpc"}]


def test_no_accepted_request_is_lost(start: Callable[[float], Site]) -> None:
    site = start(600)
    watch = site.health.Watch(HealthCheckRequest(service="m"))
    assert next(watch).status == HealthCheckResponse.SERVING
    calls = site.streams(8)
    site.server.terminate()
    assert next(watch).status == HealthCheckResponse.NOT_SERVING
    assert code_of(site.stub.GenerateStream(REQUEST)) == grpc.StatusCode.UNAVAILABLE
    assert site.health.Check(HealthCheckRequest()).status == HealthCheckResponse.NOT_SERVING
    site.server.hurry()
    for call in calls:
        assert list(call)[-1].end.result.usage.completion_tokens == TOKENS
    site.server.wait()
    assert events(site.server) == ["ready", "draining", "stopped"]


def test_streams_that_outlive_the_drain_time_are_ended(start: Callable[[float], Site]) -> None:
    site = start(0.1)
    calls = site.streams(3)
    site.server.terminate()
    assert {code_of(call) for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    site.server.wait()


def test_a_second_signal_ends_the_drain(start: Callable[[float], Site]) -> None:
    site = start(600)
    calls = site.streams(3)
    watch = site.health.Watch(HealthCheckRequest())
    next(watch)
    site.server.terminate()
    assert next(watch).status == HealthCheckResponse.NOT_SERVING
    site.server.terminate()
    assert {code_of(call) for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    site.server.wait()


def test_sighup_reloads_the_bundles(
    start: Callable[[float], Site], bundle: Path, tmp_path: Path
) -> None:
    site = start(600)

    def fingerprint() -> str:
        return str(site.stub.GetModel(pb.GetModelRequest()).model.fingerprint)

    before = fingerprint()
    [call] = site.streams(1)
    swap_bundle(copy_bundle(bundle, tmp_path / "new", run="2"), tmp_path / "bundle")
    site.server.process.send_signal(signal.SIGHUP)
    eventually(lambda: fingerprint() != before)
    site.server.hurry()
    assert list(call)[-1].end.fingerprint == before
    site.server.stop()
    assert events(site.server) == ["ready", "reloaded", "draining", "stopped"]
