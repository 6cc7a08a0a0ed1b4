"""KServe's Open Inference Protocol v2: a second service on the same models."""

import grpc

from gpt2flow.inference.kserve.v2.open_inference_pb2 import DESCRIPTOR
from gpt2flow.inference.kserve.v2.open_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from gpt2flow.server.access.permissions import UnfinishedRequests
from gpt2flow.server.kserve.service import OpenInferenceServicer
from gpt2flow.server.models.registry import Registry

_SERVICE = DESCRIPTOR.services_by_name["GRPCInferenceService"]
KSERVE_NAME: str = _SERVICE.full_name
KSERVE_RPCS = frozenset(_SERVICE.methods_by_name)
# Paths of the RPCs that are health checks.
PROBES = frozenset(f"/{KSERVE_NAME}/{rpc}" for rpc in ("ServerLive", "ServerReady", "ModelReady"))

__all__ = ["KSERVE_NAME", "KSERVE_RPCS", "PROBES", "add_open_inference"]


def add_open_inference(
    registry: Registry, server: grpc.aio.Server, unfinished: UnfinishedRequests, *, control: bool
) -> None:
    """Register the service with a server.

    Args:
        registry: Registry of the models.
        server: The server.
        unfinished: Quota of unfinished requests by caller.
        control: Whether callers without a token may load and unload models.
    """
    servicer = OpenInferenceServicer(registry, unfinished, control=control)
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
