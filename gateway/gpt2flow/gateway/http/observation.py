"""Observation of requests: id, log line, metrics, internal errors."""

import traceback
import uuid
from collections.abc import Mapping
from time import perf_counter
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.http.admission import REQUEST_ID, new_request_id
from gpt2flow.gateway.http.metrics import GatewayMetrics

_EVENT_STREAM: Final = b"text/event-stream"
# Status of requests whose client left before an answer began.
_UNANSWERED: Final = 499


class ObservedApp:
    """ASGI application with an id, a log line and metrics a request.

    Args:
        app: Application to observe.
        metrics: Metrics of the requests.
        paths: Paths of the routes, by the names of their functions.
    """

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, paths: Mapping[str, str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        start = perf_counter()
        scope[REQUEST_ID] = call_id = new_request_id(scope)
        status, streams = _UNANSWERED, False

        async def observed(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                streams = any(value.startswith(_EVENT_STREAM) for _, value in headers)
                if streams:
                    self._metrics.streamed(self._route(scope), perf_counter() - start)
                headers.append((b"x-request-id", call_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            seconds, route = perf_counter() - start, self._route(scope)
            self._metrics.ended(route, status, seconds)
            structlog.get_logger().info(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                streams=streams,
                request_id=call_id,
                milliseconds=round(seconds * 1000, 1),
            )

    def _route(self, scope: Scope) -> str:
        """Return the path of a request's route; `other` bounds the labels."""
        return self._paths.get(getattr(scope.get("endpoint"), "__name__", ""), "other")


async def fail(request: Request, error: Exception) -> Response:
    """Answer a request that failed through a defect."""
    incident = uuid.uuid4().hex
    # The error's own text may quote the request.
    structlog.get_logger().error(
        "internal_error",
        incident=incident,
        request_id=request.scope[REQUEST_ID],
        error=type(error).__name__,
        calls="".join(traceback.format_tb(error.__traceback__)),
    )
    failure = ApiError(500, f"internal error {incident}", code="internal_error")
    return JSONResponse(failure.content(), failure.status)
