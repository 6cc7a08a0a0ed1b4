"""The client for asyncio."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from gpt2flow.client import requests, results
from gpt2flow.client.errors import client_error
from gpt2flow.client.options import Options, Prompt
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1 import inference_pb2_grpc


class AsyncClient:
    """Talks to the server at `address` (`host:port`) from one event loop.

    Args:
        address: where the server listens.
        timeout: seconds that a call may take unless it says otherwise.

    Every method raises a `ClientError`; cancelling the awaiting task cancels
    the call.
    """

    def __init__(self, address: str, *, timeout: float = 60.0) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = grpc.aio.insecure_channel(address, options=requests.CHANNEL_OPTIONS)
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
        """Ends the connection; calls under way are cancelled."""
        await self._channel.close()

    async def generate(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the deadline that the server sees
    ) -> results.Generation:
        """Continues one prompt."""
        return (await self.generate_many([prompt], options, model=model, timeout=timeout))[0]

    async def generate_many(
        self,
        prompts: Sequence[Prompt],
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> list[results.Generation]:
        """Continues several prompts with the same options, in their order."""
        request = requests.generate_request(prompts, options, model)
        with self._errors():
            answer = await self._stub.Generate(request, timeout=timeout or self.timeout)
        return [results.generation(r, answer.model, answer.fingerprint) for r in answer.results]

    async def stream(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncIterator[results.Delta | results.Generation]:
        """Yields text as it is decoded, and the whole generation as the last item.

        Closing the iterator cancels the call.
        """
        request = requests.stream_request(prompt, options, model)
        call = self._stub.GenerateStream(request, timeout=timeout or self.timeout)
        try:
            with self._errors():
                async for message in call:
                    if message.HasField("delta"):
                        yield results.delta(message.delta)
                    else:
                        end = message.end
                        yield results.generation(end.result, end.model, end.fingerprint)
        finally:
            call.cancel()

    async def tokenize(self, text: str, *, model: str = "") -> list[results.Token]:
        """Encodes text."""
        request = pb.TokenizeRequest(model=model, text=text)
        with self._errors():
            answer = await self._stub.Tokenize(request, timeout=self.timeout)
        return [results.token(t) for t in answer.tokens]

    async def detokenize(self, tokens: Sequence[int], *, model: str = "") -> str:
        """Decodes token ids."""
        request = requests.detokenize_request(tokens, model)
        with self._errors():
            return (await self._stub.Detokenize(request, timeout=self.timeout)).text

    async def models(self) -> list[results.Model]:
        """Lists the loaded models."""
        with self._errors():
            answer = await self._stub.ListModels(pb.ListModelsRequest(), timeout=self.timeout)
        return [results.model(m) for m in answer.models]

    async def model(self, name: str = "") -> results.Model:
        """Describes one model; no name is the server's first."""
        with self._errors():
            answer = await self._stub.GetModel(pb.GetModelRequest(model=name), timeout=self.timeout)
        return results.model(answer.model)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise client_error(error, self.address) from error
