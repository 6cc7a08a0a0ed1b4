"""Stream of requests, which run at the same time."""

import asyncio
from typing import Any, Final

import grpc

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.errors import DrainingError, InvalidRequestError
from gpt2flow.server.kserve.inference import Inference
from gpt2flow.server.kserve.results import write_error
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.observer import streamed_request
from gpt2flow.server.servicer.status import Context, Undecodable, status_of

# Unfinished requests of one stream; further ones are not read.
_MAX_UNFINISHED: Final = 256


class InferStream:
    """One stream: its requests, and the one writer of its responses.

    An error ends its request, and not the stream.
    """

    def __init__(self, inference: Inference, registry: Registry, context: Context) -> None:
        self._inference = inference
        self._registry = registry
        self._context = context
        self._room = asyncio.Semaphore(_MAX_UNFINISHED)
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Answer requests until the client or the server ends the stream.

        Raises:
            DrainingError: The server has shut down.
        """
        closing = asyncio.create_task(self._closed())
        try:
            async with asyncio.TaskGroup() as running:
                while (request := await self._next(closing)) is not grpc.aio.EOF:
                    await self._room.acquire()
                    running.create_task(self._answer(request))
        except ExceptionGroup as group:
            # They are errors of the connection, one for each request that still wrote.
            raise group.exceptions[0] from None
        finally:
            closing.cancel()
        if self._registry.closed:
            raise DrainingError("the server is shutting down")

    async def _closed(self) -> None:
        while not self._registry.closed:
            await self._registry.changed()

    async def _next(self, closing: "asyncio.Task[None]") -> Any:
        """Return the next request, or EOF if stream or server end."""
        reading = asyncio.ensure_future(self._context.read())
        try:
            await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else grpc.aio.EOF
        finally:
            reading.cancel()

    async def _answer(self, request: pb.ModelInferRequest | Undecodable) -> None:
        """Answer one request."""
        request_id = "" if isinstance(request, Undecodable) else request.id
        try:
            with streamed_request(request_id) as reported:
                try:
                    await self._inference.stream(_decoded(request), self._context, self._write)
                except grpc.aio.InternalError:
                    raise
                except Exception as error:  # noqa: BLE001 - any other failure is the request's
                    reported.code, message = status_of(error)
                    await self._write(write_error(request_id, f"{reported.code.name}: {message}"))
        finally:
            self._room.release()

    async def _write(self, response: pb.ModelStreamInferResponse) -> None:
        async with self._writing:
            await self._context.write(response)


def _decoded(request: pb.ModelInferRequest | Undecodable) -> pb.ModelInferRequest:
    if isinstance(request, Undecodable):
        raise InvalidRequestError.of("", "the bytes are no ModelInferRequest")
    return request
