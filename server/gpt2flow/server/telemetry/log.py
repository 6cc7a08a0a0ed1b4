"""Log on standard error: one line per event, written without blocking."""

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from queue import Full, Queue
from typing import Any, Final, TextIO

import structlog
from structlog.typing import ExcInfo, Processor

from gpt2flow.server.config.settings import TelemetryConfig

# Lines buffered while the reader of standard error stalls; further ones are dropped and counted.
_MAX_WAITING: Final = 10_000
# Time at the end of the process for the last lines to be written.
_FLUSH_SECONDS: Final = 1.0


@contextlib.contextmanager
def logging_to_stderr(config: TelemetryConfig) -> Iterator[None]:
    """Send the log of this process and its libraries to standard error.

    A separate thread writes the lines, so that logging never waits for a disk or a pipe.
    """
    writer = _Writer(_standard_error())
    handler = _ToStructlog()
    root = logging.getLogger()
    structlog.configure(
        processors=_processors(config.log_format),
        wrapper_class=structlog.make_filtering_bound_logger(config.log_level),
        logger_factory=writer,
    )
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        structlog.reset_defaults()
        writer.close()


def _processors(log_format: str) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "console":
        console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=write_exc_info)
        return [*shared, console]
    # A value without JSON form must not prevent the line.
    renderer = structlog.processors.JSONRenderer(default=repr, ensure_ascii=False)
    return [*shared, structlog.processors.ExceptionRenderer(format_exc_info), renderer]


def _standard_error() -> int | None:
    """Return the file descriptor; None if the process has none."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None


class _Writer:
    """Writer of lines in its own thread, which never blocks callers.

    It does not use `sys.stderr`: a thread stuck there would hold a lock, without which the
    interpreter cannot exit.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._lines: Queue[str | None] = Queue(_MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def __call__(self, *_args: Any) -> "_Writer":
        """Return itself, as structlog's logger factory."""
        return self

    def info(self, line: str) -> None:
        """Queue a line, or drop it if the queue is full."""
        try:
            self._lines.put_nowait(line)
        except Full:
            self._dropped += 1

    debug = warning = error = critical = info

    def close(self) -> None:
        """Wait until all lines are written, at most `_FLUSH_SECONDS`."""
        with contextlib.suppress(Full):
            self._lines.put_nowait(None)
        self._thread.join(_FLUSH_SECONDS)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(f"{line}\n".encode(errors="replace"))
            if self._dropped and self._lines.empty():
                dropped, self._dropped = self._dropped, 0
                structlog.get_logger().warning("log_lines_dropped", count=dropped)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            while data and self._descriptor is not None:
                data = data[os.write(self._descriptor, data) :]


class _ToStructlog(logging.Handler):
    """Handler that forwards records of Python's logging, for one format of lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        try:
            level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
            message, cause = record.getMessage(), record.exc_info
            if cause and cause[1]:
                message = without_messages(message, cause[1])
            structlog.get_logger().log(level, message, logger=record.name, exc_info=cause)
        except Exception:  # noqa: BLE001 - as in every handler: a bad record raises nothing
            self.handleError(record)


def format_traceback(error: BaseException) -> str:
    """Return the calls that led to an error and to its causes."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        hidden = cause.__suppress_context__
        cause = cause.__cause__ or (None if hidden else cause.__context__)
    return "\nled to:\n".join(
        "".join(traceback.format_tb(each.__traceback__)) + type(each).__qualname__
        for each in reversed(causes)
    )


def format_exc_info(exc_info: ExcInfo) -> str:
    """Format an exception for structlog's JSON renderer, as `format_traceback`."""
    return format_traceback(exc_info[1])


def write_exc_info(stream: TextIO, exc_info: ExcInfo) -> None:
    """Write an exception for structlog's console renderer, as `format_traceback`."""
    stream.write(format_exc_info(exc_info))


def without_messages(text: str, error: BaseException) -> str:
    """Return a text with an error's message replaced by its type."""
    for message in (repr(error), str(error)):
        text = text.replace(message, type(error).__qualname__) if message else text
    return text
