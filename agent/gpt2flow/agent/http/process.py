"""Process of the HTTP endpoint: agent, ports, signals."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack

import structlog

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig, Clock, utc_now
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.endpoint import Endpoint
from gpt2flow.agent.http.handling import ObservedTurns
from gpt2flow.agent.http.routes import Services
from gpt2flow.agent.http.signatures import SignatureVerifier
from gpt2flow.agent.http.telemetry.metrics import TurnMetrics
from gpt2flow.agent.http.telemetry.readiness import ModelCheck, Readiness
from gpt2flow.agent.http.turn_queue import TurnQueue
from gpt2flow.agent.metrics.gauges import DatabaseGauges
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.metrics.registry import serving_metrics
from gpt2flow.agent.net.addresses import bind
from gpt2flow.agent.shop import database_url
from gpt2flow.agent.telemetry.log import logging_to_stderr
from gpt2flow.agent.turns.model import ChoiceModel

# Remedy for an address that other machines can reach.
_UNSIGNED = "name the secrets of signed requests with --secret-file"


def serve(
    config: HttpConfig,
    agent_config: AgentConfig,
    *,
    on_ready: Callable[[int], None] | None = None,
    model: ChoiceModel | None = None,
    clock: Clock = utc_now,
) -> None:
    """Take messages until SIGTERM or SIGINT, then drain.

    A second signal ends the drain. Turns that an earlier process left incomplete are finished
    before the port opens.

    Args:
        config: Settings of the endpoint.
        agent_config: Settings of the agent.
        on_ready: Function that is called with the port once requests are accepted.
        model: Model to call instead of the configured server.
        clock: Source of the current time.

    Raises:
        InputError: A setting is invalid.
        ListenError: A port cannot be bound.
        DatabaseError: The database cannot be opened or written.
    """
    with ExitStack() as resources:
        verifier = None if config.secret_file is None else SignatureVerifier(config.secret_file)
        # An address in use is found before the agent finishes old turns.
        bound = bind(config.address, "address", remedy=None if verifier else _UNSIGNED)
        resources.callback(bound.close)
        resources.enter_context(logging_to_stderr(config.log_format))
        reader = ShopReader(database_url(agent_config.database))
        resources.callback(reader.close)
        checks: dict[str, Callable[[], None]] = {"database": reader.check}
        if model is None:
            checks["model"] = check_model = ModelCheck(agent_config)
            resources.callback(check_model.close)
        metrics = TurnMetrics()
        metrics.registry.register(DatabaseGauges(reader, clock))
        metrics_port = None
        if config.metrics_address is not None:
            metrics_port = resources.enter_context(
                serving_metrics(config.metrics_address, metrics.registry)
            )
        with Agent(agent_config, model=model, clock=clock) as agent:
            observed = ObservedTurns(agent, metrics, log_messages=config.log_messages)
            services = Services(
                verifier=verifier,
                turns=TurnQueue(
                    observed.handle, max_turns=config.max_turns, max_queued=config.max_queued
                ),
                reader=reader,
                readiness=Readiness(checks),
                metrics=metrics,
                clock=clock,
            )
            try:
                asyncio.run(_run(Endpoint(config, services), bound, metrics_port, on_ready))
            finally:
                observed.stop()
        structlog.get_logger().info("stopped")


async def _run(
    endpoint: Endpoint,
    bound: socket.socket,
    metrics_port: int | None,
    on_ready: Callable[[int], None] | None,
) -> None:
    log = structlog.get_logger()
    drain, abort = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (abort if drain.is_set() else drain).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    port = await endpoint.start(bound)
    try:
        log.info("ready", host=bound.getsockname()[0], port=port, metrics_port=metrics_port)
        if on_ready is not None:
            on_ready(port)
        await drain.wait()
        await endpoint.drain(abort)
    finally:
        await endpoint.close()
