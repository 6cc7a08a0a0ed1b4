"""Observer of all inference RPCs: log line, metrics, span."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import structlog

from gpt2flow.server.servicer.identity import caller_of
from gpt2flow.server.servicer.responses import build_load_report
from gpt2flow.server.servicer.status import Context
from gpt2flow.server.telemetry.call import Call, set_current_call
from gpt2flow.server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gpt2flow.server.telemetry.tracing import RpcSpan, Tracing

REQUEST_ID_KEY: Final = "x-request-id"
# ORCA, as vLLM and gRPC do: the format that a router asks for, and the report.
_LOAD_FORMAT_KEY: Final = "endpoint-load-metrics-format"
_LOAD_KEY: Final = "endpoint-load-metrics"
_VALID_ID: Final = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")
# Clients may send any method name, and metrics keep every value of a label.
_OTHER_RPC: Final = "other"
# gRPC may cancel a call slightly before its deadline, in seconds.
_DEADLINE_SLACK: Final = 0.01

_Behavior = Callable[[Any, Context], Awaitable[Any]]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(slots=True)
class StreamedRequest:
    """One request of a stream of requests.

    Attributes:
        code: Status that it ends with.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK


# Reports one request of the current stream, under the client's id of it.
_REPORTING: ContextVar[Callable[[str], AbstractContextManager[StreamedRequest]] | None] = (
    ContextVar("reporting", default=None)
)


def streamed_request(request_id: str) -> AbstractContextManager[StreamedRequest]:
    """Report one request of the current stream like an RPC.

    Args:
        request_id: The client's id of it, which may be empty or unfit for the log.
    """
    reporting = _REPORTING.get()
    if reporting is None:
        return contextlib.nullcontext(StreamedRequest())
    return reporting(request_id)


class Observer(grpc.aio.ServerInterceptor):
    """Interceptor that reports each RPC at its end.

    It comes before all other interceptors, so that it reports their refusals too. Health checks
    and reflection are not observed: they are frequent and carry no information.
    """

    def __init__(
        self,
        services: Mapping[str, frozenset[str]],
        unobserved: frozenset[str],
        metrics: Metrics,
        tracing: "Tracing | None" = None,
    ) -> None:
        """Take the services, and the destinations of the reports.

        Args:
            services: Names of the RPCs of each observed service, by its full name.
            unobserved: Paths of RPCs of these services that are health checks.
            metrics: Metrics of the server.
            tracing: Source of spans; None disables traces.
        """
        self._services = services
        self._unobserved = unobserved
        self._metrics = metrics
        self._tracing = tracing
        self._log = structlog.get_logger()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Return the handler of an RPC, wrapped in the report."""
        path = handler_call_details.method
        service, _, rpc = path[1:].rpartition("/")
        rpcs = self._services.get(service)
        if rpcs is None or path in self._unobserved:
            return await continuation(handler_call_details)
        metadata = {
            key: value
            for key, value in handler_call_details.invocation_metadata
            if isinstance(value, str)
        }
        if rpc not in rpcs:
            rpc = _OTHER_RPC
        call = Call(
            rpc, _request_id(metadata.get(REQUEST_ID_KEY)), self._metrics.inter_token_latency
        )
        if (load_format := metadata.get(_LOAD_FORMAT_KEY)) is not None:
            call.load = self._load(load_format, call)
        set_current_call(call)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        handler = await continuation(handler_call_details)
        return _around(handler, lambda behavior: self._observed(behavior, call, service, metadata))

    def _observed(
        self, behavior: _Behavior, call: Call, service: str, metadata: dict[str, str]
    ) -> _Behavior:
        async def observed(request: Any, context: Context) -> Any:
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            _REPORTING.set(
                lambda request_id: self._streamed(request_id, call, context, service, metadata)
            )
            with self._reported(call, context, service, metadata):
                response = await behavior(request, context)
                if call.load is not None:
                    context.set_trailing_metadata((*context.trailing_metadata(), call.load()))
                return response

        return observed

    def _load(self, load_format: str, call: Call) -> Callable[[], tuple[str, str | bytes]] | None:
        """Return the source of load reports; an unknown format has none."""
        load = self._metrics.load
        match load_format.strip().upper():
            case "TEXT":
                return lambda: (_LOAD_KEY, load(call.model).text())
            case "JSON":
                return lambda: (_LOAD_KEY, load(call.model).json())
            case "BIN":
                return lambda: (f"{_LOAD_KEY}-bin", build_load_report(load(call.model)))
        return None

    @contextlib.contextmanager
    def _streamed(
        self,
        request_id: str,
        stream: Call,
        context: Context,
        service: str,
        metadata: dict[str, str],
    ) -> Iterator[StreamedRequest]:
        """Report one request of a stream, which runs in its own task."""
        is_valid = _VALID_ID.fullmatch(request_id)
        call = Call(
            f"{stream.rpc}/request",
            request_id if is_valid else stream.request_id,
            self._metrics.inter_token_latency,
        )
        set_current_call(call)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        span = self._start_span(call, service, metadata)
        request = StreamedRequest()
        try:
            yield request
        except asyncio.CancelledError:
            request.code = grpc.StatusCode.CANCELLED
            raise
        finally:
            call.end()
            self._report(call, request.code.name, caller_of(context).name, span)

    @contextlib.contextmanager
    def _reported(
        self, call: Call, context: Context, service: str, metadata: dict[str, str]
    ) -> Iterator[None]:
        """Report an RPC at its end, however it ends."""
        span = self._start_span(call, service, metadata)
        code = grpc.StatusCode.UNKNOWN
        try:
            yield
            code = _code(context, grpc.StatusCode.OK)
        except asyncio.CancelledError:
            remaining: float | None = context.time_remaining()
            late = remaining is not None and remaining < _DEADLINE_SLACK
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = _code(context, grpc.StatusCode.UNKNOWN)
            raise
        finally:
            call.end()
            # The response is sent first.
            asyncio.get_running_loop().call_soon(
                self._report, call, code.name, caller_of(context).name, span
            )

    def _start_span(self, call: Call, service: str, metadata: dict[str, str]) -> "RpcSpan | None":
        if self._tracing is None:
            return None
        span = self._tracing.start(call, service, metadata)
        structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        return span

    def _report(self, call: Call, code: str, caller: str, span: "RpcSpan | None") -> None:
        self._metrics.ended(call, code)
        if span is not None:
            span.end(call, code)
        self._log.info("rpc", caller=caller, code=code, **call.fields())


def _request_id(given: str | None) -> str:
    """Return the client's request id, or generate one.

    The client's id must be one line of at most 128 printable ASCII characters.
    """
    return given if given is not None and _VALID_ID.fullmatch(given) else secrets.token_hex(16)


def _code(context: Context, default: grpc.StatusCode) -> grpc.StatusCode:
    """Return the status that the method has set, or the default."""
    code: Any = context.code()
    return default if code is None else code


def _around(handler: "_Handler | None", wrap: Callable[[Any], _Behavior]) -> "_Handler | None":
    """Return a handler with its method wrapped; None (unknown method) stays None."""
    if handler is None:
        return None
    # The handler of a refusal is of another kind than the method.
    request = "stream" if handler.request_streaming else "unary"
    response = "stream" if handler.response_streaming else "unary"
    behavior: Any = getattr(handler, f"{request}_{response}")
    make: Any = getattr(grpc, f"{request}_{response}_rpc_method_handler")
    wrapped: _Handler = make(
        wrap(behavior),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return wrapped
