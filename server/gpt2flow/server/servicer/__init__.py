"""gRPC services: the only package of the server that uses protobuf."""

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE_NAME
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from gpt2flow.inference.v1.inference_pb2 import DESCRIPTOR
from gpt2flow.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.servicer.grpc_batches import release_batches
from gpt2flow.server.servicer.health import HealthServicer
from gpt2flow.server.servicer.interceptors import DecodingInterceptor
from gpt2flow.server.servicer.observer import Observer
from gpt2flow.server.servicer.service import InferenceServicer
from gpt2flow.server.servicer.transport import Listener, listen, make_security

SERVICE_NAME: str = DESCRIPTOR.services_by_name["InferenceService"].full_name

__all__ = [
    "SERVICE_NAME",
    "DecodingInterceptor",
    "Listener",
    "Observer",
    "add_services",
    "listen",
    "make_security",
    "release_batches",
]


def add_services(registry: Registry, server: grpc.aio.Server) -> HealthServicer:
    """Register inference, health and reflection with a server.

    Health is reported for the server as a whole (the empty name), for the inference service, and
    for each model by its name.
    """
    add_InferenceServiceServicer_to_server(InferenceServicer(registry), server)
    health_servicer = HealthServicer(registry, frozenset({SERVICE_NAME}))
    add_HealthServicer_to_server(health_servicer, server)
    names = (SERVICE_NAME, HEALTH_SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return health_servicer
