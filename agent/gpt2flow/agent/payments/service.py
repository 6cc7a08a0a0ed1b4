"""Payment service: a small local provider over HTTP, for demos and tests."""

import asyncio
import math
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import bind
from gpt2flow.agent.payments.contract import (
    PAYMENTS_PATH,
    ErrorAnswer,
    ErrorCode,
    PaymentAnswer,
    PaymentBody,
    ServiceError,
)
from gpt2flow.agent.payments.ledger import (
    KeyReusedError,
    LedgerError,
    PaymentLedger,
    PaymentRules,
)
from gpt2flow.agent.payments.requests import RefusedRequestError, read_order, read_request
from gpt2flow.agent.telemetry.log import logging_to_stderr
from gpt2flow.files.tokens import TokenEntry, find_entry, read_token_file
from gpt2flow.web.asgi import server_config

_DRAIN_SECONDS = 10
_KEEP_ALIVE_SECONDS = 5
_MAX_CONNECTIONS = 200
_BEARER = "bearer "


@dataclass(frozen=True)
class PaymentServiceConfig:
    """Settings of the payment service.

    Attributes:
        address: Address to listen on, as `host:port`; port 0 picks a free one.
        data: SQLite file of the payments.
        rules: Payments to refuse.
        tokens: File of the tokens that clients may send; None admits everybody on this machine.
        delay: Seconds between a decision and its answer.
    """

    address: str = "127.0.0.1:8090"
    data: Path = Path("payments.sqlite")
    rules: PaymentRules = field(default_factory=PaymentRules)
    tokens: Path | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: A setting is invalid.
        """
        if not 0 <= self.delay < math.inf:
            raise InputError(f"--delay is {self.delay}, must be finite and at least 0")


class PaymentService:
    """Routes of the payment service.

    Args:
        ledger: Ledger of the payments.
        tokens: Tokens that clients may send; None admits all.
        delay: Seconds between a decision and its answer.
    """

    def __init__(
        self, ledger: PaymentLedger, tokens: list[TokenEntry] | None, delay: float
    ) -> None:
        self._ledger = ledger
        self._tokens = tokens
        self._delay = delay
        # Writing waits for the disk, and for other processes; reading waits for neither.
        self._writer = ThreadPoolExecutor(1, "payment-writer")
        self._reader = ThreadPoolExecutor(1, "payment-reader")
        self._undecided: Counter[str] = Counter()

    def app(self) -> Starlette:
        """Return the service as an ASGI application."""
        app = Starlette(
            routes=[
                Route("/healthz", self.health),
                Route(PAYMENTS_PATH, self.payments, methods=["GET", "POST"]),
                Route(PAYMENTS_PATH + "/{key:path}", self.find),
            ],
            exception_handlers={
                RefusedRequestError: _answer_refusal,
                HTTPException: _answer_status,
                LedgerError: _answer_failure,
            },
        )
        # A key may end in a slash; a redirect would ask for another one.
        app.router.redirect_slashes = False
        return app

    def close(self) -> None:
        """Finish what is being written."""
        self._writer.shutdown()
        self._reader.shutdown()

    async def payments(self, request: Request) -> Response:
        """Decide a payment, or return those of an order."""
        self._authorize(request)
        if request.method == "POST":
            return await self._submit(request)
        return await self._list(request)

    async def find(self, request: Request) -> Response:
        """Return the payment with a key."""
        self._authorize(request)
        key = request.path_params["key"]
        # Asked first: a payment that is decided meanwhile is found.
        is_undecided = self._undecided[key] > 0
        payment = await self._read(self._ledger.find, key)
        if payment is not None:
            return _answer(HTTPStatus.OK, payment)
        if is_undecided:
            raise RefusedRequestError(
                HTTPStatus.CONFLICT, ErrorCode.IN_PROGRESS, f"payment {key!r:.80} is in progress"
            )
        raise RefusedRequestError(
            HTTPStatus.NOT_FOUND, ErrorCode.UNKNOWN_PAYMENT, f"there is no payment {key!r:.80}"
        )

    async def health(self, _request: Request) -> Response:
        """Return whether the ledger can be read."""
        await self._read(self._ledger.find, "")
        return JSONResponse({"status": "ok"})

    async def _submit(self, request: Request) -> Response:
        """Answer 201 with a new payment, or 200 for a known key."""
        key, body = await read_request(request)
        try:
            payment, is_new = await self._decide(key, body)
        except KeyReusedError as error:
            raise RefusedRequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, ErrorCode.KEY_REUSED, str(error)
            ) from error
        # Accounts are customers' contacts, which a log must not show.
        fields = payment.model_dump(mode="json", exclude={"account", "reason"})
        structlog.get_logger().info("payment", **fields, is_new=is_new)
        await asyncio.sleep(self._delay)
        return _answer(HTTPStatus.CREATED if is_new else HTTPStatus.OK, payment)

    async def _list(self, request: Request) -> Response:
        payments = await self._read(self._ledger.of_order, read_order(request))
        return JSONResponse({"payments": [each.model_dump(mode="json") for each in payments]})

    async def _decide(self, key: str, body: PaymentBody) -> tuple[PaymentAnswer, bool]:
        def decided(_future: "asyncio.Future[Any]") -> None:
            self._undecided[key] -= 1
            if not self._undecided[key]:
                del self._undecided[key]

        self._undecided[key] += 1
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._writer, self._ledger.submit, key, body)
        future.add_done_callback(decided)
        # A client that leaves does not stop the writer, so that the key stays undecided until then.
        return await asyncio.shield(future)

    async def _read(self, function: Callable[[str], Any], name: str) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, name)

    def _authorize(self, request: Request) -> None:
        if self._tokens is None:
            return
        header = request.headers.get("authorization", "")
        token = header[len(_BEARER) :] if header.lower().startswith(_BEARER) else ""
        entry = find_entry(self._tokens, token)
        if entry is None or (entry.expires is not None and utc_now() >= entry.expires):
            raise RefusedRequestError(
                HTTPStatus.UNAUTHORIZED,
                ErrorCode.UNAUTHORIZED,
                "a valid bearer token is needed in the header authorization",
            )


def serve_payments(config: PaymentServiceConfig, on_ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Answers in progress have 10 seconds to be finished.

    Args:
        config: Settings of the service.
        on_ready: Called with the bound port once requests are accepted.

    Raises:
        InputError: A file is unusable.
        LedgerError: The file of the payments is locked.
        ListenError: The address cannot be bound.
    """
    tokens = None if config.tokens is None else read_token_file(config.tokens, InputError)
    remedy = "name the tokens of clients with --tokens" if tokens is None else None
    with (
        bind(config.address, "--address", remedy=remedy) as listener,
        logging_to_stderr("json"),
        closing(PaymentLedger(config.data, config.rules)) as ledger,
        closing(PaymentService(ledger, tokens, config.delay)) as service,
    ):
        server = uvicorn.Server(
            server_config(
                service.app(),
                max_connections=_MAX_CONNECTIONS,
                keep_alive_seconds=_KEEP_ALIVE_SECONDS,
                shutdown_seconds=_DRAIN_SECONDS,
            )
        )
        # uvicorn raises the signals again that it got, which must not end the process then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        listener.listen(socket.SOMAXCONN)
        host, port = listener.getsockname()[:2]
        structlog.get_logger().info("ready", host=host, port=port)
        on_ready(port)
        server.run(sockets=[listener])
        structlog.get_logger().info("stopped")


def _answer(status: HTTPStatus, payment: PaymentAnswer) -> JSONResponse:
    return JSONResponse(payment.model_dump(mode="json"), status)


def _answer_error(status: int, error: ServiceError, headers: Any = None) -> JSONResponse:
    return JSONResponse(ErrorAnswer(error=error).model_dump(mode="json"), status, headers)


async def _answer_refusal(_request: Request, refusal: Exception) -> Response:
    if not isinstance(refusal, RefusedRequestError):
        raise refusal
    return _answer_error(refusal.status, refusal.error)


async def _answer_status(_request: Request, error: Exception) -> Response:
    """Answer what the routes do not know, as another path or method."""
    if not isinstance(error, HTTPException):
        raise error
    refused = ServiceError(code=ErrorCode.UNSUPPORTED, message=error.detail)
    return _answer_error(error.status_code, refused, error.headers)


async def _answer_failure(_request: Request, error: Exception) -> Response:
    structlog.get_logger().error("unavailable", error=str(error))
    failure = ServiceError(code=ErrorCode.UNAVAILABLE, message="the payments cannot be read")
    return _answer_error(HTTPStatus.SERVICE_UNAVAILABLE, failure)
