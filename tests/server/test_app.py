"""Server process: ready line, drain on SIGTERM, clear errors at start."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.engine_bench import CONTEXT

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
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

# Keys and values of two layers, with 32 float32 values per position.
SLOT_BYTES = CONTEXT * 2 * 2 * 32 * 4

SCRIPT = """
import sys
from pathlib import Path
from gpt2flow.server import EngineConfig, ServerConfig, serve
serve(
    ServerConfig(models={"m": Path(sys.argv[1])}, port=0, engine=EngineConfig(threads=2)),
    on_ready=lambda port: print(port, flush=True),
)
"""


@pytest.fixture
def process(bundle: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


def wait_for_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def generate(port: int, count: int) -> pb.GenerateResponse:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        options = pb.GenerationOptions(
            stopping=pb.StoppingCriteria(max_new_tokens=count, ignore_eos=True)
        )
        stub = InferenceServiceStub(channel)
        prompts = [pb.Prompt(text="Where")]
        return stub.Generate(pb.GenerateRequest(prompts=prompts, options=options))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_the_server_logs_ready_and_stops_cleanly(process: subprocess.Popen[str]) -> None:
    port = wait_for_port(process)
    assert generate(port, 5).results[0].usage.completion_tokens == 5
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["event"] for line in lines] == ["ready", "rpc", "draining", "stopped"]
    assert (lines[0]["port"], lines[0]["models"]) == (port, ["m"])
    assert lines[0]["kv_cache"] == {"m": {"slots": 16, "bytes": 16 * SLOT_BYTES}}
    with pytest.raises(grpc.RpcError):
        generate(port, 1)


def test_a_closed_log_pipe_does_not_prevent_a_clean_stop(process: subprocess.Popen[str]) -> None:
    port = wait_for_port(process)
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert port > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_server_uses_no_cpu(process: subprocess.Popen[str]) -> None:
    generate(wait_for_port(process), 80)
    time.sleep(0.2)
    before = cpu_seconds(process.pid)
    time.sleep(1.0)
    assert cpu_seconds(process.pid) - before <= 0.05


def test_a_changed_byte_fails_the_start(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[1000] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
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
    server = Server(ServerConfig(models={"m": bundle}, port=0, engine=engine))
    port = await server.start()
    assert server.kv_caches == {"m": {"slots": slots, "bytes": slots * SLOT_BYTES}}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        models = await InferenceServiceStub(channel).ListModels(pb.ListModelsRequest())
    assert models.models[0].limits.max_sequences == slots
    await server.stop()


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
    first = Server(config)
    port = await first.start()
    with pytest.raises(StartupError):
        await Server(ServerConfig(models={"m": bundle}, port=port)).start()
    await first.stop()
