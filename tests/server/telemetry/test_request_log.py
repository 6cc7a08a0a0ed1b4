"""Request log: caller, result and timing of every RPC, without texts."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from tests.support.server_process import ServerProcess, server_process

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

PROMPT_TEXT = "zebra"


def generation(**fields: Any) -> pb.GenerateRequest:
    stopping = pb.StoppingCriteria(max_new_tokens=5, ignore_eos=True)
    options = pb.GenerationOptions(stopping=stopping)
    return pb.GenerateRequest(prompts=[pb.Prompt(text=PROMPT_TEXT)], options=options, **fields)


@contextmanager
def logging_server(
    bundle: Path, folder: Path, *options: str, stderr: IO[Any] | int | None = None
) -> Iterator[tuple[ServerProcess, Any]]:
    """Run a server process and yield it with a stub."""
    with (
        server_process(bundle, folder, *options, stderr=stderr) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield server, InferenceServiceStub(channel)


def request_id(call: Any) -> str:
    return str(dict(call.trailing_metadata())["x-request-id"])


def test_each_rpc_is_logged_with_the_figures_of_its_response(bundle: Path, tmp_path: Path) -> None:
    metadata = (("x-request-id", "order 17/a"),)
    with logging_server(bundle, tmp_path) as (server, stub):
        response, call = stub.Generate.with_call(generation(), metadata=metadata)
        assert request_id(call) == "order 17/a"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Generate(generation(model=f"{PROMPT_TEXT}?"), metadata=metadata)
        assert request_id(caught.value) == "order 17/a"
        bad = generation()
        bad.options.stopping.stop_strings.extend([PROMPT_TEXT] * 500)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Generate(bad)
        assert "stop_strings" in (caught.value.details() or "")
        log = server.stop()

    lines = server.events()
    good, unknown, invalid = server.events("rpc")
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


def test_the_log_level_is_configurable(bundle: Path, tmp_path: Path) -> None:
    with logging_server(bundle, tmp_path, "--log-level", "warning") as (server, stub):
        stub.Generate(generation())
        assert server.stop() == ""


def test_the_log_format_is_configurable(bundle: Path, tmp_path: Path) -> None:
    with logging_server(bundle, tmp_path, "--log-format", "console") as (server, stub):
        _, call = stub.Generate.with_call(generation())
        [line] = [line for line in server.stop().splitlines() if "code=OK" in line]
    assert f"request_id={request_id(call)}" in line
    assert not line.startswith("{")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_no_request(bundle: Path, tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("w") as full,
        logging_server(bundle, tmp_path, stderr=full) as (server, stub),
    ):
        for _ in range(3):
            assert stub.Generate(generation()).results
        server.stop()


def test_a_stalled_log_reader_stops_no_request(bundle: Path, tmp_path: Path) -> None:
    long_id = (("x-request-id", "x" * 128),)
    with logging_server(bundle, tmp_path, stderr=subprocess.PIPE) as (server, stub):
        # Their lines are more than the unread pipe holds.
        for _ in range(400):
            assert stub.Tokenize(pb.TokenizeRequest(text="a"), metadata=long_id).tokens
        server.stop()


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
