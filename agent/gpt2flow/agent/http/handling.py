"""Handling of a message: answer, log line and metrics."""

import threading
import traceback
import uuid
from collections import OrderedDict
from time import perf_counter
from typing import Any, Protocol

import structlog

from gpt2flow.agent.errors import (
    AgentError,
    DatabaseError,
    InputError,
    MessageIdError,
    ModelError,
    UnanswerableError,
    UnknownModelError,
)
from gpt2flow.agent.http.requests import Message, RequestError
from gpt2flow.agent.http.telemetry.metrics import TurnMetrics
from gpt2flow.agent.http.turn_queue import Answered
from gpt2flow.agent.report import TurnReport

# Ended turns whose repetition is recognized, so that metrics count each turn once.
_MAX_ENDED = 10_000
_RETRY_SECONDS = 5
_AGAIN = "send the message again with the same id"

# Status of a failed turn, its field, and what the caller reads; None is the error.
_FAILURES: dict[type[AgentError], tuple[int, str | None, str | None]] = {
    MessageIdError: (409, "id", None),
    UnanswerableError: (422, "text", None),
    UnknownModelError: (503, None, f"the model server has no such model; {_AGAIN}"),
    InputError: (422, "text", None),
    ModelError: (503, None, f"the model server failed; {_AGAIN}"),
    DatabaseError: (503, None, f"the database failed; {_AGAIN}"),
    AgentError: (500, None, None),
}


class MessageHandler(Protocol):
    """Agent, as far as the endpoint needs it."""

    def handle(
        self, session: str, text: str, message_id: str | None = None, *, trace: str = ""
    ) -> TurnReport:
        """Handle one customer message; see `Agent.handle`."""


class ObservedTurns:
    """Turns of an agent, each with a log line and metrics.

    Threads may share an instance.

    Args:
        agent: Agent that handles the messages.
        metrics: Metrics of the turns.
        log_messages: Whether the log holds texts.
    """

    def __init__(self, agent: MessageHandler, metrics: TurnMetrics, *, log_messages: bool) -> None:
        self._agent = agent
        self._metrics = metrics
        self._log_messages = log_messages
        self._lock = threading.Lock()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._is_stopped = False

    def handle(self, message: Message) -> Answered:
        """Return the report of a message's turn, or its refusal; never raises."""
        start = perf_counter()
        # The trace of an earlier message of this thread.
        structlog.contextvars.clear_contextvars()
        try:
            report = self._agent.handle(
                message.session, message.text, message.id, trace=message.trace
            )
        except AgentError as error:
            self._metrics.failed(error.result)
            self._log(message, error.result, start, error=type(error).__name__, reason=str(error))
            return _refuse(error)
        except Exception as error:  # noqa: BLE001 - a defect must cost one turn only
            return self._fail(message, start, error)
        if self._is_first_end(message):
            result: str = report.result
            self._metrics.ended(report, perf_counter() - start)
        else:
            result = "repeated"
            self._metrics.failed(result)
        more: dict[str, Any] = {"actions": [each.action for each in report.actions]}
        if self._log_messages:
            more["replies"] = report.replies
        self._log(message, result, start, **more)
        return report

    def stop(self) -> None:
        """Expect running turns to fail, because the agent closes under them."""
        self._is_stopped = True

    def _fail(self, message: Message, start: float, error: Exception) -> RequestError:
        """Return the refusal of a turn that failed through a defect."""
        if self._is_stopped:
            self._metrics.failed("abandoned")
            self._log(message, "abandoned", start)
            return RequestError(503, None, _AGAIN, retry_after=_RETRY_SECONDS)
        incident = uuid.uuid4().hex[:12]
        self._metrics.failed("internal_error")
        # The error's own text may quote the message.
        calls = "".join(traceback.format_tb(error.__traceback__))
        cause = type(error).__name__
        self._log(message, "internal_error", start, error=cause, incident=incident, calls=calls)
        return RequestError(
            500, None, f"internal error, incident {incident}", retry_after=_RETRY_SECONDS
        )

    def _log(
        self, message: Message, result: str, start: float, *, reason: str = "", **more: Any
    ) -> None:
        # The reason may quote the message or the model.
        texts = {"text": message.text, "reason": reason} if self._log_messages else {}
        log = structlog.get_logger()
        (log.warning if "error" in more else log.info)(
            "turn",
            session=message.session,
            message_id=message.id,
            channel=message.channel,
            result=result,
            milliseconds=round((perf_counter() - start) * 1000, 1),
            **more,
            **texts,
        )

    def _is_first_end(self, message: Message) -> bool:
        key = (message.session, message.id)
        with self._lock:
            is_first = key not in self._ended
            self._ended[key] = None
            self._ended.move_to_end(key)
            if len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)
        return is_first


def _refuse(error: AgentError) -> RequestError:
    kind = next(kind for kind in type(error).__mro__ if kind in _FAILURES)
    status, field, shown = _FAILURES[kind]
    retry_after = _RETRY_SECONDS if status >= 500 else None
    return RequestError(status, field, shown or str(error), retry_after=retry_after)
