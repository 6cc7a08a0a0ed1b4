"""Signals to a server process: drain, forced stop and reload."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from tests.support.bundles import copy_bundle, swap_bundle

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

# Slow decode steps keep requests in flight.
SCRIPT = """
import sys, time
from pathlib import Path
from gpt2flow.server import EngineConfig, ServerConfig, serve
from gpt2flow.server.bundle.model_runner import ModelRunner
decode = ModelRunner.decode
def slowly(*args):
    time.sleep(0.02)
    return decode(*args)
ModelRunner.decode = slowly
serve(
    ServerConfig(
        models={"m": Path(sys.argv[1])}, port=0, engine=EngineConfig(threads=1, speculation=False),
        drain_seconds=float(sys.argv[2]),
    ),
    on_ready=lambda port: print(port, flush=True),
)
"""
STOPPING = pb.StoppingCriteria(max_new_tokens=70, ignore_eos=True)
REQUEST = pb.GenerateStreamRequest(
    prompt=pb.Prompt(text="Where"), options=pb.GenerationOptions(stopping=STOPPING)
)


class Process:
    """Server process on a slowed model, and a client of it."""

    def __init__(self, bundle: Path, drain_seconds: float) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(bundle), str(drain_seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        port = int(self.popen.stdout.readline())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = InferenceServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def streams(self, count: int) -> list[Any]:
        """Start streams and return them when each has its first message."""
        calls = [iter(self.stub.GenerateStream(REQUEST)) for _ in range(count)]
        for call in calls:
            next(call)
        return calls

    def end(self, signals: int = 1) -> list[dict[str, Any]]:
        """Send SIGTERM `signals` times, wait for the end and return the log."""
        for _ in range(signals):
            self.popen.send_signal(signal.SIGTERM)
        _, errors = self.popen.communicate(timeout=60)
        assert self.popen.returncode == 0
        try:
            return [json.loads(line) for line in errors.splitlines()]
        except ValueError:
            raise AssertionError(errors) from None


@pytest.fixture
def start(bundle: Path, tmp_path: Path) -> Iterator[Callable[[float], Process]]:
    processes = []

    def start(drain_seconds: float) -> Process:
        place = tmp_path / "bundle"
        processes.append(Process(copy_bundle(bundle, place), drain_seconds))
        return processes[-1]

    yield start
    for process in processes:
        process.channel.close()
        process.popen.kill()
        process.popen.communicate()


def code_of(call: Any) -> grpc.StatusCode:
    """Return the status code of a stream that the shutdown must end."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert isinstance(caught.value, grpc.Call)
    assert "shutting down" in (caught.value.details() or "")
    return caught.value.code()


def test_no_accepted_request_is_lost(start: Callable[[float], Process]) -> None:
    process = start(60)
    watch = process.health.Watch(health_pb2.HealthCheckRequest(service="m"))
    assert next(watch).status == HealthCheckResponse.SERVING
    calls = process.streams(8)
    process.popen.send_signal(signal.SIGTERM)
    assert next(watch).status == HealthCheckResponse.NOT_SERVING
    assert code_of(process.stub.GenerateStream(REQUEST)) == grpc.StatusCode.UNAVAILABLE
    status = process.health.Check(health_pb2.HealthCheckRequest()).status
    assert status == HealthCheckResponse.NOT_SERVING
    for call in calls:
        assert list(call)[-1].end.result.usage.completion_tokens == 70
    events = [line["event"] for line in process.end(0)]
    assert [event for event in events if event != "rpc"] == ["ready", "draining", "stopped"]


def test_streams_that_outlive_the_drain_time_are_ended(start: Callable[[float], Process]) -> None:
    process = start(0.1)
    calls = process.streams(3)
    process.popen.send_signal(signal.SIGTERM)
    assert {code_of(call) for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    process.end(0)


def test_a_second_signal_ends_the_drain(start: Callable[[float], Process]) -> None:
    process = start(600)
    calls = process.streams(3)
    watch = process.health.Watch(health_pb2.HealthCheckRequest())
    next(watch)
    process.popen.send_signal(signal.SIGTERM)
    assert next(watch).status == HealthCheckResponse.NOT_SERVING
    process.popen.send_signal(signal.SIGTERM)
    assert {code_of(call) for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    process.end(0)


def test_sighup_reloads_the_bundles(
    start: Callable[[float], Process], bundle: Path, tmp_path: Path
) -> None:
    process = start(60)
    before = process.stub.GetModel(pb.GetModelRequest()).model.fingerprint
    [call] = process.streams(1)
    swap_bundle(copy_bundle(bundle, tmp_path / "new", run="2"), tmp_path / "bundle")
    process.popen.send_signal(signal.SIGHUP)
    changed = threading.Event()
    while process.stub.GetModel(pb.GetModelRequest()).model.fingerprint == before:
        changed.wait(0.02)
    assert list(call)[-1].end.fingerprint == before
    log = process.end()
    assert [line["event"] for line in log if line["event"] not in {"unloaded", "rpc"}] == [
        "ready",
        "reloaded",
        "draining",
        "stopped",
    ]
