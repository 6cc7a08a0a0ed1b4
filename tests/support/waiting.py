"""Waiting for a condition, with a bound that only a hang exceeds."""

import asyncio
import time
from collections.abc import Callable

# Far longer than a slow or busy machine needs.
SECONDS = 120.0
_POLL_SECONDS = 0.02


def eventually(holds: Callable[[], bool], state: Callable[[], object] = str) -> None:
    """Block until a condition holds.

    Args:
        holds: The condition.
        state: Function whose result explains a failure.
    """
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"no success after {SECONDS} s {state()}"
        time.sleep(_POLL_SECONDS)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds, while the event loop serves others."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"no success after {SECONDS} s"
        await asyncio.sleep(_POLL_SECONDS)
