"""Requests to the payment service, read with every invalid field named."""

from http import HTTPStatus

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from gpt2flow.agent.payments.contract import (
    KEY_HEADER,
    MAX_BODY_BYTES,
    ErrorCode,
    FieldError,
    PaymentBody,
    ServiceError,
    check_text,
    decode_key,
    field_errors,
)
from gpt2flow.web.asgi import BodyTooLargeError, read_body

_BODY_SECONDS = 10.0


class RefusedRequestError(Exception):
    """Request that is answered with an error.

    Attributes:
        status: Status of the answer.
        error: Error of the answer.
    """

    def __init__(
        self, status: HTTPStatus, code: ErrorCode, message: str, *fields: FieldError
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = ServiceError(code=code, message=message, fields=list(fields))


async def read_request(request: Request) -> tuple[str, PaymentBody]:
    """Return key and body of a request.

    Raises:
        RefusedRequestError: The request is invalid; the error names every invalid field.
    """
    content = await _read_body(request)
    errors: list[FieldError] = []
    key, body = "", None
    headers = request.headers.getlist(KEY_HEADER)
    try:
        [header] = headers
    except ValueError:
        message = f"must be given once, not {len(headers)} times"
        errors.append(FieldError(field=KEY_HEADER, message=message))
    else:
        try:
            key = decode_key(header)
        except ValueError as error:
            message = f"{error}, not {header!r:.80}"
            errors.append(FieldError(field=KEY_HEADER, message=message))
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        message = f"must be application/json, not {media_type!r:.80}"
        errors.append(FieldError(field="content-type", message=message))
    try:
        body = PaymentBody.model_validate_json(content)
    except ValidationError as error:
        errors += field_errors(error)
    if errors or body is None:
        raise _invalid(*errors)
    return key, body


async def _read_body(request: Request) -> bytes:
    try:
        return await read_body(request, MAX_BODY_BYTES, _BODY_SECONDS)
    except BodyTooLargeError as error:
        wrong = FieldError(field="body", message=f"must be at most {MAX_BODY_BYTES} bytes")
        raise _invalid(wrong, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE) from error
    except (TimeoutError, ClientDisconnect) as error:
        # The same request may succeed later, so this is no invalid field.
        message = f"the body did not arrive within {_BODY_SECONDS:.0f} s"
        raise RefusedRequestError(
            HTTPStatus.REQUEST_TIMEOUT, ErrorCode.UNAVAILABLE, message
        ) from error


def read_order(request: Request) -> str:
    """Return the order whose payments are asked for.

    Raises:
        RefusedRequestError: A parameter is invalid.
    """
    unknown = request.query_params.keys() - {"order"}
    errors = [FieldError(field=name, message="unknown; the parameter is order") for name in unknown]
    orders = request.query_params.getlist("order")
    if len(orders) != 1:
        message = f"must be given once, not {len(orders)} times"
        errors.append(FieldError(field="order", message=message))
    else:
        try:
            check_text(orders[0])
        except ValueError as error:
            message = f"{error}, not {orders[0]!r:.80}"
            errors.append(FieldError(field="order", message=message))
    if errors:
        raise _invalid(*errors)
    return orders[0]


def _invalid(
    *fields: FieldError, status: HTTPStatus = HTTPStatus.BAD_REQUEST
) -> RefusedRequestError:
    message = "; ".join(f"{each.field}: {each.message}" for each in fields)
    return RefusedRequestError(status, ErrorCode.INVALID, message, *fields)
