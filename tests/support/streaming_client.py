"""Client process that streams until killed.

Usage: python -m tests.support.streaming_client ADDRESS COUNT
"""

import asyncio
import sys
from typing import Any

import grpc
from tests.support.fault_client import greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub


async def main(address: str, count: int) -> None:
    """Run `count` streams; print a line when all have started."""
    request = greedy(80)
    # Large messages soon fill the buffers of a connection that the client does not read.
    request.options.output.MergeFrom(pb.OutputOptions(logprobs=True, top_logprobs=20))
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
        started = asyncio.Barrier(count + 1)
        for _ in range(count):
            group.create_task(stream(channel, request, started))
        await started.wait()
        sys.stdout.write("streaming\n")
        sys.stdout.flush()


async def stream(
    channel: grpc.aio.Channel, request: pb.GenerateStreamRequest, started: asyncio.Barrier
) -> None:
    """Stream again and again, forever."""
    stub: Any = InferenceServiceStub(channel)
    await stub.GenerateStream(request).read()
    await started.wait()
    while True:
        async for _ in stub.GenerateStream(request):
            pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
