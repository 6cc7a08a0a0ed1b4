"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc

from gpt2flow.client import requests, results
from gpt2flow.client.call import Call, Calls
from gpt2flow.client.channel import open_async_channel
from gpt2flow.client.keepalive import Keepalive
from gpt2flow.client.options import Options, Prompt
from gpt2flow.client.retry import Retry
from gpt2flow.client.security import Security
from gpt2flow.client.token import TokenSource
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1 import inference_pb2_grpc

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


class AsyncClient:
    """Talks to the server at `address` (`host:port`) from one event loop.

    Args:
        address: Where the server listens.
        timeout: Seconds that a call may take unless it says otherwise, with all its attempts.
        security: TLS and token; the default is plain text without a token.
        retry: When a call is tried again; None is never.
        keepalive: When a silent connection is taken for dead.

    Every method raises a `ClientError`, and sends a request id, its own unless one is given;
    cancelling the awaiting task cancels the call.

    Raises:
        SettingsError: A setting is not usable.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 60.0,
        security: Security = Security(),
        retry: Retry | None = Retry(),
        keepalive: Keepalive = Keepalive(),
    ) -> None:
        token = None if security.token is None else TokenSource(security.token)
        self._calls = Calls(address, timeout, retry, token)
        self._channel = open_async_channel(address, security, keepalive)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls under way are cancelled."""
        await self._channel.close()

    async def generate(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the deadline that the server sees
        request_id: str | None = None,
    ) -> results.Generation:
        """Continue one prompt."""
        [generation] = await self.generate_many(
            [prompt], options, model=model, timeout=timeout, request_id=request_id
        )
        return generation

    async def generate_many(
        self,
        prompts: Sequence[Prompt],
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> list[results.Generation]:
        """Continue several prompts with the same options, in their order."""
        call = self._calls.begin(timeout, request_id)
        request = requests.generate_request(prompts, options, model)
        return results.generations(await self._unary(self._stub.Generate, request, call), call.id)

    async def stream(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> AsyncGenerator[results.Delta | results.Generation, None]:
        """Yield text as it is decoded, and the whole generation as the last item.

        Closing the iterator cancels the call.
        """
        call = self._calls.begin(timeout, request_id)
        request = requests.stream_request(prompt, options, model)
        stream = results.Stream(call.id)
        while True:
            messages = self._stub.GenerateStream(request, **call.arguments())
            try:
                async for message in messages:
                    yield stream.item(message)
            except grpc.RpcError as error:
                pause = call.pause_after(error, answered=stream.begun)
            else:
                return
            finally:
                messages.cancel()
            await asyncio.sleep(pause)

    async def score(
        self,
        prompt: Prompt,
        continuations: Sequence[Prompt],
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> results.Scores:
        """Tell how likely each continuation of the prompt is, without decoding."""
        call = self._calls.begin(timeout, request_id)
        request = requests.score_request(prompt, continuations, model)
        return results.scores(await self._unary(self._stub.Score, request, call), call.id)

    async def tokenize(
        self,
        text: str,
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> list[results.Token]:
        """Encode text."""
        call = self._calls.begin(timeout, request_id)
        request = pb.TokenizeRequest(model=model, text=text)
        answer = await self._unary(self._stub.Tokenize, request, call)
        return [results.token(t) for t in answer.tokens]

    async def detokenize(
        self,
        tokens: Sequence[int],
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> str:
        """Decode token ids."""
        call = self._calls.begin(timeout, request_id)
        request = requests.detokenize_request(tokens, model)
        return (await self._unary(self._stub.Detokenize, request, call)).text

    async def models(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> list[results.Model]:
        """Lists the loaded models."""
        call = self._calls.begin(timeout, request_id)
        answer = await self._unary(self._stub.ListModels, pb.ListModelsRequest(), call)
        return [results.model(m) for m in answer.models]

    async def model(
        self,
        name: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        request_id: str | None = None,
    ) -> results.Model:
        """Describe one model; no name is the server's first."""
        call = self._calls.begin(timeout, request_id)
        request = pb.GetModelRequest(model=name)
        return results.model((await self._unary(self._stub.GetModel, request, call)).model)

    async def _unary(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer]",
        request: _Request,
        call: Call,
    ) -> _Answer:
        while True:
            try:
                return await method(request, **call.arguments())
            except grpc.RpcError as error:
                pause = call.pause_after(error)
            await asyncio.sleep(pause)
