"""Server process: models, services, port, signals, drain."""

import asyncio
import contextlib
import dataclasses
import signal
import ssl
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from gpt2flow.server.access.certificates import watched_tls
from gpt2flow.server.access.permissions import UnfinishedRequests
from gpt2flow.server.config.cpu_limit import cpu_limit
from gpt2flow.server.config.file import ConfigSource
from gpt2flow.server.config.settings import ServerConfig
from gpt2flow.server.errors import StartupError
from gpt2flow.server.kserve import KSERVE_NAME, KSERVE_RPCS, PROBES, add_open_inference
from gpt2flow.server.models.registry import Registry
from gpt2flow.server.models.reload import Reloader
from gpt2flow.server.servicer import (
    RPCS,
    SERVICE_NAME,
    DecodingInterceptor,
    Listener,
    Observer,
    add_services,
    listen,
    make_security,
    release_batches,
)
from gpt2flow.server.telemetry.endpoint import MetricsEndpoint
from gpt2flow.server.telemetry.log import logging_to_stderr
from gpt2flow.server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gpt2flow.server.telemetry.tracing import Tracing

# Time for clients to accept the last responses: the bound of what one that does not read delays.
_FLUSH_SECONDS = 5.0


class Server:
    """Inference server: a gRPC server and its models, for one event loop.

    Attributes:
        registry: Registry of its models.
        metrics: Metrics of its RPCs and models.
    """

    def __init__(self, config: ServerConfig) -> None:
        """Prepare a server; `start` opens its port.

        Raises:
            ConfigError: A file of certificates or tokens is unusable.
            StartupError: A package that the settings need is missing.
        """
        self._config = config
        self.registry = Registry(config.models, config.drain_seconds)
        self.metrics = Metrics(lambda: self.registry.models)
        self._metrics_tls = _metrics_tls(config)
        self._tracing = _tracing(config.telemetry.otlp_endpoint)
        self._listener: Listener | None = None
        self._endpoint: MetricsEndpoint | None = None
        security = make_security(config.security, PROBES)
        services = {SERVICE_NAME: RPCS, KSERVE_NAME: KSERVE_RPCS}
        interceptors = (
            Observer(services, PROBES, self.metrics, self._tracing),
            *security.interceptors,
            *map(DecodingInterceptor, services),
        )
        self._credentials = security.credentials
        release_batches()
        self._server = grpc.aio.server(options=_channel_options(config), interceptors=interceptors)
        unfinished = UnfinishedRequests()
        self._health = add_services(self.registry, self._server, unfinished, [KSERVE_NAME])
        control = config.security.model_control
        add_open_inference(self.registry, self._server, unfinished, control=control)

    @property
    def metrics_port(self) -> int | None:
        """Port of the metrics endpoint; None without one."""
        return None if self._endpoint is None else self._endpoint.port

    @property
    def kernels(self) -> dict[str, str]:
        """Kernels that the operators run on, by model."""
        return {model.name: model.kernels for model in self.registry.models}

    @property
    def threads(self) -> dict[str, int]:
        """Threads per run, by model."""
        return {name: each.engine.threads for name, each in self._config.model_configs.items()}

    @property
    def kv_caches(self) -> dict[str, dict[str, int]]:
        """Slots and bytes of the KV cache, by model."""
        return {
            model.name: {"slots": model.limits.max_sequences, "bytes": model.kv_cache_bytes}
            for model in self.registry.models
        }

    async def start(self) -> int:
        """Open the port, load the models, and warm them up.

        Until the models are loaded, health checks return NOT_SERVING, and requests end with
        UNAVAILABLE.

        Returns:
            The port that was bound; 0 for a Unix socket.

        Raises:
            BundleError: A bundle cannot be served.
            ConfigError: The memory for the KV cache does not hold one sequence.
            StartupError: A port or a Unix socket cannot be opened.
        """
        try:
            return await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> int:
        listener = listen(self._server, self._config, self._credentials)
        self._listener = listener
        self.metrics.observe_tasks(asyncio.get_running_loop())
        if (address := self._config.telemetry.metrics_address) is not None:
            registry = self.metrics.registry
            tls = self._metrics_tls
            self._endpoint = await asyncio.to_thread(MetricsEndpoint, registry, address, tls)
        await self._server.start()
        await self.registry.apply(self._config.model_configs)
        return listener.port

    async def stop(self) -> None:
        """Drain, then close."""
        await self.drain()
        await self.close()

    async def drain(self) -> None:
        """Refuse new requests, and wait up to the drain time for others.

        It also waits up to 5 seconds until every health watcher has been sent NOT_SERVING.
        """
        self.registry.drain()
        await asyncio.gather(
            _within(_FLUSH_SECONDS, self._health.notified()),
            _within(self._config.drain_seconds, self.registry.finished()),
        )

    async def close(self) -> None:
        """End unfinished requests with UNAVAILABLE, and close the port.

        Clients have up to 5 seconds to accept the last responses.
        """
        await self.registry.close()
        await self._server.stop(_FLUSH_SECONDS)
        if self._listener is not None:
            self._listener.remove()
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)


async def _within(seconds: float, waiting: Coroutine[Any, Any, None]) -> None:
    """Await something for a limited time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting


def _tracing(endpoint: str | None) -> "Tracing | None":
    if endpoint is None:
        return None
    try:
        from gpt2flow.server.telemetry.tracing import Tracing  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        raise StartupError(
            f"traces need the package {error.name!r}: pip install 'gpt2flow[telemetry]'"
        ) from error
    return Tracing(endpoint)


def _metrics_tls(config: ServerConfig) -> Callable[[], ssl.SSLContext] | None:
    """Return the TLS settings of the metrics endpoint; None is plain text.

    Raises:
        ConfigError: A file is unusable.
    """
    own, shared = config.telemetry, config.security
    if own.metrics_tls and shared.tls_certificate and shared.tls_key:
        options = ("--tls-certificate", "--tls-key")
        return watched_tls(options, shared.tls_certificate, shared.tls_key)
    if own.metrics_tls_certificate and own.metrics_tls_key:
        options = ("--metrics-tls-certificate", "--metrics-tls-key")
        return watched_tls(options, own.metrics_tls_certificate, own.metrics_tls_key)
    return None


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    connections = config.connections
    timeout_ms = int(connections.keepalive_timeout_seconds * 1000)
    options = [
        # A second server on the same port is an error.
        ("grpc.so_reuseport", 0),
        # Clients may send keepalive pings at any rate, with calls and without. By default, gRPC
        # closes connections with more than one ping in five minutes.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        # Keepalive pings of the server detect connections whose client has vanished.
        ("grpc.keepalive_time_ms", int(connections.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        # The default is a minute for a client that acknowledges data but not pings.
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        # Time limit for a client to complete the HTTP/2 handshake.
        ("grpc.server_handshake_timeout_ms", timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", config.engine.requests.message_bytes),
        # Limits on the request bound the size of the response.
        ("grpc.max_send_message_length", -1),
    ]
    if connections.max_age_seconds is not None:
        options.append(("grpc.max_connection_age_ms", int(connections.max_age_seconds * 1000)))
    return options


def serve(
    config: ServerConfig,
    on_ready: Callable[[int], None] | None = None,
    source: ConfigSource | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    A second signal ends the drain. SIGHUP reloads the settings and the bundles, as does a change
    of the settings file.

    Args:
        config: Settings of the server.
        on_ready: Called with the bound port, 0 for a Unix socket, once requests are accepted.
        source: Source of the settings, for reloads; None disables them.

    Raises:
        BundleError: A bundle cannot be served.
        ConfigError: The memory for the KV cache does not hold one sequence, or a file of
            certificates or tokens is unusable.
        StartupError: A port cannot be bound.
    """
    with logging_to_stderr(config.telemetry):
        asyncio.run(_serve(config, on_ready, source))


async def _serve(
    config: ServerConfig, on_ready: Callable[[int], None] | None, source: ConfigSource | None
) -> None:
    log = structlog.get_logger()
    server = Server(config)
    reloader = Reloader(
        server.registry,
        config,
        read=source.read if source else lambda: config,
        file=source.file if source else None,
    )
    drain, abort = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (abort if drain.is_set() else drain).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, reloader.trigger)
    starting = asyncio.create_task(server.start())
    if await _run_unless(drain, starting):
        port = starting.result()
        log.info(
            "ready",
            host=config.host,
            port=port,
            models=list(config.models),
            kv_cache=server.kv_caches,
            kernels=server.kernels,
            threads=server.threads,
            processors=dataclasses.asdict(cpu_limit()),
            **({} if server.metrics_port is None else {"metrics_port": server.metrics_port}),
        )
        if on_ready is not None:
            try:
                on_ready(port)
            except BaseException:
                await server.close()
                raise
        watching = asyncio.create_task(reloader.run())
        await drain.wait()
        watching.cancel()
        log.info("draining", seconds=config.drain_seconds)
        await _run_unless(abort, asyncio.create_task(server.drain()))
        await server.close()
    log.info("stopped")


async def _run_unless(event: asyncio.Event, task: asyncio.Task[Any]) -> bool:
    """Run a task unless an event cancels it; return whether it ended."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    ended = task.done()
    for each in (task, waiting):
        each.cancel()
    await asyncio.wait({task, waiting})
    return ended
