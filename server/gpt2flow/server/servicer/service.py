"""RPCs of `InferenceService`."""
# ruff: noqa: N802 - the names of the methods are the protocol's

import time

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceServicer
from gpt2flow.server.access.permissions import (
    Caller,
    UnfinishedRequests,
    check_model,
    lowered,
    permitted,
)
from gpt2flow.server.errors import ModelNotFoundError
from gpt2flow.server.generation.factory import Arrival
from gpt2flow.server.models.model import Model
from gpt2flow.server.models.registry import Lease, Registry
from gpt2flow.server.params import GenerationParams
from gpt2flow.server.servicer.identity import caller_of, counts_requests
from gpt2flow.server.servicer.requests import read_options, read_prompt, read_prompts
from gpt2flow.server.servicer.responses import (
    write_event,
    write_model,
    write_results,
    write_scores,
    write_tokens,
)
from gpt2flow.server.servicer.status import Context, reports_errors
from gpt2flow.server.telemetry.call import current_call

# Time for a partial result to reach the client before its deadline.
_REPLY_SECONDS = 0.05


class InferenceServicer(InferenceServiceServicer):
    """Implementation of `InferenceService` on the models of a registry.

    Attributes:
        unfinished: Quota of unfinished requests by caller.
    """

    def __init__(self, registry: Registry, unfinished: UnfinishedRequests) -> None:
        self._registry = registry
        self.unfinished = unfinished

    @reports_errors
    @counts_requests
    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Generate from one or more prompts, and respond when all have ended."""
        model = self._find(request.model, context)
        params = permitted(caller_of(context), read_options(request.options))
        prompts = read_prompts("prompts", request.prompts)
        arrival = arrival_of(context, params)
        results = await model.generate(prompts, params, arrival, current_call().add_result)
        return write_results(results, model, params)

    # Events are written to the context, not yielded: an abandoned generator would hold its
    # request's slots until it is garbage-collected.
    @reports_errors
    @counts_requests
    async def GenerateStream(  # type: ignore[override]
        self, request: pb.GenerateStreamRequest, context: Context
    ) -> None:
        """Generate from one prompt, and stream the text as it is decoded."""
        model, call = self._find(request.model, context), current_call()
        params = permitted(caller_of(context), read_options(request.options))
        prompt = read_prompt("prompt", request.prompt)
        async with model.stream(prompt, params, arrival_of(context, params)) as events:
            async for event in events:
                call.add_event(event)
                await context.write(write_event(event, model, params))

    @reports_errors
    @counts_requests
    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Return the log-likelihood of given continuations of one prompt."""
        model = self._find(request.model, context)
        result = await model.score(
            read_prompt("prompt", request.prompt),
            read_prompts("continuations", request.continuations),
            arrival_of(context),
            priority=lowered(caller_of(context)),
            on_result=current_call().add_result,
        )
        return write_scores(result, model)

    @reports_errors
    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """Encode text into token ids."""
        model = self._find(request.model, context)
        return await model.tokenize(
            request.text,
            arrival_of(context),
            write_tokens,
            literal=request.literal,
            add_special_tokens=(
                request.add_special_tokens if request.HasField("add_special_tokens") else True
            ),
        )

    @reports_errors
    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        """Decode token ids into text."""
        model = self._find(request.model, context)
        text = await model.detokenize(
            request.tokens.ids,
            arrival_of(context),
            skip_special_tokens=request.skip_special_tokens,
        )
        return pb.DetokenizeResponse(text=text)

    @reports_errors
    async def ListModels(
        self, _request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the loaded models that the caller may use."""
        models = _open_to(caller_of(context), self._registry)
        return pb.ListModelsResponse(models=[write_model(each) for each in models])

    @reports_errors
    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one loaded model."""
        return pb.GetModelResponse(model=write_model(self._find(request.model, context)))

    def _find(self, name: str, context: Context) -> Model:
        """Return a model, leased until the RPC ends."""
        model, lease = lease_model(self._registry, name, caller_of(context))
        # The type stub requires its own protocol.
        context.add_done_callback(lambda _: lease.release())  # type: ignore[arg-type]
        return model


def lease_model(registry: Registry, name: str, caller: Caller) -> tuple[Model, Lease]:
    """Lease a model for the current call; the lease must be released.

    Raises:
        ServerError: The caller may not use it, or it is not in service.
    """
    check_model(caller, name or registry.default)
    try:
        model, lease = registry.lease(name)
    except ModelNotFoundError as error:
        names = [each.name for each in _open_to(caller, registry)]
        raise ModelNotFoundError(name, names) from error
    current_call().model = model.name
    return model, lease


def _open_to(caller: Caller, registry: Registry) -> list[Model]:
    return [model for model in registry.models if caller.may_use(model.name)]


def arrival_of(context: Context, params: GenerationParams | None = None) -> Arrival:
    """Return time, caller and deadline of the current RPC."""
    now, caller = time.monotonic(), caller_of(context).name
    remaining = context.time_remaining()
    if remaining is None:
        return Arrival(now, caller=caller)
    if params is not None and params.stopping.return_partial_on_time_limit:
        remaining -= min(_REPLY_SECONDS, remaining / 4)
    return Arrival(now, now + remaining, caller)
