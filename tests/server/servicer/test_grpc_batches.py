"""gRPC's batches release their memory, whether they succeed, fail or are cancelled."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from gpt2flow.server.servicer.grpc_batches import _releasing, release_batches
from gpt2flow.server.servicer.status import reports_errors


class Batches:
    """Stand-in for grpcio, whose batches end when a test says so."""

    def __init__(self) -> None:
        self.waiter: Any = None
        self.released = 0

    async def execute(self, _call: Any, operations: tuple[Any, ...], loop: Any) -> None:
        if operations:
            raise ValueError("the batch cannot start")
        self.waiter = loop.create_future()
        await self.waiter
        self.released += 1


@pytest.fixture
def batches() -> Batches:
    return Batches()


async def start(batches: Batches) -> "asyncio.Task[None]":
    """Return the task of a call that awaits a batch."""
    run: Any = _releasing(batches.execute)
    task: asyncio.Task[None] = asyncio.create_task(run(None, (), asyncio.get_running_loop()))
    await asyncio.sleep(0)
    assert not batches.waiter.cancelled()
    return task


async def test_a_batch_that_succeeds_is_released(batches: Batches) -> None:
    task = await start(batches)
    batches.waiter.set_result(None)
    await task
    assert batches.released == 1


async def test_a_batch_that_fails_is_released_and_raises(batches: Batches) -> None:
    task = await start(batches)
    batches.waiter.set_exception(KeyError("failed"))
    with pytest.raises(KeyError, match="failed"):
        await task
    assert batches.released == 1


async def test_a_cancelled_batch_is_released_when_grpc_has_ended_it(batches: Batches) -> None:
    """The task ends at once; gRPC may still write to the batch."""
    task = await start(batches)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert batches.released == 0
    assert not batches.waiter.cancelled()
    batches.waiter.set_exception(KeyError("failed"))
    assert batches.released == 1


async def test_a_batch_that_cannot_start_raises(batches: Batches) -> None:
    run: Any = _releasing(batches.execute)
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="cannot start"):
        await run(None, ("operation",), loop)
    assert type(loop.create_future()) is asyncio.Future


async def test_a_grpcio_that_awaits_something_else_works_as_before() -> None:
    async def execute(_call: Any, _operations: tuple[Any, ...], _loop: Any) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)

    run: Any = _releasing(execute)
    await run(None, (), asyncio.get_running_loop())


def test_the_release_is_installed_once() -> None:
    release_batches()
    installed = cygrpc.execute_batch
    release_batches()
    assert cygrpc.execute_batch is installed


async def test_a_write_that_fails_is_a_cancellation() -> None:
    @reports_errors
    async def method(_servicer: None, _request: None, _context: Any) -> None:
        raise grpc.aio.InternalError("the client has left")

    with pytest.raises(asyncio.CancelledError):
        await method(None, None, None)  # type: ignore[arg-type]
