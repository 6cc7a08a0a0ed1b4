"""Drain: running requests, and the refusal of new ones."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gpt2flow.gateway.errors import ApiError

_RETRY_SECONDS: Final = 1


class Drain:
    """Count of running requests, for one event loop.

    Attributes:
        running: Number of requests that run.
        is_closed: Whether new requests are refused.
        aborted: Future that is done once running requests must end.
    """

    def __init__(self) -> None:
        self.running = 0
        self.is_closed = False
        self.aborted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while the block runs.

        Raises:
            ApiError: New requests are refused.
        """
        if self.is_closed:
            raise stopping()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._ended.set()

    def close(self) -> None:
        """Refuse new requests."""
        self.is_closed = True

    async def finished(self) -> None:
        """Wait until no request runs."""
        while self.running:
            self._ended.clear()
            await self._ended.wait()

    def abort(self) -> None:
        """End the requests that run."""
        if not self.aborted.done():
            self.aborted.set_result(None)


def stopping() -> ApiError:
    """Return the refusal of a request while the gateway stops."""
    return ApiError(
        503,
        f"the gateway stops; retry in {_RETRY_SECONDS} s",
        code="unavailable",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )
