"""Work on the texts of requests, few long ones at once."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from gpt2flow.server.work_pool import WorkKind, WorkPool

# Longer texts are processed in another thread, so that the event loop stays live: a microsecond
# a character, up to 1 ms.
LONG: Final = 1024

# Longer ones wait for one of a few threads: each takes the processor from running streams.
VERY_LONG: Final = 16 * LONG
WORKERS: Final = 2
QUEUE_CAPACITY: Final = 32

# Tokens between two moments in which other threads can run. They would wait five milliseconds for
# the interpreter lock, and a stream needs it several times for each of its tokens.
_SLICE: Final = 256
_PAUSE: Final = 0.0001

_KIND: Final = WorkKind(noun="text", done="tokenized", queue="text queue")

_T = TypeVar("_T")


class AbandonedError(Exception):
    """End of work on a text that no one waits for."""


class Progress:
    """Check of work in steps, whether someone still waits for it."""

    def __init__(self, abandoned: threading.Event | None = None) -> None:
        self._abandoned = abandoned

    def check(self) -> None:
        """Raise unless someone waits.

        Raises:
            AbandonedError: The caller has left, or its time is up.
        """
        if self._abandoned is not None and self._abandoned.is_set():
            raise AbandonedError

    def through(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yield items, and let other threads run between slices of them.

        Raises:
            AbandonedError: The caller has left, or its time is up.
        """
        rest = iter(items)
        while part := list(islice(rest, _SLICE)):
            yield from part
            self.check()
            if self._abandoned is not None:
                time.sleep(_PAUSE)


class LongTexts:
    """Threads for long texts. For the event loop's thread."""

    def __init__(self) -> None:
        self._pool = WorkPool(_KIND, WORKERS, QUEUE_CAPACITY)

    async def run(
        self,
        work: Callable[[Progress], _T],
        size: int,
        caller: str,
        deadline: float | None = None,
    ) -> _T:
        """Return the result of work, which runs as its size demands.

        Args:
            work: The work, which checks its progress between its steps.
            size: Characters and token ids of all texts.
            caller: Name of the caller.
            deadline: Deadline of the request, on the event loop's clock; None waits.

        Raises:
            OverloadedError: Too many long texts wait, and this caller has most of them.
            TimeLimitError: The deadline passes before the end, or is expected to.
        """
        if size <= LONG:
            return work(Progress())
        if size <= VERY_LONG:
            return await asyncio.to_thread(work, Progress())
        return await self._pool.run(lambda abandoned: work(Progress(abandoned)), caller, deadline)

    def close(self) -> None:
        """End what waits."""
        self._pool.close()
