"""A bundle that is damaged when it is read again leaves the old model serving."""

import asyncio
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import grpc
from tests.faults.client import assert_serving, canary, eventually, generate, greedy
from tests.faults.process import ServerProcess, server_process

from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

STREAMS, TOKENS = 24, 60


def replace_by_damaged(bundle: Path) -> None:
    """Puts a bundle of which one byte of the weights is another in the place of a bundle."""
    damaged = bundle.with_name("damaged")
    shutil.copytree(bundle, damaged)
    weights = damaged / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    # Another manifest, or nothing would be read again.
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps(manifest, indent=3))
    bundle.rename(bundle.with_name("before"))
    damaged.rename(bundle)


def events(server: ServerProcess) -> list[str]:
    return [json.loads(line)["event"] for line in server.log.read_text().splitlines()]


async def streamed(call: Any) -> list[int]:
    return [token async for message in call for token in message.delta.token_ids]


async def test_a_damaged_bundle_leaves_the_old_model(bundle: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(bundle, served)
    with server_process(served, tmp_path) as server:
        expected, answer = generate(server.address, greedy(TOKENS)), canary(server.address)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = InferenceServiceStub(channel)
            calls = [stub.GenerateStream(greedy(TOKENS)) for _ in range(STREAMS)]
            streams = [asyncio.create_task(streamed(call)) for call in calls]
            replace_by_damaged(served)
            server.process.send_signal(signal.SIGHUP)
            assert await asyncio.gather(*streams) == [expected] * STREAMS
        eventually(lambda: "reload_failed" in events(server))
        assert "model.onnx.data" in server.log.read_text()
        assert_serving(server.address)
        assert canary(server.address) == answer
