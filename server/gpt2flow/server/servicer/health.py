"""Service `grpc.health.v1.Health`: readiness of the server and of each model.

The servicer of `grpcio-health-checking` has two faults. When one watcher of a name leaves, the
others of that name get no more updates. A watcher that does not read blocks the server.
"""
# ruff: noqa: N802 - the names of the methods are the protocol's

import asyncio
from dataclasses import dataclass

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer as _HealthServicer

from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.status import Context


@dataclass(eq=False, slots=True)
class _Watched:
    """One watcher, with its service and the status sent last."""

    service: str
    sent: HealthCheckResponse.ServingStatus | None = None


class HealthServicer(_HealthServicer):  # type: ignore[misc]
    """Health of the server (the empty name), of its services and models."""

    def __init__(self, registry: Registry, services: frozenset[str]) -> None:
        """Take the models and the services.

        Args:
            registry: Registry of the models.
            services: Names of services that are ready when all models are.
        """
        self._registry = registry
        self._services = services | {""}
        self._watched: set[_Watched] = set()
        self._progress = asyncio.Event()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Return the present status."""
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return HealthCheckResponse(status=status)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Send the present status, and each change until the client leaves.

        The last status is sent before the stream ends, however fast the server closes.
        """
        watched = _Watched(request.service)
        self._watched.add(watched)
        try:
            while (status := self._status(request.service)) != watched.sent or (
                not self._registry.closed
            ):
                if status == watched.sent:
                    await self._registry.changed()
                    continue
                await context.write(HealthCheckResponse(status=status))
                watched.sent = status
                self._progress.set()
        finally:
            self._watched.remove(watched)
            self._progress.set()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    async def notified(self) -> None:
        """Return when every watcher has been sent the present status."""
        while any(each.sent != self._status(each.service) for each in self._watched):
            self._progress.clear()
            await self._progress.wait()

    def _status(self, service: str) -> HealthCheckResponse.ServingStatus:
        if service in self._services:
            ready: bool | None = self._registry.ready
        else:
            ready = self._registry.model_ready(service)
        if ready is None:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
