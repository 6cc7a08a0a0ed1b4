"""Registry of a process, and the endpoint that Prometheus scrapes."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from gpt2flow.web.addresses import parse_address


def new_registry() -> CollectorRegistry:
    """Return a registry with the metrics of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


@contextmanager
def serving_metrics(
    address: str,
    registry: CollectorRegistry,
    *,
    bad_input: type[Exception],
    failure: type[Exception],
) -> Iterator[int]:
    """Serve metrics to Prometheus within the block, in threads of their own.

    Args:
        address: Address to listen on, as `host:port`.
        registry: Registry of the metrics.
        bad_input: Class of the error about the address itself.
        failure: Class of the error about an address that cannot be bound.

    Yields:
        The port that was bound.

    Raises:
        bad_input: The address has another form.
        failure: The address cannot be bound.
    """
    host, port = parse_address(address, "metrics_address", bad_input)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise failure(f"cannot listen on {address} for metrics: {error.strerror}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
