"""Routes of the HTTP endpoint."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

import structlog
from pydantic_core import PydanticCustomError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.rate_limit import RateLimit
from gpt2flow.agent.http.requests import RequestError, check_id, parse_message
from gpt2flow.agent.http.session_messages import read_messages
from gpt2flow.agent.http.signatures import ID, SignatureVerifier
from gpt2flow.agent.http.telemetry.metrics import TurnMetrics
from gpt2flow.agent.http.telemetry.readiness import Readiness
from gpt2flow.agent.http.turn_queue import Answered, TurnQueue
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.report import TurnReport
from gpt2flow.web.addresses import is_loopback
from gpt2flow.web.asgi import BodyTooLargeError, read_body

MESSAGES = "/v1/messages"
SESSION_MESSAGES = "/v1/sessions/{session:path}/messages"
_EVENT_STREAM = "text/event-stream"
# Largest id of a row on either database.
_MAX_AFTER = 2**63 - 1


@dataclass(frozen=True)
class Services:
    """Parts that the routes call.

    Attributes:
        verifier: Verifier of signatures; None accepts unsigned requests.
        turns: Queue of the turns.
        reader: Reader of the shop database.
        readiness: State of the database and the model server.
        metrics: Metrics of the requests.
        clock: Source of the current time.
    """

    verifier: SignatureVerifier | None
    turns: TurnQueue
    reader: ShopReader
    readiness: Readiness
    metrics: TurnMetrics
    clock: Clock


def build_app(config: HttpConfig, services: Services) -> ASGIApp:
    """Return the application of the endpoint."""
    endpoint = _Endpoint(config, services)
    app = Starlette(
        routes=[
            Route(MESSAGES, endpoint.post_message, methods=["POST"]),
            Route(SESSION_MESSAGES, endpoint.get_messages, methods=["GET"]),
            Route("/healthz", endpoint.get_health, methods=["GET"]),
            Route("/readyz", endpoint.get_readiness, methods=["GET"]),
        ],
        exception_handlers={
            RequestError: _refuse,
            HTTPException: _refuse_route,
            ClientDisconnect: _leave,
            Exception: _fail,
        },
    )
    return _CountedRequests(app, services.metrics)


class _Endpoint:
    def __init__(self, config: HttpConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._message_limit = RateLimit(config.max_per_minute)
        self._reading_limit = RateLimit(config.max_per_minute)

    async def post_message(self, request: Request) -> Response:
        """Handle a customer message."""
        self._services.turns.check_open()
        _check_content_type(request)
        body = await self._read_body(request)
        self._authenticate(request, body)
        message = parse_message(body, request.headers.get(ID), _caller_span(request))
        self._message_limit.admit(message.session)
        turn = self._services.turns.submit(message)
        if _EVENT_STREAM in request.headers.get("accept", ""):
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            events = self._events(turn, message.id)
            return StreamingResponse(events, media_type=_EVENT_STREAM, headers=headers)
        answer = await _wait(turn, self._config.request_timeout)
        return _response(answer or self._late(message.id))

    async def get_messages(self, request: Request) -> Response:
        """Return messages to a conversation."""
        self._authenticate(request, request_line(request.scope))
        session = _checked_session(request.path_params["session"])
        after = _parse_after(request.scope["query_string"].decode("latin-1"))
        self._reading_limit.admit(session)
        services = self._services
        try:
            found = await asyncio.to_thread(
                read_messages, services.reader, session, after, services.clock()
            )
        except DatabaseError as error:
            structlog.get_logger().warning("reading_failed", reason=str(error))
            raise RequestError(503, None, "the database failed", retry_after=5) from error
        return _json(found.model_dump_json())

    async def get_health(self, _request: Request) -> Response:
        """Answer while the process is alive."""
        return JSONResponse({"status": "alive"})

    async def get_readiness(self, _request: Request) -> Response:
        """Answer whether new messages can be handled."""
        failing = list(await self._services.readiness.failing())
        if self._services.turns.is_closed:
            failing.append("draining")
        status = "not ready" if failing else "ready"
        return JSONResponse({"status": status, "failing": failing}, 503 if failing else 200)

    def _authenticate(self, request: Request, content: str) -> None:
        if self._services.verifier is not None:
            try:
                self._services.verifier.verify(request.headers, content)
            except RequestError as error:
                peer = request.client.host if request.client else None
                structlog.get_logger().warning(
                    "request_refused", status=error.status, field=error.field, peer=peer
                )
                raise
        elif not is_loopback(request.url.hostname or ""):
            # A page in a browser of this machine could otherwise reach the endpoint through a name
            # of its own that resolves to 127.0.0.1.
            raise RequestError(421, "host", "must be localhost or an address of this machine")

    async def _read_body(self, request: Request) -> str:
        limit, seconds = self._config.max_body_bytes, self._config.body_seconds
        try:
            return (await read_body(request, limit, seconds)).decode()
        except BodyTooLargeError as error:
            raise RequestError(413, "body", f"has more than {limit:,} bytes, the limit") from error
        except TimeoutError as error:
            raise RequestError(408, "body", f"did not arrive within {seconds:g} s") from error
        except UnicodeDecodeError as error:
            raise RequestError(400, "body", "is not UTF-8") from error

    def _late(self, message_id: str) -> RequestError:
        seconds = self._config.request_timeout
        message = (
            f"no report within {seconds:g} s; the turn goes on, ask again with id {message_id!r}"
        )
        return RequestError(504, None, message, retry_after=1)

    async def _events(self, turn: "asyncio.Task[Answered]", message_id: str) -> AsyncIterator[str]:
        heartbeat, left = self._config.heartbeat_seconds, self._config.request_timeout
        answer = None
        while answer is None and left > 0:
            # The first comment goes out at once, so that the caller knows the status.
            yield ": waiting\n\n"
            answer = await _wait(turn, min(heartbeat, left))
            left -= heartbeat
        yield _event(answer or self._late(message_id))


class _CountedRequests:
    """ASGI middleware that counts answered requests by route and status."""

    def __init__(self, app: ASGIApp, metrics: TurnMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Paths of no route would be labels without bound.
                route = _ROUTES.get(getattr(scope.get("endpoint"), "__name__", ""), "other")
                self._metrics.answered(route, message["status"])
            await send(message)

        await self._app(scope, receive, counted)


_ROUTES = {
    "post_message": MESSAGES,
    "get_messages": "/v1/sessions/{session}/messages",
    "get_health": "/healthz",
    "get_readiness": "/readyz",
}


def request_line(scope: Scope) -> str:
    """Return method and target of a request as sent.

    A GET request has no body, so its signature covers this text.
    """
    query = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return f"{scope['method']} {target.decode('latin-1')}"


async def _wait(turn: "asyncio.Task[Answered]", seconds: float) -> Answered | None:
    """Return the answer of a turn; None if it takes longer."""
    await asyncio.wait({turn}, timeout=seconds)
    return turn.result() if turn.done() else None


def _caller_span(request: Request) -> str:
    """Return the header `traceparent`; empty unless there is exactly one."""
    given = request.headers.getlist("traceparent")
    return given[0] if len(given) == 1 else ""


def _check_content_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    # A page in a browser may send no JSON to another host without asking that host first.
    if given.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "content-type", f"is {given!r}, must be application/json")


def _checked_session(session: str) -> str:
    try:
        return check_id(session)
    except PydanticCustomError as error:
        raise RequestError(422, "session", error.message()) from error


def _parse_after(query: str) -> int:
    given = parse_qsl(query, keep_blank_values=True)
    for name, _ in given:
        if name != "after":
            raise RequestError(422, name, "unknown parameter; allowed: after")
    after = dict(given).get("after", "0")
    if not (after.isascii() and after.isdecimal()) or int(after[:20]) > _MAX_AFTER:
        raise RequestError(422, "after", f"is {after[:40]!r}, must be the id of a message, or 0")
    return int(after)


def _response(answer: Answered) -> Response:
    if isinstance(answer, RequestError):
        return answer.response()
    return _json(report_json(answer))


def report_json(report: TurnReport) -> str:
    """Return a report as JSON without the texts of messages to contacts.

    Those are null.

    A verification code is such a text. Whoever talks to the agent must not read it there.
    """
    content = report.model_dump(mode="json")
    event_actions = [action for event in content["events"] for action in event["actions"]]
    for action in (*content["actions"], *event_actions):
        for message in action["messages"]:
            if message["to"] is not None:
                message["text"] = None
    return json.dumps(content, ensure_ascii=False)


def _json(content: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(content, media_type="application/json", headers=headers)


def _event(answer: Answered) -> str:
    if isinstance(answer, RequestError):
        content = json.dumps({"status": answer.status, **answer.content()}, ensure_ascii=False)
        return f"event: error\ndata: {content}\n\n"
    return f"event: report\ndata: {report_json(answer)}\n\n"


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    response = error.response()
    if error.status in {408, 413, 415, 503}:
        # What is left of the body is not read.
        response.headers["Connection"] = "close"
    return response


async def _refuse_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    field = "method" if error.status_code == 405 else "path"
    message = f"{error.detail.lower()}; the endpoint has POST {MESSAGES} and {SESSION_MESSAGES}"
    refusal = RequestError(error.status_code, field, message.replace(":path", ""))
    response = refusal.response()
    response.headers.update(error.headers or {})
    return response


async def _leave(_request: Request, _error: Exception) -> Response:
    """Answer a caller that left before its body arrived."""
    return Response(status_code=400)


async def _fail(_request: Request, _error: Exception) -> Response:
    """Answer a request that failed through a defect, which the server logs."""
    return RequestError(500, None, "internal error; the log has its traceback").response()
