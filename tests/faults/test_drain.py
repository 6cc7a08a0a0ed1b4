"""Drain after SIGTERM under load: no accepted request is lost."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
from tests.support.fault_client import generate, greedy
from tests.support.held_slots import all_slots_held
from tests.support.server_process import server_process

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
STREAMS, LATER, TOKENS = 100, 30, 60
PROMPTS = [pb.Prompt(tokens=pb.TokenIds(ids=[40 + i, 88, 120, 7 + i])) for i in range(8)]


async def tokens_of(call: Any) -> list[int] | grpc.StatusCode | str:
    """Return the token ids of a stream, or its error."""
    tokens: list[int] = []
    try:
        async for message in call:
            tokens += message.delta.token_ids
    except grpc.aio.AioRpcError as error:
        cut_off = f"after {len(tokens)} tokens: {error.details()}"
        return cut_off if tokens else error.code()
    return tokens


async def test_sigterm_under_load_loses_no_accepted_request(bundle: Path, tmp_path: Path) -> None:
    with server_process(bundle, tmp_path, "--drain-seconds", "120") as server:
        answers = [generate(server.address, greedy(TOKENS, prompt)) for prompt in PROMPTS]
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = InferenceServiceStub(channel)
            async with all_slots_held(server, stub) as arrived:
                requests = [greedy(TOKENS, PROMPTS[i % len(PROMPTS)]) for i in range(STREAMS)]
                accepted = [
                    asyncio.create_task(tokens_of(stub.GenerateStream(request)))
                    for request in requests
                ]
                await arrived(STREAMS)
                server.terminate()
            while await tokens_of(stub.GenerateStream(greedy(1))) != UNAVAILABLE:
                pass
            later = [tokens_of(stub.GenerateStream(greedy(3))) for _ in range(LATER)]
            assert set(await asyncio.gather(*later)) == {UNAVAILABLE}
            for i, each in enumerate(await asyncio.gather(*accepted)):
                assert each == answers[i % len(PROMPTS)]
        server.wait()
