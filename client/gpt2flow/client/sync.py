"""The client for ordinary code."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from gpt2flow.client import requests, results
from gpt2flow.client.errors import client_error
from gpt2flow.client.options import Options, Prompt
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1 import inference_pb2_grpc


class Client:
    """Talks to the server at `address` (`host:port`); safe to share among threads.

    Args:
        address: where the server listens.
        timeout: seconds that a call may take unless it says otherwise.

    Every method raises a `ClientError`.
    """

    def __init__(self, address: str, *, timeout: float = 60.0) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = grpc.insecure_channel(address, options=requests.CHANNEL_OPTIONS)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls under way are cancelled."""
        self._channel.close()

    def generate(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,
    ) -> results.Generation:
        """Continues one prompt."""
        return self.generate_many([prompt], options, model=model, timeout=timeout)[0]

    def generate_many(
        self,
        prompts: Sequence[Prompt],
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,
    ) -> list[results.Generation]:
        """Continues several prompts with the same options, in their order."""
        request = requests.generate_request(prompts, options, model)
        with self._errors():
            answer = self._stub.Generate(request, timeout=timeout or self.timeout)
        return [results.generation(r, answer.model, answer.fingerprint) for r in answer.results]

    def stream(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        timeout: float | None = None,
    ) -> Generator[results.Delta | results.Generation, None, None]:
        """Yields text as it is decoded, and the whole generation as the last item.

        Closing the iterator cancels the call.
        """
        request = requests.stream_request(prompt, options, model)
        call = self._stub.GenerateStream(request, timeout=timeout or self.timeout)
        try:
            with self._errors():
                for message in call:
                    if message.HasField("delta"):
                        yield results.delta(message.delta)
                    else:
                        end = message.end
                        yield results.generation(end.result, end.model, end.fingerprint)
        finally:
            call.cancel()

    def tokenize(self, text: str, *, model: str = "") -> list[results.Token]:
        """Encodes text."""
        request = pb.TokenizeRequest(model=model, text=text)
        with self._errors():
            answer = self._stub.Tokenize(request, timeout=self.timeout)
        return [results.token(t) for t in answer.tokens]

    def detokenize(self, tokens: Sequence[int], *, model: str = "") -> str:
        """Decodes token ids."""
        request = requests.detokenize_request(tokens, model)
        with self._errors():
            return self._stub.Detokenize(request, timeout=self.timeout).text

    def models(self) -> list[results.Model]:
        """Lists the loaded models."""
        with self._errors():
            answer = self._stub.ListModels(pb.ListModelsRequest(), timeout=self.timeout)
        return [results.model(m) for m in answer.models]

    def model(self, name: str = "") -> results.Model:
        """Describes one model; no name is the server's first."""
        with self._errors():
            answer = self._stub.GetModel(pb.GetModelRequest(model=name), timeout=self.timeout)
        return results.model(answer.model)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise client_error(error, self.address) from error
