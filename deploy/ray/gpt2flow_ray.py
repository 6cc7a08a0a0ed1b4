"""Ray Serve application: replicas of the server's servicer behind Ray's gRPC proxy.

Each replica is a process with the models, an engine and the servicer of `gpt2flow serve`, without
its port. `serve.yaml` beside this file deploys it, and docs/scaling.md describes it.
"""
# ruff: noqa: N802 - the names of the methods are the protocol's

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.empty_pb2 import Empty
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext

from gpt2flow.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from gpt2flow.server import ServerConfig
from gpt2flow.server.access.permissions import UnfinishedRequests
from gpt2flow.server.config.file import ConfigSource
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.service import InferenceServicer

# Start of the message of an internal error that the servicer itself reports.
_OWN_ERROR: Final = "internal error "
_INTERNAL: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.INTERNAL.value[0])

Metadata = Sequence[tuple[str, str | bytes]]


class AbortedError(Exception):
    """An RPC has ended with a status, which its context holds."""


class ReplicaContext:
    """Context of one RPC in a replica, as the servicer expects it.

    Ray passes no deadline on: its own is `request_timeout_s` of `grpc_options`.

    Attributes:
        messages: Messages of a stream that have not been sent, at most one; None after the last.
    """

    def __init__(self, context: RayServegRPCContext) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue(1)
        self._context = context
        self._callbacks: list[Callable[[Any], None]] = []

    def peer(self) -> str:
        """Return the address of the client."""
        return str(self._context.peer())

    def auth_context(self) -> Any:
        """Return what TLS has verified about the client."""
        return self._context.auth_context()

    def time_remaining(self) -> None:
        """Return None: there is no deadline."""

    def code(self) -> Any:
        """Return the status, if it has been set."""
        return self._context.code()

    def trailing_metadata(self) -> Metadata:
        """Return the metadata that follows the response."""
        return tuple(self._context.trailing_metadata())

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set the metadata that follows the response."""
        self._context.set_trailing_metadata(list(metadata))

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call a function when the RPC has ended."""
        self._callbacks.append(callback)

    async def write(self, message: Any) -> None:
        """Send a message of a stream."""
        await self.messages.put(message)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the RPC with a status.

        Raises:
            AbortedError: Always.
        """
        self._context.set_code(code)
        self._context.set_details(details)
        self.set_trailing_metadata(trailing_metadata)
        raise AbortedError(details)

    def end(self) -> None:
        """Call the functions that wait for the end."""
        for callback in self._callbacks:
            callback(self)


Method = Callable[[Any, Any], Awaitable[Any]]


def _unary(name: str) -> Callable[..., Awaitable[Any]]:
    """Return the deployment's method for a unary RPC."""

    async def call(self: "Inference", request: Any, grpc_context: RayServegRPCContext) -> Any:
        context = ReplicaContext(grpc_context)
        try:
            return await getattr(self.servicer, name)(request, context)
        except AbortedError:
            # Raised, it would lose its metadata in Ray: bad fields, and the delay of retries.
            return Empty()
        finally:
            context.end()

    return call


class Inference:
    """One replica: models, engine and servicer.

    Attributes:
        servicer: Servicer of `InferenceService`.
    """

    async def __init__(self, config: ServerConfig) -> None:
        """Load the models.

        Raises:
            BundleError: A bundle cannot be served.
            ConfigError: The memory for the KV cache does not hold one sequence.
        """
        self._registry = Registry(config.models, config.drain_seconds)
        self.servicer = InferenceServicer(self._registry, UnfinishedRequests())
        await self._registry.apply(config.model_configs)

    Generate = _unary("Generate")
    Score = _unary("Score")
    Tokenize = _unary("Tokenize")
    Detokenize = _unary("Detokenize")
    ListModels = _unary("ListModels")
    GetModel = _unary("GetModel")

    async def GenerateStream(
        self, request: Any, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        """Generate from one prompt, and stream the text as it is decoded."""
        context = ReplicaContext(grpc_context)
        stream = asyncio.create_task(self._stream(request, context))
        try:
            while (message := await context.messages.get()) is not None:
                yield message
            await stream
        finally:
            stream.cancel()
            context.end()

    async def _stream(self, request: Any, context: ReplicaContext) -> None:
        method: Method = self.servicer.GenerateStream
        try:
            await method(request, context)
        finally:
            await context.messages.put(None)

    async def check_health(self) -> None:
        """Raise an error if a model does not serve; Ray replaces the replica."""
        if not self._registry.ready:
            raise RuntimeError("a model of this replica does not serve requests")

    async def __del__(self) -> None:
        """End unfinished requests, and stop the engines."""
        await self._registry.close()


def application(arguments: dict[str, str]) -> serve.Application:
    """Return the application.

    Args:
        arguments: `config`, the path of a settings file as for `gpt2flow serve --config`.

    Raises:
        ValueError: There is another argument, or none.
        ConfigError: The file cannot be read, or a setting is invalid.
    """
    if set(arguments) != {"config"}:
        raise ValueError(f"args has {sorted(arguments)}, must have config, the path of a TOML file")
    return serve.deployment(Inference).bind(ConfigSource(file=Path(arguments["config"])).read())


def add_to_proxy(servicer: Any, server: Any) -> None:
    """Register `InferenceService` with Ray's gRPC proxy.

    A replica that dies ends its calls with UNAVAILABLE, which clients retry; Ray itself reports
    INTERNAL.
    """
    server.service_handler_factory = _retriable(server.service_handler_factory)
    add_InferenceServiceServicer_to_server(servicer, server)


def _retriable(factory: Callable[..., Any]) -> Callable[..., Any]:
    def make(service_method: str, streaming_type: Any) -> Any:
        handler = factory(service_method=service_method, streaming_type=streaming_type)

        async def unary(request: Any, context: Any) -> Any:
            response = await handler(request, context)
            _report_lost_replica(context)
            return response

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for message in handler(request, context):
                yield message
            _report_lost_replica(context)

        return stream if streaming_type.value.endswith("stream") else unary

    return make


def _report_lost_replica(context: Any) -> None:
    details = context.details() or ""
    text = details.decode(errors="replace") if isinstance(details, bytes) else details
    if context.code() in _INTERNAL and not text.startswith(_OWN_ERROR):
        context.set_code(grpc.StatusCode.UNAVAILABLE)
