"""`grpc.health.v1.Health`: what of the server is ready.

`grpcio-health-checking` has a servicer too, but one of its watchers that leaves
silences the others of the same name, and one that does not read holds up the server.
"""
# ruff: noqa: N802 - the names of the methods are the protocol's

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer as _HealthServicer

from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.status import Context


class HealthServicer(_HealthServicer):  # type: ignore[misc]
    """Tells of the server as a whole (the empty name), of its services, and of each model."""

    def __init__(self, registry: Registry, services: frozenset[str]) -> None:
        """Take the models, and the names of services that are ready when all of them are."""
        self._registry = registry
        self._services = services | {""}

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Return the status of now."""
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return HealthCheckResponse(status=status)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Send the status of now, and every other one that follows, until somebody leaves."""
        last = None
        while not self._registry.closed:
            status = self._status(request.service)
            if status != last:
                await context.write(HealthCheckResponse(status=status))
                last = status
            else:
                await self._registry.changed()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def _status(self, service: str) -> HealthCheckResponse.ServingStatus:
        if service in self._services:
            ready: bool | None = self._registry.ready
        else:
            ready = self._registry.model_ready(service)
        if ready is None:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
