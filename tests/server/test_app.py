"""Server process: ready line, drain on SIGTERM, clear errors at start."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.bundles import copy_damaged_bundle
from tests.support.engine_bench import CONTEXT
from tests.support.running_server import PROMPT, failure, greedy, serving
from tests.support.server_process import SLOTS, ServerProcess, server_process
from tests.support.waiting import eventually

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.native import load_operators
from gpt2flow.server import (
    BundleError,
    ConfigError,
    EngineConfig,
    SecurityConfig,
    Server,
    ServerConfig,
    StartupError,
    serve,
)
from gpt2flow.server.config.cpu_limit import cpu_limit
from gpt2flow.server.errors import DrainingError

pytestmark = pytest.mark.process

# Keys and values of two layers, with 32 float32 values per position.
SLOT_BYTES = CONTEXT * 2 * 2 * 32 * 4


def generate(address: str, count: int) -> pb.GenerateResponse:
    with grpc.insecure_channel(address) as channel:
        options = pb.GenerationOptions(
            stopping=pb.StoppingCriteria(max_new_tokens=count, ignore_eos=True)
        )
        stub = InferenceServiceStub(channel)
        prompts = [pb.Prompt(text="Where")]
        return stub.Generate(pb.GenerateRequest(prompts=prompts, options=options))


def test_the_server_logs_ready_and_stops_cleanly(bundle: Path, tmp_path: Path) -> None:
    with server_process(bundle, tmp_path) as server:
        assert generate(server.address, 5).results[0].usage.completion_tokens == 5
        server.stop()
        ready, *others = server.events()
        assert [line["event"] for line in others] == ["rpc", "draining", "stopped"]
        assert (ready["event"], ready["port"], ready["models"]) == ("ready", server.port, ["m"])
        assert ready["kv_cache"] == {"m": {"slots": SLOTS, "bytes": SLOTS * SLOT_BYTES}}
        assert ready["kernels"] == {"m": str(load_operators())}
        assert ready["threads"] == {"m": 1}
        assert ready["processors"] == dataclasses.asdict(cpu_limit())
        with pytest.raises(grpc.RpcError):
            generate(server.address, 1)


def test_a_closed_log_pipe_does_not_prevent_a_clean_stop(bundle: Path, tmp_path: Path) -> None:
    with server_process(bundle, tmp_path, stderr=subprocess.PIPE) as server:
        assert server.process.stderr is not None
        server.process.stderr.close()
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_server_uses_no_cpu(bundle: Path, tmp_path: Path) -> None:
    def is_idle(server: ServerProcess) -> bool:
        before = server.cpu_seconds()
        time.sleep(1.0)
        return server.cpu_seconds() - before <= 0.05

    with server_process(bundle, tmp_path) as server:
        generate(server.address, 80)
        # The end of the call takes a moment.
        eventually(lambda: is_idle(server))


def test_a_changed_byte_fails_the_start(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = copy_damaged_bundle(bundle, tmp_path / "copy")
    with pytest.raises(BundleError, match=r"model\.onnx\.data does not match"):
        serve(ServerConfig(models={"m": copy}, port=0))
    assert capfd.readouterr() == ("", "")


def test_a_missing_bundle_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere is not a directory"):
        serve(ServerConfig(models={"m": tmp_path / "nowhere"}, port=0))


@pytest.mark.parametrize(
    "memory,most,slots",
    [(None, 3, 3), (SLOT_BYTES, 3, 1), (SLOT_BYTES * 3 - 1, 16, 2), (SLOT_BYTES * 5, 3, 3)],
)
async def test_memory_and_max_sequences_limit_the_slots(
    bundle: Path, memory: int | None, most: int, slots: int
) -> None:
    engine = EngineConfig(threads=1, max_sequences=most, kv_cache_memory=memory)
    config = ServerConfig(models={"m": bundle}, port=0, engine=engine)
    async with serving(config) as running:
        sizes = {"slots": slots, "bytes": slots * SLOT_BYTES}
        assert running.server.kv_caches == {"m": sizes}
        models = await running.stub.ListModels(pb.ListModelsRequest())
        assert models.models[0].limits.max_sequences == slots
        assert models.models[0].kernels == str(load_operators())


@pytest.mark.parametrize("given, length", [(48, 48), (CONTEXT, CONTEXT), (5 * CONTEXT, CONTEXT)])
async def test_a_shorter_context_takes_less_memory(bundle: Path, given: int, length: int) -> None:
    engine = EngineConfig(threads=1, max_sequences=2, context_length=given)
    async with serving(ServerConfig(models={"m": bundle}, port=0, engine=engine)) as running:
        [cache] = running.server.kv_caches.values()
        assert cache["bytes"] == 2 * SLOT_BYTES * length // CONTEXT
        model = (await running.stub.ListModels(pb.ListModelsRequest())).models[0]
        assert model.limits.context_length == length
        request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(length))
        status, message, _ = await failure(running.stub.Generate(request))
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert f"context of {length} tokens" in message
        [result] = (
            await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(8)))
        ).results
        assert result.usage.completion_tokens == 8


def test_memory_for_less_than_one_slot_fails_the_start(bundle: Path) -> None:
    engine = EngineConfig(threads=1, kv_cache_memory=SLOT_BYTES - 1)
    message = f"kv_cache_memory is {SLOT_BYTES - 1} bytes, must be at least {SLOT_BYTES}: "
    with pytest.raises(ConfigError, match=message):
        serve(ServerConfig(models={"m": bundle}, port=0, engine=engine))


def rewrite(directory: Path, name: str, data: bytes) -> None:
    """Replace a file and update its hash in the manifest."""
    from gpt2flow.server.bundle.manifest import file_sha256

    (directory / name).write_bytes(data)
    manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    manifest["files"][name] = file_sha256(directory / name)
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name,data",
    [("model.onnx", b"nothing"), ("tokenizer.json", b"{}"), ("tokenizer.json", b"\xff")],
)
def test_an_invalid_file_with_a_valid_hash_fails_the_start(
    bundle: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    rewrite(copy, name, data)
    with pytest.raises(BundleError) as caught:
        serve(ServerConfig(models={"m": copy}, port=0))
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
    "host,reason", [("127.0.0.1", "Address already in use"), ("no.such.host.invalid", "known")]
)
def test_an_unavailable_address_fails_the_start(
    bundle: Path, host: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        insecure = SecurityConfig(insecure=True)
        config = ServerConfig(models={"m": bundle}, host=host, port=port, security=insecure)
        with pytest.raises(StartupError, match=f"cannot listen on {host}:{port}: .*{reason}"):
            serve(config)
    assert capfd.readouterr() == ("", "")


async def test_two_servers_do_not_share_a_port(bundle: Path) -> None:
    config = ServerConfig(models={"m": bundle}, port=0, engine=EngineConfig(threads=1))
    async with serving(config) as running:
        with pytest.raises(StartupError):
            await Server(ServerConfig(models={"m": bundle}, port=running.port)).start()


async def test_a_server_that_never_started_closes(bundle: Path) -> None:
    server = Server(ServerConfig(models={"m": bundle}, port=0))
    await server.stop()
    with pytest.raises(DrainingError):
        server.registry.lease("m")
