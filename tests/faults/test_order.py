"""Many more streams than slots: all finish, by priority, then by arrival."""

import asyncio
import random
from typing import Any

import grpc
from tests.support.fault_client import assert_nothing_left, canary, greedy
from tests.support.held_slots import all_slots_held
from tests.support.server_process import SLOTS, ServerProcess

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

STREAMS, TOKENS = 200, 30
PRIORITIES = (0, 5, 10)


async def first_tokens(server: ServerProcess, priorities: list[int]) -> list[int]:
    """Send streams in order; return their numbers in order of first token."""
    order: list[int] = []

    async def run(number: int, call: Any) -> None:
        tokens = 0
        async for message in call:
            if not tokens:
                order.append(number)
            tokens += len(message.delta.token_ids)
        assert tokens == TOKENS

    async with grpc.aio.insecure_channel(server.address) as channel, asyncio.TaskGroup() as group:
        stub: Any = InferenceServiceStub(channel)
        async with all_slots_held(server, stub) as arrived:
            for number, priority in enumerate(priorities):
                # Prompts of equal length without a common prefix, so that none is preferred.
                prompt = pb.Prompt(tokens=pb.TokenIds(ids=[number + 10, 88, 120, 7]))
                call = stub.GenerateStream(greedy(TOKENS, prompt, priority))
                group.create_task(run(number, call))
                # gRPC does not keep the order of concurrent calls.
                await arrived(number + 1)
            assert not order
    return order


def test_waiting_streams_start_by_priority_then_arrival(server: ServerProcess) -> None:
    before, answer = server.baseline(), canary(server.address)
    drawn = random.Random(3)
    priorities = [drawn.choice(PRIORITIES) for _ in range(STREAMS)]
    order = asyncio.run(first_tokens(server, priorities))
    assert sorted(order) == list(range(STREAMS))
    due = sorted(order, key=lambda number: (-priorities[number], number))
    # Only streams that hold slots at the same time may overtake each other.
    places = {number: place for place, number in enumerate(order)}
    assert max(abs(places[number] - place) for place, number in enumerate(due)) < SLOTS
    assert_nothing_left(server, before)
    assert canary(server.address) == answer
