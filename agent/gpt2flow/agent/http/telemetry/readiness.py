"""Readiness: database and model server, checked at most once a second."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import AgentError, InputError, ModelError
from gpt2flow.client import Client, ClientError, SettingsError

# Probes are not signed, so their number must not become load.
_CACHE_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 3.0


class ModelCheck:
    """Check of the model server that asks it for its model.

    Args:
        config: Settings of the agent.

    Raises:
        InputError: A setting of the connection is invalid.
    """

    def __init__(self, config: AgentConfig) -> None:
        try:
            self._client = Client(
                config.address, timeout=_CHECK_SECONDS, security=config.security, retry=None
            )
        except SettingsError as error:
            raise InputError(str(error)) from error
        self._name = config.model

    def __call__(self) -> None:
        """Ask the server for the model.

        Raises:
            ModelError: The server does not answer, or does not serve the model.
        """
        try:
            self._client.model(self._name)
        except ClientError as error:
            raise ModelError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Readiness:
    """Cached result of checks, for one event loop.

    Args:
        checks: Blocking checks by name, which raise AgentError.
    """

    def __init__(self, checks: Mapping[str, Callable[[], None]]) -> None:
        self._checks = checks
        self._lock = asyncio.Lock()
        self._checked_at = float("-inf")
        self._failing: tuple[str, ...] = ()

    async def failing(self) -> tuple[str, ...]:
        """Return the names of the checks that fail."""
        async with self._lock:
            if time.monotonic() - self._checked_at >= _CACHE_SECONDS:
                results = await asyncio.gather(*map(self._run, self._checks))
                failing = tuple(
                    name for name, passes in zip(self._checks, results, strict=True) if not passes
                )
                if failing != self._failing:
                    structlog.get_logger().info("readiness_changed", failing=failing)
                self._failing, self._checked_at = failing, time.monotonic()
            return self._failing

    async def _run(self, name: str) -> bool:
        try:
            async with asyncio.timeout(2 * _CHECK_SECONDS):
                await asyncio.to_thread(self._checks[name])
        except (AgentError, TimeoutError) as error:
            structlog.get_logger().debug("check_failed", check=name, reason=str(error))
            return False
        return True
