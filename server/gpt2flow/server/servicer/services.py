"""What a server offers: inference, health, reflection."""

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gpt2flow.inference.v1.inference_pb2 import DESCRIPTOR
from gpt2flow.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from gpt2flow.server.registry import Registry
from gpt2flow.server.servicer.health import HealthServicer
from gpt2flow.server.servicer.service import InferenceServicer

SERVICE_NAME: str = DESCRIPTOR.services_by_name["InferenceService"].full_name


class Services:
    """The services of one server, for the models of its registry."""

    def __init__(self, registry: Registry) -> None:
        self._inference = InferenceServicer(registry)
        self._health = HealthServicer(registry, frozenset({SERVICE_NAME}))

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers all of them.

        Health is known of the server as a whole (the empty name), of the
        inference service, and of each model by its name.
        """
        add_InferenceServiceServicer_to_server(self._inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
