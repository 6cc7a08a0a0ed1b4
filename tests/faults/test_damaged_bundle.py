"""A bundle that is damaged when it is read again leaves the old model serving."""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from tests.support.fault_client import assert_serving, canary, eventually, generate, greedy
from tests.support.server_process import ServerProcess, server_process

from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

STREAMS, TOKENS = 24, 60


def flip(bundle: Path) -> str:
    weights = bundle / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    return weights.name


def cut_short(bundle: Path) -> str:
    graph = bundle / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    return graph.name


def lose(bundle: Path) -> str:
    (bundle / "tokenizer.json").unlink()
    return "tokenizer.json"


def break_off(bundle: Path) -> str:
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    return manifest.name


DAMAGES: tuple[Callable[[Path], str], ...] = (flip, cut_short, lose, break_off)


def replace_by_damaged(served: Path, bundle: Path, damage: Callable[[Path], str]) -> str:
    """Put a damaged copy of a bundle in the place of what is served; returns the bad file."""
    damaged = served.with_name("damaged")
    shutil.copytree(bundle, damaged)
    # Another manifest, or nothing would be read again.
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps(manifest, indent=3))
    name = damage(damaged)
    served.rename(served.with_name(f"before-{name}"))
    damaged.rename(served)
    return name


def failures(server: ServerProcess) -> list[str]:
    """Return what the log says of reloads that failed."""
    lines = server.log.read_text().splitlines()
    return [line for line in lines if json.loads(line)["event"] == "reload_failed"]


async def streamed(call: Any) -> list[int]:
    return [token async for message in call for token in message.delta.token_ids]


async def test_a_damaged_bundle_leaves_the_old_model(bundle: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(bundle, served)
    with server_process(served, tmp_path) as server:
        expected, answer = generate(server.address, greedy(TOKENS)), canary(server.address)
        for number, damage in enumerate(DAMAGES):
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub: Any = InferenceServiceStub(channel)
                calls = [stub.GenerateStream(greedy(TOKENS)) for _ in range(STREAMS)]
                streams = [asyncio.create_task(streamed(call)) for call in calls]
                name = replace_by_damaged(served, bundle, damage)
                server.process.send_signal(signal.SIGHUP)
                assert await asyncio.gather(*streams) == [expected] * STREAMS
            await asyncio.to_thread(eventually, lambda: len(failures(server)) > number)  # noqa: B023 - awaited here
            assert name in failures(server)[-1]
            assert_serving(server.address)
            assert canary(server.address) == answer
