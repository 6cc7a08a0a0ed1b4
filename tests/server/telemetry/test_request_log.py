"""Request log: caller, result and timing of every RPC, without texts."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import grpc
import pytest

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

PROMPT_TEXT = "zebra"
SCRIPT = """
import json, sys
from pathlib import Path
from gpt2flow.server import EngineConfig, ServerConfig, TelemetryConfig, serve
engine, telemetry = EngineConfig(threads=1), TelemetryConfig(**json.loads(sys.argv[2]))
models = {"m": Path(sys.argv[1])}
serve(
    ServerConfig(models=models, port=0, engine=engine, telemetry=telemetry),
    on_ready=lambda port: print(port, flush=True),
)
"""


class Process:
    """Server process with redirected standard error, and a client of it."""

    def __init__(self, bundle: Path, stderr: int | IO[Any], **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(bundle), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert self.process.stdout is not None
        self.channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self.stub: Any = InferenceServiceStub(self.channel)

    def generate(self, **fields: Any) -> pb.GenerateRequest:
        options = pb.GenerationOptions(
            stopping=pb.StoppingCriteria(max_new_tokens=5, ignore_eos=True)
        )
        return pb.GenerateRequest(prompts=[pb.Prompt(text=PROMPT_TEXT)], options=options, **fields)

    def end(self) -> str:
        """Stop the server by SIGTERM and return its log."""
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return log or ""


@pytest.fixture
def start(bundle: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def make(stderr: int | IO[Any] = subprocess.PIPE, **options: Any) -> Process:
        started.append(Process(bundle, stderr, **options))
        return started[-1]

    yield make
    for each in started:
        each.process.kill()
        each.process.wait()


def request_id(call: Any) -> str:
    return str(dict(call.trailing_metadata())["x-request-id"])


def test_each_rpc_is_logged_with_the_figures_of_its_response(start: Callable[..., Process]) -> None:
    server = start()
    metadata = (("x-request-id", "order 17/a"),)
    response, call = server.stub.Generate.with_call(server.generate(), metadata=metadata)
    assert request_id(call) == "order 17/a"
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Generate(server.generate(model=f"{PROMPT_TEXT}?"), metadata=metadata)
    assert request_id(caught.value) == "order 17/a"
    bad = server.generate()
    bad.options.stopping.stop_strings.extend([PROMPT_TEXT] * 500)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Generate(bad)
    assert "stop_strings" in (caught.value.details() or "")
    log = server.end()

    lines = [json.loads(line) for line in log.splitlines()]
    good, unknown, invalid = [line for line in lines if line["event"] == "rpc"]
    [result] = response.results
    assert good["request_id"] == unknown["request_id"] == "order 17/a"
    assert (good["rpc"], good["model"], good["code"]) == ("Generate", "m", "OK")
    assert good["caller"].startswith("127.0.0.1:")
    for kind in ("prompt", "cached", "completion", "forced", "drafted", "accepted"):
        assert good[f"{kind}_tokens"] == getattr(result.usage, f"{kind}_tokens"), kind
    for name in ("queue_ms", "prefill_ms", "decode_ms", "total_ms"):
        assert good[name] == pytest.approx(getattr(result.timing, name), abs=1e-3)
    assert good["rpc_ms"] >= good["total_ms"]
    assert good["finish_reasons"] == {"length": 1}
    assert (unknown["code"], unknown["error"]) == ("NOT_FOUND", "model_not_found")
    assert unknown["model"] == ""
    assert (invalid["code"], invalid["error"]) == ("INVALID_ARGUMENT", "invalid_request")
    assert {line["level"] for line in lines} == {"info"}
    # Neither prompt nor answer is logged.
    assert PROMPT_TEXT not in log
    assert result.candidates[0].text.strip() not in log


@pytest.mark.parametrize("given", ["", "x" * 129, "two\tparts", " ", "näh"])
def test_an_invalid_request_id_is_replaced(given: str) -> None:
    from gpt2flow.server.servicer.observer import _request_id

    made = _request_id(given)
    assert made != given
    assert len(made) == 32
    assert _request_id("x" * 128) == "x" * 128


def test_log_level_and_format_are_configurable(start: Callable[..., Process]) -> None:
    quiet = start(log_level="warning")
    quiet.stub.Generate(quiet.generate())
    assert quiet.end() == ""
    console = start(log_format="console")
    _, call = console.stub.Generate.with_call(console.generate())
    [line] = [line for line in console.end().splitlines() if "code=OK" in line]
    assert f"request_id={request_id(call)}" in line
    assert not line.startswith("{")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_no_request(start: Callable[..., Process]) -> None:
    with Path("/dev/full").open("w") as full:
        server = start(stderr=full)
        for _ in range(3):
            assert server.stub.Generate(server.generate()).results
        server.end()


def test_a_stalled_log_reader_stops_no_request(start: Callable[..., Process]) -> None:
    server = start()
    long_id = (("x-request-id", "x" * 128),)
    # Their lines are more than the unread pipe holds.
    for _ in range(400):
        assert server.stub.Tokenize(pb.TokenizeRequest(text="a"), metadata=long_id).tokens
    server.channel.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0


def test_logs_of_libraries_have_the_same_format(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    from gpt2flow.server.config.settings import TelemetryConfig
    from gpt2flow.server.telemetry.log import logging_to_stderr

    with logging_to_stderr(TelemetryConfig()):
        try:
            int("no")
        except ValueError:
            logging.getLogger("library").exception("failed %d times", 2)
        logging.getLogger("library").info("below the level of other loggers")
    [line] = capfd.readouterr().err.splitlines()
    fields = json.loads(line)
    assert (fields["event"], fields["logger"]) == ("failed 2 times", "library")
    assert fields["exception"].endswith('int("no")\nValueError')
