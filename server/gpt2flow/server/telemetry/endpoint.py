"""HTTP endpoint for scrapes by Prometheus."""

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from gpt2flow.server.errors import StartupError

# Idle time after which a connection is closed.
_SILENCE_SECONDS: Final = 10.0


class MetricsEndpoint:
    """HTTP endpoint that serves a registry's metrics, in its own threads.

    It has no access control.

    Attributes:
        port: Port that was bound.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        address: tuple[str, int],
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """Open the port.

        Args:
            registry: Registry of the metrics.
            address: Host and port to listen on.
            tls: Function that returns the TLS settings of a new connection; None is plain text.

        Raises:
            StartupError: The port cannot be bound.
        """
        host, port = address
        server = _ServerV6 if ":" in host else _Server
        try:
            self._server = make_server(
                host, port, make_wsgi_app(registry), server, handler_class=_Handler
            )
            self._server.tls = tls
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
    """Server whose connections each have a thread.

    Attributes:
        tls: Function that returns the TLS settings of a new connection; None is plain text.
    """

    tls: Callable[[], ssl.SSLContext] | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in its own thread, handshake included."""
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_SILENCE_SECONDS)
        with self.tls().wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, *_args: Any) -> None:
        """Log nothing: the client has left, or was idle for too long."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """Handler of one connection."""

    timeout = _SILENCE_SECONDS

    def log_message(self, *_args: object) -> None:
        """Log nothing: scrapes are frequent."""
