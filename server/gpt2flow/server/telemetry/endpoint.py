"""The HTTP endpoint that Prometheus asks."""

import socket
import threading
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from gpt2flow.server.errors import StartupError

# How long a connection may be silent before its thread gives it up.
_SILENCE_SECONDS: Final = 10.0


class MetricsEndpoint:
    """Answers with a registry's metrics, in threads of its own.

    Anyone who reaches the address may read them, without encryption.

    Attributes:
        port: The one that was bound.
    """

    def __init__(self, registry: CollectorRegistry, address: tuple[str, int]) -> None:
        """Open the port.

        Raises:
            StartupError: It cannot be bound.
        """
        host, port = address
        server = _ServerV6 if ":" in host else _Server
        try:
            self._server = make_server(
                host, port, make_wsgi_app(registry), server, handler_class=_Handler
            )
        except OSError as error:
            raise StartupError(
                f"cannot listen on {host}:{port} for metrics: {error.strerror}"
            ) from error
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the port; blocks for up to the poll interval."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingWSGIServer):
    def handle_error(self, *_args: Any) -> None:
        """Say nothing: who asked has gone, or was silent for too long."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """One connection."""

    timeout = _SILENCE_SECONDS

    def log_message(self, *_args: object) -> None:
        """Say nothing: scrapes come by the minute."""
