"""Endpoint of the agent's metrics, and the names that they share."""

from contextlib import AbstractContextManager
from typing import Final

from prometheus_client import CollectorRegistry

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import ListenError
from gpt2flow.web import metrics

PREFIX: Final = "gpt2flow_agent"


def serving_metrics(address: str, registry: CollectorRegistry) -> AbstractContextManager[int]:
    """Serve metrics to Prometheus within the block, in threads of their own.

    Args:
        address: Address to listen on, as `host:port`.
        registry: Registry of the metrics.

    Returns:
        Context manager that yields the port that was bound.

    Raises:
        InputError: The address has another form.
        ListenError: The address cannot be bound.
    """
    return metrics.serving_metrics(address, registry, bad_input=InputError, failure=ListenError)
