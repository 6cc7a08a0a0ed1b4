"""Contract of the payment service over HTTP: fields, limits and errors."""

import re
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote, unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from gpt2flow.agent.payments.port import PaymentKind, PaymentOutcome
from gpt2flow.files.documents import StrictModel

PAYMENTS_PATH = "/v1/payments"
KEY_HEADER = "Idempotency-Key"
# Bodies of requests and of answers about one payment.
MAX_BODY_BYTES = 16_384
MAX_TEXT = 200
MAX_AMOUNT = Decimal("9999999999.99")

_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,9})(\.[0-9]{1,2})?")
_AMOUNT_RULE = f"a decimal string above 0 with at most two decimals, up to {MAX_AMOUNT}"
_TEXT_RULE = f"1 to {MAX_TEXT} printable characters"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Clients and proxies remove these segments from a path.
_DOT_SEGMENTS = {".", ".."}


class ErrorCode(StrEnum):
    """Code of an error that the service answers."""

    INVALID = "invalid"
    KEY_REUSED = "key_reused"
    UNKNOWN_PAYMENT = "unknown_payment"
    IN_PROGRESS = "in_progress"
    UNAUTHORIZED = "unauthorized"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"


def parse_amount(text: Any) -> Decimal:
    """Read an amount, and give it two decimals.

    Args:
        text: Decimal string; a number of JSON is none, because it may have been rounded.

    Raises:
        ValueError: It is no amount.
    """
    if not isinstance(text, str) or not _AMOUNT.fullmatch(text) or not Decimal(text):
        raise ValueError(f"must be {_AMOUNT_RULE}")
    return Decimal(text).quantize(Decimal("0.01"))


def format_amount(amount: Decimal) -> str:
    """Write an amount as a decimal string, exactly.

    Raises:
        ValueError: The contract has no such amount.
    """
    # Anything that is not within the bounds, as NaN, fails the comparison or the parser.
    if not amount.is_finite() or not 0 < amount <= MAX_AMOUNT or amount != round(amount, 2):
        raise ValueError(f"must be {_AMOUNT_RULE}")
    return f"{amount:.2f}"


def check_text(text: str) -> str:
    """Return a text of the contract.

    Raises:
        ValueError: It is empty, too long, or has characters that cannot be printed.
    """
    if not 1 <= len(text) <= MAX_TEXT or not text.isprintable():
        raise ValueError(f"must be {_TEXT_RULE}")
    return text


def check_key(key: str) -> str:
    """Return an idempotency key.

    Raises:
        ValueError: It cannot be one.
    """
    if key in _DOT_SEGMENTS:
        raise ValueError(f"must be {_TEXT_RULE}, and not {key!r}")
    return check_text(key)


def encode_key(key: str) -> str:
    """Return a key as percent-encoded UTF-8, for header and path.

    Raises:
        ValueError: It cannot be a key.
    """
    return quote(check_key(key), safe="")


def decode_key(header: str) -> str:
    """Return the key in a header.

    Raises:
        ValueError: It is not percent-encoded UTF-8, or cannot be a key.
    """
    if not header.isascii() or _BAD_ESCAPE.search(header):
        raise ValueError("must be percent-encoded UTF-8")
    try:
        key = unquote(header, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("must be percent-encoded UTF-8") from error
    return check_key(key)


_Text = Annotated[str, AfterValidator(check_text)]
_Key = Annotated[str, AfterValidator(check_key)]
_Amount = Annotated[Decimal, BeforeValidator(parse_amount), PlainSerializer(format_amount)]


class PaymentBody(StrictModel):
    """Body of a request; its key is in a header.

    Attributes:
        kind: Charge or refund.
        order: Number of the order.
        account: Account that is charged, or paid back.
        amount: Amount above 0 with two decimals.
    """

    kind: PaymentKind
    order: _Text
    account: _Text
    amount: _Amount


class PaymentAnswer(BaseModel):
    """Payment as the service answers it.

    Fields that are added later are ignored.

    Attributes:
        key: Idempotency key of its request.
        kind: Charge or refund.
        order: Number of the order.
        account: Account of the customer.
        amount: Amount of the request.
        outcome: Decision of the service, which never changes.
        reference: Number of a paid payment.
        reason: Reason of a refusal.
    """

    model_config = ConfigDict(frozen=True)

    key: _Key
    kind: PaymentKind
    order: _Text
    account: _Text
    amount: _Amount
    outcome: PaymentOutcome
    reference: _Text | None = None
    reason: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _explains_its_outcome(self) -> "PaymentAnswer":
        if self.outcome is PaymentOutcome.PAID and self.reference is None:
            raise ValueError("a paid payment needs a reference")
        if self.outcome is PaymentOutcome.REFUSED and self.reason is None:
            raise ValueError("a refused payment needs a reason")
        return self

    def is_about(self, key: str, body: PaymentBody) -> bool:
        """Return whether this is the payment of a request."""
        fields = self.model_dump(include=set(PaymentBody.model_fields))
        return self.key == key and fields == body.model_dump()


class FieldError(BaseModel):
    """Invalid field of a request.

    Attributes:
        field: Name of the field, header or parameter; `body` is all of the body.
        message: Rule that it breaks.
    """

    field: str
    message: str


class ServiceError(BaseModel):
    """Error of the service.

    Attributes:
        code: Code that programs can act on.
        message: One line for people.
        fields: Every invalid field.
    """

    code: ErrorCode
    message: str
    fields: list[FieldError] = []


class ErrorAnswer(BaseModel):
    """Body of every answer that is no payment.

    Attributes:
        error: Error of the service.
    """

    error: ServiceError


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return every invalid field of a body."""
    found = []
    for each in error.errors(include_url=False):
        name = ".".join(str(part) for part in each["loc"]) or "body"
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = f"unknown; the fields are {', '.join(PaymentBody.model_fields)}"
        elif name != "body" and each["type"] != "missing":
            message += f", not {each['input']!r:.80}"
        found.append(FieldError(field=name, message=message))
    return found
