"""The RPCs of `InferenceService`."""
# ruff: noqa: N802 - the names of the methods are the protocol's

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import (
    InferenceServiceServicer,
)
from gpt2flow.server.access.permissions import (
    Caller,
    UnfinishedRequests,
    check_model,
    lowered,
    permitted,
)
from gpt2flow.server.engine.results import Delta, Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import (
    MAX_VIOLATIONS,
    FieldViolation,
    InvalidRequestError,
    ModelNotFoundError,
    ServerError,
    TimeLimitError,
)
from gpt2flow.server.generation.factory import Arrival, Prompt
from gpt2flow.server.models.model import Model
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.params import BeamSearchParams, GenerationParams
from gpt2flow.server.servicer.identity import caller_of, counts_requests
from gpt2flow.server.servicer.requests import read_options, read_prompt
from gpt2flow.server.servicer.responses import (
    write_delta,
    write_model,
    write_result,
    write_scores,
    write_tokens,
)
from gpt2flow.server.servicer.status import Context, reports_errors
from gpt2flow.server.telemetry.call import current_call

# Texts longer than this are tokenised in another thread, so that the loop stays live: a
# microsecond a byte, up to 2 ms.
_LONG_TEXT = 1024
# What a client gets of an answer that was cut short must reach it before its deadline.
_REPLY_SECONDS = 0.05

_T = TypeVar("_T")


class InferenceServicer(InferenceServiceServicer):
    """Serves the models of a registry.

    Attributes:
        unfinished: Requests by caller.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.unfinished = UnfinishedRequests()

    @reports_errors
    @counts_requests
    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Generate from one prompt or several and answers when all have ended."""
        model = self._find(request.model, context)
        params = permitted(caller_of(context), read_options(request.options))
        prompts = [read_prompt(f"prompts[{i}]", each) for i, each in enumerate(request.prompts)]
        arrival = _arrival(context, params)
        heavy = request.ByteSize() > _LONG_TEXT
        tasks = await _tasks(model, prompts, params, arrival, heavy=heavy)
        with model.engine.submit(tasks) as streams:
            results = await _all(streams)
        return pb.GenerateResponse(
            results=[
                write_result(result, model.tokenizer, token_ids=params.output.token_ids)
                for result in results
            ],
            model=model.name,
            fingerprint=model.bundle.fingerprint,
        )

    # Written to the context, not yielded: an abandoned generator would hold its request's
    # slots until it is collected.
    @reports_errors
    @counts_requests
    async def GenerateStream(  # type: ignore[override]
        self, request: pb.GenerateStreamRequest, context: Context
    ) -> None:
        """Generate from one prompt; text arrives as it is decoded."""
        model = self._find(request.model, context)
        params = permitted(caller_of(context), read_options(request.options))
        arrival = _arrival(context, params)
        prompt = read_prompt("prompt", request.prompt)
        heavy = request.ByteSize() > _LONG_TEXT
        tasks = await _tasks(model, [prompt], params, arrival, stream=True, heavy=heavy)
        call = current_call()
        with model.engine.submit(tasks) as [events]:
            async for event in events:
                call.deliver(event)
                await context.write(_stream_message(event, model, params))

    @reports_errors
    @counts_requests
    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Return the log-likelihood of given continuations of one prompt."""
        model = self._find(request.model, context)
        prompt = read_prompt("prompt", request.prompt)
        continuations = [
            read_prompt(f"continuations[{i}]", each) for i, each in enumerate(request.continuations)
        ]
        arrival, priority = _arrival(context), lowered(caller_of(context))
        task = await _offload(
            lambda: model.tasks.score(prompt, continuations, arrival, priority=priority),
            heavy=request.ByteSize() > _LONG_TEXT,
        )
        with model.engine.submit([task]) as [events]:
            return write_scores(await _last(events, ScoreResult), model)

    @reports_errors
    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """Encode text into token ids."""
        model = self._find(request.model, context)
        return await _offload(
            lambda: write_tokens(model.tokenizer.tokenize(request.text)),
            heavy=request.ByteSize() > _LONG_TEXT,
        )

    @reports_errors
    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        """Decode token ids into text."""
        model = self._find(request.model, context)
        text = await _offload(
            lambda: _detokenized(model, request.tokens.ids), heavy=request.ByteSize() > _LONG_TEXT
        )
        return pb.DetokenizeResponse(text=text)

    @reports_errors
    async def ListModels(
        self, _request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the loaded models, as far as they are open to the caller."""
        models = self._open_to(caller_of(context))
        return pb.ListModelsResponse(models=[write_model(each) for each in models])

    @reports_errors
    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one loaded model."""
        return pb.GetModelResponse(model=write_model(self._find(request.model, context)))

    def _find(self, name: str, context: Context) -> Model:
        """Return the model of a name, for as long as the call lasts."""
        caller = caller_of(context)
        check_model(caller, name or self._registry.default)
        try:
            model, lease = self._registry.lease(name)
        except ModelNotFoundError as error:
            names = [each.name for each in self._open_to(caller)]
            raise ModelNotFoundError(name, names) from error
        # The stub wants a subclass of its own protocol.
        context.add_done_callback(lambda _: lease.release())  # type: ignore[arg-type]
        current_call().model = model.name
        return model

    def _open_to(self, caller: Caller) -> list[Model]:
        return [model for model in self._registry.models if caller.may_use(model.name)]


def _arrival(context: Context, params: GenerationParams | None = None) -> Arrival:
    now, caller = time.monotonic(), caller_of(context).name
    remaining = context.time_remaining()
    if remaining is None:
        return Arrival(now, caller=caller)
    if params is not None and params.stopping.return_partial_on_time_limit:
        remaining -= min(_REPLY_SECONDS, remaining / 4)
    return Arrival(now, now + remaining, caller)


def _detokenized(model: Model, ids: Sequence[int]) -> str:
    size = model.limits.vocabulary_size
    limit = f"must be below the vocabulary size of {size}"
    bad = (i for i, token_id in enumerate(ids) if token_id >= size)
    if found := [FieldViolation(f"tokens.ids[{i}]", limit) for i in islice(bad, MAX_VIOLATIONS)]:
        raise InvalidRequestError(found)
    return model.tokenizer.decode(ids)


async def _tasks(
    model: Model,
    prompts: Sequence[Prompt],
    params: GenerationParams,
    arrival: Arrival,
    *,
    stream: bool = False,
    heavy: bool,
) -> list[Task]:
    """Return a task for each prompt; a constraint is tried once all else is found to be good."""
    resolved = await _offload(lambda: model.tasks.resolve(prompts, params), heavy=heavy)
    constrained = params.constraint is not None
    if constrained and not await _prepared(model, params, arrival):
        # Its time is up, and nothing will be generated.
        params, constrained = replace(params, constraint=None), False
    return await _offload(
        lambda: model.tasks.generations(resolved, params, arrival, stream=stream),
        heavy=heavy or constrained,
    )


async def _prepared(model: Model, params: GenerationParams, arrival: Arrival) -> bool:
    """Try a constraint that is new; returns whether that was done before the request's end.

    What is wrong with it is told when it is compiled.
    """
    assert params.constraint is not None
    partial = params.stopping.return_partial_on_time_limit
    try:
        await model.grammars.prepare(
            params.constraint,
            arrival.caller,
            arrival.until(params.stopping),
            allow_partial=partial,
        )
    except TimeLimitError:
        if not partial:
            raise
        return False
    return True


async def _offload(function: Callable[[], _T], *, heavy: bool) -> _T:
    """Call a function, in another thread if it may take long."""
    return await asyncio.to_thread(function) if heavy else function()


async def _last(events: AsyncIterator[Event], kind: type[_T]) -> _T:
    """Return what a request came to, once it has."""
    last = [event async for event in events][-1]
    current_call().note(last)
    content = last.content
    if isinstance(content, ServerError):
        raise content
    assert isinstance(content, kind)
    return content


async def _all(streams: Sequence[AsyncIterator[Event]]) -> list[GenerationResult]:
    """Return what the requests of a call came to; the first that fails ends it at once."""
    if len(streams) == 1:
        return [await _last(streams[0], GenerationResult)]
    tasks = [asyncio.ensure_future(_last(events, GenerationResult)) for events in streams]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _stream_message(
    event: Event, model: Model, params: GenerationParams
) -> pb.GenerateStreamResponse:
    content = event.content
    if isinstance(content, Delta):
        return pb.GenerateStreamResponse(delta=write_delta(content, model.tokenizer))
    if isinstance(content, ServerError):
        raise content
    assert isinstance(content, GenerationResult)
    result = write_result(
        content,
        model.tokenizer,
        token_ids=params.output.token_ids,
        streamed=not isinstance(params.decoding, BeamSearchParams),
    )
    end = pb.StreamEnd(result=result, model=model.name, fingerprint=model.bundle.fingerprint)
    return pb.GenerateStreamResponse(end=end)
