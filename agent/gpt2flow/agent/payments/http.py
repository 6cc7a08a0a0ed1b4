"""Payments at a provider over HTTP."""

import asyncio
import threading
from concurrent.futures import CancelledError
from datetime import timedelta
from http import HTTPStatus

import httpx
from pydantic import ValidationError

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.net.addresses import parse_url
from gpt2flow.agent.payments.contract import (
    KEY_HEADER,
    MAX_BODY_BYTES,
    PAYMENTS_PATH,
    ErrorAnswer,
    ErrorCode,
    PaymentAnswer,
    PaymentBody,
    ServiceError,
    encode_key,
    field_errors,
    format_amount,
)
from gpt2flow.agent.payments.port import (
    PaymentRejectedError,
    PaymentRequest,
    PaymentResult,
    PaymentUnknownError,
)

DEFAULT_TIMEOUT = 10.0
# What a process that dies delays a payment by is at most twice that.
_MAX_TIMEOUT = 25.0
# Beyond the timeouts, an attempt takes the time to be scheduled, on a busy machine too.
_MARGIN = timedelta(seconds=10)
# Errors after which the same request cannot succeed. All others are about the provider, or about
# the way to it: then nothing is known, and the payment is tried again.
_FINAL = {ErrorCode.INVALID, ErrorCode.KEY_REUSED}
_DECIDED = {HTTPStatus.OK, HTTPStatus.CREATED}
_MAX_REASON = 200


class HttpPayments:
    """Port to a payment service over HTTP, for any number of threads.

    Every call has a connection of its own: an idle one may be broken without the client's
    knowledge, which would make the outcome of a payment unknown.

    Args:
        url: URL of the service, https unless it is on this machine.
        token: Bearer token; None sends none.
        timeout: Longest duration of a call, in seconds.

    Raises:
        InputError: A setting is invalid.
    """

    def __init__(
        self, url: str, token: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        self._url = _parse_url(url)
        if not 0 < timeout <= _MAX_TIMEOUT:
            raise InputError(
                f"payment timeout is {timeout} s, must be above 0 and at most {_MAX_TIMEOUT:.0f}"
            )
        self._timeout = timeout
        self._headers = {"accept-encoding": "identity", "user-agent": "gpt2flow"}
        if token is not None:
            if not token or not all("!" <= character <= "~" for character in token):
                raise InputError("the payment token must be visible ASCII characters")
            self._headers["authorization"] = f"Bearer {token}"
        self._verify = httpx.create_ssl_context() if self._url.scheme == "https" else False
        # An event loop bounds a whole call, where timeouts of sockets bound each read only.
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="payments-http", daemon=True
        )
        self._thread.start()

    @property
    def longest_attempt(self) -> timedelta:
        """Time of two calls, and of being scheduled."""
        return 2 * timedelta(seconds=self._timeout) + _MARGIN

    def submit(self, request: PaymentRequest) -> PaymentResult:
        """Make a payment, or return the result of an earlier request.

        A key is paid once.

        Args:
            request: Request of the payment.

        Raises:
            PaymentUnknownError: There was no answer, or none that tells the outcome.
            PaymentRejectedError: The provider will never take the request.
        """
        key, body = _contract_request(request)
        headers = {KEY_HEADER: key, "content-type": "application/json"}
        status, content = self._call("POST", "", headers, body.model_dump_json().encode())
        if status in _DECIDED:
            answer = self._read_payment(content)
            if not answer.is_about(request.key, body):
                raise self._unknown("answered with another payment")
            return _result(answer)
        error = _read_error(content)
        if error and error.code in _FINAL and httpx.codes.is_client_error(status):
            raise PaymentRejectedError(f"payment {request.key}: {_one_line(error.message)}")
        raise self._unclear(status, error)

    def find(self, key: str) -> PaymentResult | None:
        """Return the payment with a key, or None.

        A request that is still on its way is not known yet. Only a repetition with the same key
        is safe after None.

        Args:
            key: Idempotency key.

        Raises:
            PaymentUnknownError: The provider cannot be asked, or is still deciding.
        """
        try:
            path = f"/{encode_key(key)}"
        except ValueError:
            # The contract has no such key, so that no payment was made with it.
            return None
        status, content = self._call("GET", path, {})
        if status == HTTPStatus.OK:
            answer = self._read_payment(content)
            if answer.key != key:
                raise self._unknown("answered with another payment")
            return _result(answer)
        error = _read_error(content)
        # Only the service says so: a wrong URL also answers 404.
        is_absent = error is not None and error.code is ErrorCode.UNKNOWN_PAYMENT
        if status == HTTPStatus.NOT_FOUND and is_absent:
            return None
        raise self._unclear(status, error)

    def close(self) -> None:
        """Stop; the outcome of calls in progress is unknown."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(
        self, method: str, path: str, headers: dict[str, str], content: bytes | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of an answer.

        Raises:
            PaymentUnknownError: There was none within the timeout.
        """
        with self._lock:
            if self._is_closed:
                raise self._unknown("the connection is closed")
            request = self._exchange(method, path, headers, content)
            future = asyncio.run_coroutine_threadsafe(request, self._loop)
        try:
            return future.result()
        except TimeoutError as error:
            raise self._unknown(f"no answer within {self._timeout:g} s") from error
        except CancelledError as error:
            raise self._unknown("closed before there was an answer") from error
        except (httpx.HTTPError, OSError) as error:
            raise self._unknown(f"{type(error).__name__} {error}".strip()) from error
        finally:
            future.cancel()

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], content: bytes | None
    ) -> tuple[int, bytes]:
        # A proxy of the environment must not read what is meant for this machine.
        is_remote = self._url.scheme == "https"
        async with (
            asyncio.timeout(self._timeout),
            httpx.AsyncClient(
                verify=self._verify,
                timeout=None,  # noqa: S113 - the line above bounds all of it
                trust_env=is_remote,
                follow_redirects=False,
            ) as client,
            client.stream(
                method,
                f"{self._url}{PAYMENTS_PATH}{path}",
                content=content,
                headers=self._headers | headers,
            ) as response,
        ):
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise self._unknown(f"answered with more than {MAX_BODY_BYTES} bytes")
            return response.status_code, bytes(body)

    def _read_payment(self, content: bytes) -> PaymentAnswer:
        try:
            return PaymentAnswer.model_validate_json(content)
        except ValidationError as error:
            wrong = field_errors(error)[0]
            raise self._unknown(f"answered {wrong.field}: {wrong.message}") from error

    def _unclear(self, status: int, error: ServiceError | None) -> PaymentUnknownError:
        """Return the error of an answer that does not tell the outcome."""
        reason = f": {error.message}" if error else ""
        hint = ", and redirects are not followed" if httpx.codes.is_redirect(status) else ""
        return self._unknown(f"answered {status}{reason}{hint}")

    def _unknown(self, reason: str) -> PaymentUnknownError:
        return PaymentUnknownError(f"payments at {self._url.host}: {_one_line(reason)}")


def _parse_url(text: str) -> httpx.URL:
    url = parse_url(text, "payment URL")
    if url.query or url.fragment:
        raise InputError(f"payment URL is {text!r}, must have no query and no fragment")
    return httpx.URL(text.rstrip("/"))


def _contract_request(request: PaymentRequest) -> tuple[str, PaymentBody]:
    """Return the encoded key, and the body."""
    field = "key"
    try:
        key = encode_key(request.key)
        field = "amount"
        amount = format_amount(request.amount)
        field = "body"
        fields = {"kind": request.kind, "order": request.order, "account": request.account}
        return key, PaymentBody.model_validate(fields | {"amount": amount})
    except ValidationError as error:
        wrong = field_errors(error)[0]
        reason = f"{wrong.field}: {wrong.message}"
        raise PaymentRejectedError(f"payment {request.key!r:.80}: {reason}") from error
    except ValueError as error:
        reason = f"{field}: {error}, not {getattr(request, field)!r:.80}"
        raise PaymentRejectedError(f"payment {request.key!r:.80}: {reason}") from error


def _result(answer: PaymentAnswer) -> PaymentResult:
    reason = None if answer.reason is None else _one_line(answer.reason)
    return PaymentResult(answer.key, answer.outcome, answer.reference, reason)


def _read_error(content: bytes) -> ServiceError | None:
    """Return the error of an answer; None if it has another form."""
    try:
        return ErrorAnswer.model_validate_json(content).error
    except ValidationError:
        return None


def _one_line(text: str) -> str:
    printable = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(printable.split())[:_MAX_REASON]


async def _cancel_others() -> None:
    """Cancel all calls of the loop, and wait until they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
