"""Release of the memory of gRPC's batches, however they end.

The asyncio API of grpcio runs the operations of a call in batches. It releases what a batch holds
in C only if the batch succeeds and the task that awaits it is not cancelled (grpc/grpc#43360).
So each call that its client cancels would leak about 100 bytes, and a message in flight besides.

grpcio awaits a batch on a future of the event loop. Here it gets a `_Completion` instead, which
ends the batch whatever its result, and then reports the result to the task.
"""

import asyncio
import functools
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Self

from grpc._cython import cygrpc  # type: ignore[attr-defined]

_Batch = Coroutine[Any, Any, None]
_ExecuteBatch = Callable[[Any, tuple[Any, ...], asyncio.AbstractEventLoop], _Batch]


def release_batches() -> None:
    """Make grpcio release the memory of every batch of this process."""
    original = getattr(cygrpc, "execute_batch", None)
    if original is not None and not hasattr(original, "__wrapped__"):
        cygrpc.execute_batch = _releasing(original)


def _releasing(original: _ExecuteBatch) -> _ExecuteBatch:
    """Return grpcio's function that runs a batch, with the release."""

    @functools.wraps(original)
    async def execute_batch(
        call: Any, operations: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        completion = _Completion(original(call, operations, loop), loop.create_future())
        awaited = _start(completion, loop)
        try:
            if awaited is completion:
                await completion.result
            else:  # A version of grpcio that awaits something else runs without the release.
                await _resume(completion.batch, awaited)
        finally:
            # An exception holds this frame, and the future holds the exception.
            del completion, awaited

    return execute_batch


class _Completion:
    """Stand-in for the future of a batch, as gRPC's callback uses it.

    Attributes:
        batch: Coroutine of grpcio that runs the batch.
        result: Future of the result, for the task of the call.
    """

    __slots__ = ("batch", "result")

    def __init__(self, batch: _Batch, result: "asyncio.Future[None]") -> None:
        self.batch = batch
        self.result = result

    def __await__(self) -> Generator[Self, None, None]:
        yield self

    def cancelled(self) -> bool:
        """Return False: the batch ends after the cancellation of its task, too."""
        return False

    def set_result(self, _: None) -> None:
        """End a batch that succeeded."""
        self._end(None)

    def set_exception(self, error: Exception) -> None:
        """End a batch that failed."""
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        try:
            # grpcio's coroutine releases the memory, and returns.
            self.batch.send(None)
        except StopIteration:
            pass
        except Exception as raised:  # noqa: BLE001 - the task of the call gets it
            error = error or raised
        if self.result.done():  # The task was cancelled.
            return
        if error is None:
            self.result.set_result(None)
        else:
            self.result.set_exception(error)


def _start(completion: _Completion, loop: asyncio.AbstractEventLoop) -> Any:
    """Run grpcio's coroutine until it awaits, and return what it awaits."""
    loop.create_future = lambda: completion  # type: ignore[method-assign,assignment,return-value]
    try:
        return completion.batch.send(None)
    finally:
        del loop.create_future  # The method of the class is back.


@types.coroutine
def _resume(batch: _Batch, awaited: Any) -> Generator[Any, Any, None]:
    """Await what a started coroutine awaits, then the rest of it."""
    yield awaited
    yield from batch.__await__()
