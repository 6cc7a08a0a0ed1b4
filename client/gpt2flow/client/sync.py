"""Synchronous client."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc

from gpt2flow.client import requests, responses, results
from gpt2flow.client.addresses import AddressBook, parse_addresses
from gpt2flow.client.call import Call, CallFactory, MetadataSource, token_source
from gpt2flow.client.channel import open_channel
from gpt2flow.client.keepalive import Keepalive
from gpt2flow.client.options import Options
from gpt2flow.client.prompts import Prompt
from gpt2flow.client.retry import Retry
from gpt2flow.client.security import Security
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1 import inference_pb2_grpc

_Stub = inference_pb2_grpc.InferenceServiceStub
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Client:
    """Synchronous client of a gpt2flow server, safe to share among threads.

    Example:
        with Client("127.0.0.1:50051") as client:
            print(client.generate("Where is my order?").text)

    Args:
        address: Address of the server, as `host:port` or `unix:PATH`. Several addresses of servers
            with the same models: a sequence, or text with commas.
        timeout: Default deadline of a call in seconds, all attempts included.
        security: TLS and bearer token; by default plain text without a token.
        retry: Retry policy; None disables retries.
        keepalive: Detection of dead connections.
        metadata: Function that returns metadata to add to each attempt of a call, such as the
            trace context; None adds none.

    Raises:
        SettingsError: A setting is invalid.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout: float = 60.0,
        security: Security = Security(),
        retry: Retry | None = Retry(),
        keepalive: Keepalive = Keepalive(),
        metadata: MetadataSource | None = None,
    ) -> None:
        addresses = parse_addresses(address)
        token = token_source(security)
        self._calls = CallFactory(AddressBook(addresses), timeout, retry, token, metadata)
        self._channels = {each: open_channel(each, security, keepalive) for each in addresses}
        self._stubs = {each: _Stub(channel) for each, channel in self._channels.items()}

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
        """Close the connections and cancel the calls in flight."""
        for channel in self._channels.values():
            channel.close()

    def generate(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        session: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> results.Generation:
        """Generate the continuation of one prompt.

        Args:
            prompt: Text or token ids to continue.
            options: Generation options.
            model: Name of the model; empty selects the server's first.
            session: Session whose calls go to the same of several addresses, while it can be
                reached; None spreads calls.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id, session)
        request = requests.build_single(prompt, options, model)
        response = self._call_unary(lambda stub: stub.Generate, request, call)
        [generation] = responses.parse_generations(response, call.id)
        return generation

    def generate_many(
        self,
        prompts: Iterable[Prompt],
        options: Options = Options(),
        *,
        model: str = "",
        session: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> list[results.Generation]:
        """Generate the continuations of several prompts in one call.

        Args:
            prompts: Texts or token ids to continue, at least one.
            options: Generation options, the same for all prompts.
            model: Name of the model; empty selects the server's first.
            session: Session whose calls go to the same of several addresses, while it can be
                reached; None spreads calls.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Returns:
            One generation per prompt, in the order of `prompts`.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id, session)
        request = requests.build_generate(prompts, options, model)
        response = self._call_unary(lambda stub: stub.Generate, request, call)
        return responses.parse_generations(response, call.id)

    def stream(
        self,
        prompt: Prompt,
        options: Options = Options(),
        *,
        model: str = "",
        session: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Generator[results.Delta | results.Generation, None, None]:
        """Generate the continuation of one prompt and stream its text.

        The call starts with the first iteration. Closing the iterator cancels it. It is
        retried only before the first item.

        Args:
            prompt: Text or token ids to continue.
            options: Generation options.
            model: Name of the model; empty selects the server's first.
            session: Session whose calls go to the same of several addresses, while it can be
                reached; None spreads calls.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Yields:
            A `Delta` for each new piece of text (none in beam search), then the whole
            `Generation` as the last item.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id, session)
        request = requests.build_stream(prompt, options, model)
        parser = responses.StreamParser(call.id)
        while True:
            stub = self._stubs[call.choose_address()]
            messages = stub.GenerateStream(request, **call.arguments())
            try:
                for message in messages:
                    yield parser.parse(message)
            except grpc.RpcError as error:
                delay = call.retry_delay(error, response_started=parser.started)
            else:
                return
            finally:
                messages.cancel()
            time.sleep(delay)

    def score(
        self,
        prompt: Prompt,
        continuations: Iterable[Prompt],
        *,
        model: str = "",
        session: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> results.Scores:
        """Compute the log-likelihoods of given continuations, without decoding.

        Args:
            prompt: Text or token ids that the continuations follow.
            continuations: Texts or token ids to score, at least one.
            model: Name of the model; empty selects the server's first.
            session: Session whose calls go to the same of several addresses, while it can be
                reached; None spreads calls.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Returns:
            One score per continuation, and their ranking.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id, session)
        request = requests.build_score(prompt, continuations, model)
        return responses.parse_scores(
            self._call_unary(lambda stub: stub.Score, request, call), call.id
        )

    def tokenize(
        self,
        text: str,
        *,
        literal: bool = False,
        add_special_tokens: bool = True,
        model: str = "",
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> list[results.Token]:
        """Encode text into tokens.

        Args:
            text: Text to encode.
            literal: True to treat special tokens that are written out in the text, such as
                `<|endoftext|>`, like any other text.
            add_special_tokens: True to add the special tokens that the tokenizer puts around a
                text.
            model: Name of the model; empty selects the server's first.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Returns:
            The tokens in order, each with its byte offsets in the text.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id)
        request = requests.build_tokenize(
            text, literal=literal, add_special_tokens=add_special_tokens, model=model
        )
        response = self._call_unary(lambda stub: stub.Tokenize, request, call)
        return [responses.parse_token(t) for t in response.tokens]

    def detokenize(
        self,
        tokens: Iterable[int],
        *,
        skip_special_tokens: bool = False,
        model: str = "",
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> str:
        """Decode token ids into text.

        Args:
            tokens: Token ids to decode.
            skip_special_tokens: True to leave special tokens out of the text.
            model: Name of the model; empty selects the server's first.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Returns:
            The text; bytes that are not UTF-8 appear as U+FFFD.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id)
        request = requests.build_detokenize(
            tokens, skip_special_tokens=skip_special_tokens, model=model
        )
        return self._call_unary(lambda stub: stub.Detokenize, request, call).text

    def models(
        self, *, timeout: float | None = None, request_id: str | None = None
    ) -> list[results.Model]:
        """List the loaded models.

        Args:
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Returns:
            The models, the server's default first.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id)
        response = self._call_unary(lambda stub: stub.ListModels, pb.ListModelsRequest(), call)
        return [responses.parse_model(m) for m in response.models]

    def model(
        self, name: str = "", *, timeout: float | None = None, request_id: str | None = None
    ) -> results.Model:
        """Describe one model: its limits, quality and export recipe.

        Args:
            name: Name of the model; empty selects the server's first.
            timeout: Deadline in seconds, all attempts included; None uses the client's.
            request_id: Id of the call in the server's log: 1 to 128 printable ASCII
                characters. None generates one.

        Raises:
            ClientError: The call failed; the subclass gives the reason.
            SettingsError: An argument is invalid; no call was made.
        """
        call = self._calls.start(timeout, request_id)
        request = requests.build_get_model(name)
        return responses.parse_model(
            self._call_unary(lambda stub: stub.GetModel, request, call).model
        )

    def _call_unary(
        self,
        rpc: "Callable[[_Stub], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
        call: Call,
    ) -> _Response:
        while True:
            try:
                method = rpc(self._stubs[call.choose_address()])
                return method(request, **call.arguments())
            except grpc.RpcError as error:
                delay = call.retry_delay(error)
            time.sleep(delay)
