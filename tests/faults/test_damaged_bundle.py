"""Reload of a damaged bundle: the old model keeps serving."""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from tests.support.fault_client import assert_serving, canary, generate, greedy
from tests.support.server_process import server_process
from tests.support.waiting import until

from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

STREAMS, TOKENS = 24, 60


def flip_bit(bundle: Path) -> str:
    weights = bundle / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    return weights.name


def truncate_graph(bundle: Path) -> str:
    graph = bundle / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    return graph.name


def delete_tokenizer(bundle: Path) -> str:
    (bundle / "tokenizer.json").unlink()
    return "tokenizer.json"


def truncate_manifest(bundle: Path) -> str:
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    return manifest.name


DAMAGES: tuple[Callable[[Path], str], ...] = (
    flip_bit,
    truncate_graph,
    delete_tokenizer,
    truncate_manifest,
)


def replace_by_damaged(served: Path, bundle: Path, damage: Callable[[Path], str]) -> str:
    """Replace the served bundle by a damaged copy; return the damaged file."""
    damaged = served.with_name("damaged")
    shutil.copytree(bundle, damaged)
    # Only a changed manifest makes the server read the bundle again.
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps(manifest, indent=3))
    name = damage(damaged)
    served.rename(served.with_name(f"before-{name}"))
    damaged.rename(served)
    return name


async def token_ids(call: Any) -> list[int]:
    return [token async for message in call for token in message.delta.token_ids]


async def test_a_damaged_bundle_keeps_the_old_model(bundle: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(bundle, served)
    with server_process(served, tmp_path) as server:
        expected, answer = generate(server.address, greedy(TOKENS)), canary(server.address)
        for number, damage in enumerate(DAMAGES):
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub: Any = InferenceServiceStub(channel)
                calls = [stub.GenerateStream(greedy(TOKENS)) for _ in range(STREAMS)]
                streams = [asyncio.create_task(token_ids(call)) for call in calls]
                name = replace_by_damaged(served, bundle, damage)
                server.process.send_signal(signal.SIGHUP)
                assert await asyncio.gather(*streams) == [expected] * STREAMS
            await until(lambda: len(server.events("reload_failed")) > number)  # noqa: B023 - awaited here
            assert name in server.events("reload_failed")[-1]["reason"]
            assert_serving(server.address)
            assert canary(server.address) == answer
