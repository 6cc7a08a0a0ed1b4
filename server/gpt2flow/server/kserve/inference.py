"""Inference: requests on the models of a registry."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.access.permissions import Caller, UnfinishedRequests, permitted
from gpt2flow.server.engine.results import Delta, GenerationResult
from gpt2flow.server.errors import InvalidRequestError, ServerError, VersionNotFoundError
from gpt2flow.server.kserve.requests import InferRequest, read_request
from gpt2flow.server.kserve.results import (
    VERSION,
    final,
    write_chunk,
    write_end,
    write_whole,
)
from gpt2flow.server.models.model import Model
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.identity import caller_of
from gpt2flow.server.servicer.service import arrival_of, lease_model
from gpt2flow.server.servicer.status import Context
from gpt2flow.server.telemetry.call import current_call

_Write = Callable[[pb.ModelStreamInferResponse], Awaitable[None]]


class Inference:
    """Requests to generate, whole and streamed, within the callers' permissions."""

    def __init__(self, registry: Registry, unfinished: UnfinishedRequests) -> None:
        """Take the models.

        Args:
            registry: Registry of the models.
            unfinished: Quota of unfinished requests by caller.
        """
        self._registry = registry
        self._unfinished = unfinished

    @contextlib.contextmanager
    def model(self, name: str, version: str, caller: Caller) -> Iterator[Model]:
        """Return the context of using a model.

        Raises:
            ServerError: The caller may not use it, or it is not in service.
        """
        model, lease = lease_model(self._registry, name, caller)
        try:
            if version not in {"", VERSION}:
                raise VersionNotFoundError(model.name, version, [VERSION])
            yield model
        finally:
            lease.release()

    async def whole(self, message: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Return the one response of a request.

        Raises:
            ServerError: A field is bad, or the request failed.
        """
        caller = caller_of(context)
        with self.model(message.model_name, message.model_version, caller) as model:
            request = read_request(message, model.limits)
            if request.stream:
                raise InvalidRequestError.of(
                    request.given["stream"].where, "is true, which needs ModelStreamInfer"
                )
            return await self._generate(request, model, context)

    async def stream(self, message: pb.ModelInferRequest, context: Context, write: _Write) -> None:
        """Write the responses of a request of a stream.

        Raises:
            ServerError: A field is bad, or the request failed.
        """
        caller = caller_of(context)
        with self.model(message.model_name, message.model_version, caller) as model:
            request = read_request(message, model.limits)
            if request.stream is False:
                response = final(await self._generate(request, model, context))
                await write(pb.ModelStreamInferResponse(infer_response=response))
                return
            if len(request.prompts) > 1:
                raise InvalidRequestError.of(
                    request.prompts[1].field,
                    "must be a request of its own, as a streamed request has one prompt; "
                    "or set stream to false",
                )
            await self._stream(request, model, context, write)

    async def _generate(
        self, request: InferRequest, model: Model, context: Context
    ) -> pb.ModelInferResponse:
        caller = caller_of(context)
        with request.named(), self._unfinished.hold(caller, len(request.prompts)):
            params = permitted(caller, request.params)
            arrival = arrival_of(context, params)
            on_result = current_call().add_result
            results = await model.generate(request.prompts, params, arrival, on_result)
        return write_whole(results, request, model.name)

    async def _stream(
        self, request: InferRequest, model: Model, context: Context, write: _Write
    ) -> None:
        caller, call = caller_of(context), current_call()
        with request.named(), self._unfinished.hold(caller):
            params = permitted(caller, request.params)
            arrival = arrival_of(context, params)
            async with model.stream(request.prompts[0], params, arrival) as events:
                async for event in events:
                    call.add_event(event)
                    response = _response(event.content, request, model.name)
                    if response is not None:
                        await write(pb.ModelStreamInferResponse(infer_response=response))


def _response(content: object, request: InferRequest, model: str) -> pb.ModelInferResponse | None:
    """Return the response for one event; None if there is none.

    Raises:
        ServerError: The event is an error.
    """
    if isinstance(content, Delta):
        return write_chunk(content, request, model)
    if isinstance(content, ServerError):
        raise content
    assert isinstance(content, GenerationResult)
    return write_end(content, request, model)
