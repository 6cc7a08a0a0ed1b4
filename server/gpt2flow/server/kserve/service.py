"""RPCs of `GRPCInferenceService`."""
# ruff: noqa: N802 - the names of the methods are the protocol's

from collections.abc import AsyncIterator

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.inference.kserve.v2.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from gpt2flow.server.access.permissions import UnfinishedRequests
from gpt2flow.server.kserve.inference import Inference
from gpt2flow.server.kserve.metadata import model_config, model_metadata, server_metadata
from gpt2flow.server.kserve.repository import Repository
from gpt2flow.server.kserve.results import VERSION
from gpt2flow.server.kserve.stream import InferStream
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.identity import caller_of
from gpt2flow.server.servicer.status import Context, reports_errors


class OpenInferenceServicer(GRPCInferenceServiceServicer):
    """Implementation of `GRPCInferenceService` on the models of a registry."""

    def __init__(
        self, registry: Registry, unfinished: UnfinishedRequests, *, control: bool
    ) -> None:
        """Take the models.

        Args:
            registry: Registry of the models.
            unfinished: Quota of unfinished requests by caller.
            control: Whether callers without a token may load and unload models.
        """
        self._registry = registry
        self._inference = Inference(registry, unfinished)
        self._repository = Repository(registry, control=control)

    @reports_errors
    async def ServerLive(
        self, _request: pb.ServerLiveRequest, _context: Context
    ) -> pb.ServerLiveResponse:
        """Return that the process answers."""
        return pb.ServerLiveResponse(live=True)

    @reports_errors
    async def ServerReady(
        self, _request: pb.ServerReadyRequest, _context: Context
    ) -> pb.ServerReadyResponse:
        """Return whether all loaded models accept requests."""
        return pb.ServerReadyResponse(ready=self._registry.ready)

    @reports_errors
    async def ModelReady(
        self, request: pb.ModelReadyRequest, _context: Context
    ) -> pb.ModelReadyResponse:
        """Return whether a model accepts requests."""
        known = request.version in {"", VERSION}
        return pb.ModelReadyResponse(ready=known and bool(self._registry.model_ready(request.name)))

    @reports_errors
    async def ServerMetadata(
        self, _request: pb.ServerMetadataRequest, _context: Context
    ) -> pb.ServerMetadataResponse:
        """Describe the server."""
        return server_metadata()

    @reports_errors
    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe the tensors of a model."""
        with self._inference.model(request.name, request.version, caller_of(context)) as model:
            return model_metadata(model.name)

    @reports_errors
    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Describe a model in the form of Triton's configuration files."""
        with self._inference.model(request.name, request.version, caller_of(context)) as model:
            return model_config(model.name)

    @reports_errors
    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Generate from one or more prompts, and respond when all have ended."""
        return await self._inference.whole(request, context)

    @reports_errors
    async def ModelStreamInfer(  # type: ignore[override]
        self, _requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> None:
        """Answer the requests of a stream, each with one response or more."""
        await InferStream(self._inference, self._registry, context).run()

    @reports_errors
    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the models that the caller may use, loaded or not."""
        return self._repository.index(request, caller_of(context))

    @reports_errors
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model, or replace it if its bundle has changed."""
        await self._repository.load(request, caller_of(context))
        return pb.RepositoryModelLoadResponse()

    @reports_errors
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Take a model out of service."""
        await self._repository.unload(request, caller_of(context))
        return pb.RepositoryModelUnloadResponse()
