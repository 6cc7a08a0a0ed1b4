"""gRPC services in our own protocol, and what every service needs."""

from collections.abc import Sequence

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE_NAME
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from gpt2flow.inference.v1.inference_pb2 import DESCRIPTOR
from gpt2flow.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from gpt2flow.server.access.permissions import UnfinishedRequests
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.grpc_batches import release_batches
from gpt2flow.server.servicer.health import HealthServicer
from gpt2flow.server.servicer.interceptors import DecodingInterceptor
from gpt2flow.server.servicer.observer import Observer
from gpt2flow.server.servicer.service import InferenceServicer
from gpt2flow.server.servicer.transport import Listener, listen, make_security

_SERVICE = DESCRIPTOR.services_by_name["InferenceService"]
SERVICE_NAME: str = _SERVICE.full_name
RPCS = frozenset(_SERVICE.methods_by_name)

__all__ = [
    "RPCS",
    "SERVICE_NAME",
    "DecodingInterceptor",
    "Listener",
    "Observer",
    "add_services",
    "listen",
    "make_security",
    "release_batches",
]


def add_services(
    registry: Registry,
    server: grpc.aio.Server,
    unfinished: UnfinishedRequests,
    others: Sequence[str] = (),
) -> HealthServicer:
    """Register inference, health and reflection with a server.

    Health is reported for the server as a whole (the empty name), for each service of inference,
    and for each model by its name.

    Args:
        registry: Registry of the models.
        server: The server.
        unfinished: Quota of unfinished requests by caller.
        others: Full names of services beside `InferenceService` on the same models.
    """
    add_InferenceServiceServicer_to_server(InferenceServicer(registry, unfinished), server)
    health_servicer = HealthServicer(registry, frozenset({SERVICE_NAME, *others}))
    add_HealthServicer_to_server(health_servicer, server)
    names = (SERVICE_NAME, *others, HEALTH_SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return health_servicer
