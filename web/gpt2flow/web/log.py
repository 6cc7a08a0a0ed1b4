"""Log on standard error: one line per event."""

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

LogFormat = Literal["json", "console"]


@contextlib.contextmanager
def logging_to_stderr(log_format: LogFormat, *, adopted: Sequence[str] = ()) -> Iterator[None]:
    """Send the log of this process and its libraries to standard error.

    Args:
        log_format: `json` for one object a line, `console` for people.
        adopted: Loggers that would get handlers of their own otherwise.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_logger, *_shared()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(log_format),
            ],
        )
    )
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda *_names: logging.getLogger("gpt2flow"),
    )
    root, own = logging.getLogger(), logging.getLogger("gpt2flow")
    level = own.level
    root.addHandler(handler)
    # Libraries log warnings and errors only.
    own.setLevel(logging.INFO)
    try:
        with contextlib.ExitStack() as loggers:
            for name in adopted:
                loggers.enter_context(_adopted(logging.getLogger(name), handler))
            yield
    finally:
        root.removeHandler(handler)
        own.setLevel(level)
        structlog.reset_defaults()


@contextlib.contextmanager
def _adopted(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """Give a logger this handler alone within the block."""
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(log_format: LogFormat) -> list[Processor]:
    if log_format == "console":
        return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=_write_calls)]
    return [
        structlog.processors.ExceptionRenderer(_format_calls),
        # A value without JSON form must not prevent the line.
        structlog.processors.JSONRenderer(default=repr, ensure_ascii=False),
    ]


def _add_logger(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Name the library that a line comes from."""
    event["logger"] = event["_record"].name
    return event


def _format_calls(exc_info: ExcInfo) -> str:
    """Return the calls that led to an error.

    The text of the error is left out, because it may quote a message.
    """
    kind, _, trace = exc_info
    return "".join(traceback.format_tb(trace)) + kind.__name__


def _write_calls(stream: TextIO, exc_info: ExcInfo) -> None:
    stream.write(_format_calls(exc_info))
