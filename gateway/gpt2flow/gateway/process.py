"""Process of the gateway: ports, signals, drain."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from typing import Final

import structlog

from gpt2flow.gateway.chat.templates import ChatTemplates
from gpt2flow.gateway.config import GatewayConfig
from gpt2flow.gateway.errors import GatewayConfigError, ListenError
from gpt2flow.gateway.http.backend import Backend
from gpt2flow.gateway.http.drain import Drain
from gpt2flow.gateway.http.metrics import GatewayMetrics
from gpt2flow.gateway.http.routes import build_app
from gpt2flow.web.addresses import bind, is_loopback
from gpt2flow.web.asgi import HttpServer, server_config
from gpt2flow.web.log import logging_to_stderr
from gpt2flow.web.metrics import serving_metrics

# Remedy for an address that other machines can reach.
_PLAIN: Final = (
    "keys and texts could be read on the way; give --https-certificate and --https-key, allow it"
    " with --plain-http"
)
_KEEP_ALIVE_SECONDS: Final = 30
# Time for clients to accept the last answers.
_FLUSH_SECONDS: Final = 5


def serve(config: GatewayConfig, *, on_ready: Callable[[int], None] | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT, then drain.

    A second signal ends the drain.

    Args:
        config: Settings of the gateway.
        on_ready: Function that is called with the port once requests are accepted.

    Raises:
        GatewayConfigError: A setting is invalid.
        ListenError: A port cannot be bound.
    """
    with ExitStack() as resources:
        templates = ChatTemplates(config.chat_templates)
        allows_all = config.plain_http or config.https_certificate is not None
        bound = bind(
            config.address,
            "address",
            bad_input=GatewayConfigError,
            failure=ListenError,
            remedy=None if allows_all else _PLAIN,
        )
        resources.callback(bound.close)
        resources.enter_context(logging_to_stderr(config.log_format))
        metrics = GatewayMetrics()
        metrics_port = None
        if config.metrics_address is not None:
            metrics_port = resources.enter_context(
                serving_metrics(
                    config.metrics_address,
                    metrics.registry,
                    bad_input=GatewayConfigError,
                    failure=ListenError,
                )
            )
        asyncio.run(Gateway(config, templates, metrics).run(bound, metrics_port, on_ready))
        structlog.get_logger().info("stopped")


class Gateway:
    """Gateway of one process.

    Args:
        config: Settings.
        templates: Chat templates of the models.
        metrics: Metrics of the requests.
    """

    def __init__(
        self, config: GatewayConfig, templates: ChatTemplates, metrics: GatewayMetrics
    ) -> None:
        self._config = config
        self._templates = templates
        self._metrics = metrics

    async def run(
        self,
        bound: socket.socket,
        metrics_port: int | None,
        on_ready: Callable[[int], None] | None,
    ) -> None:
        """Answer requests on a bound socket until a signal, then drain."""
        config, log = self._config, structlog.get_logger()
        drain = Drain()
        self._metrics.observe_running(lambda: drain.running)
        stop = _first_signal(drain)
        host = bound.getsockname()[0]
        async with aclosing(Backend(config)) as backend:
            app = build_app(
                config, backend, drain, self._templates, self._metrics, is_local=is_loopback(host)
            )
            files = {"ssl_certfile": config.https_certificate, "ssl_keyfile": config.https_key}
            server = HttpServer(
                server_config(
                    app,
                    max_connections=config.max_connections,
                    keep_alive_seconds=_KEEP_ALIVE_SECONDS,
                    shutdown_seconds=_FLUSH_SECONDS,
                    **files,
                )
            )
            port = await server.start(bound)
            try:
                log.info("ready", host=host, port=port, metrics_port=metrics_port)
                if on_ready is not None:
                    on_ready(port)
                await stop.wait()
                log.info("draining", seconds=config.drain_seconds, requests=drain.running)
                await _drain(drain, config.drain_seconds)
            finally:
                await server.stop()


def _first_signal(drain: Drain) -> asyncio.Event:
    """Return the event of the first signal; a second one aborts requests."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            drain.abort()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


async def _drain(drain: Drain, seconds: float) -> None:
    """Refuse new requests, and wait for running ones until they must end."""
    drain.close()
    finished = asyncio.create_task(drain.finished())
    await asyncio.wait(
        {finished, drain.aborted}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    finished.cancel()
    if drain.running:
        structlog.get_logger().warning("requests_abandoned", requests=drain.running)
    drain.abort()
