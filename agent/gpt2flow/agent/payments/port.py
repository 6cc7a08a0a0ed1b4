"""Port to a payment provider, and the one that needs none."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from gpt2flow.agent.errors import AgentError
from gpt2flow.agent.net.secrets import read_secret


class PaymentUnknownError(AgentError):
    """Missing answer: the payment may or may not have happened."""


class PaymentRejectedError(AgentError):
    """Request that the provider will never take."""


class PaymentKind(StrEnum):
    """Kind of payment."""

    CHARGE = "charge"
    REFUND = "refund"


class PaymentOutcome(StrEnum):
    """Outcome of a payment that the provider has decided."""

    PAID = "paid"
    REFUSED = "refused"


@dataclass(frozen=True)
class PaymentRequest:
    """Request of a payment.

    Attributes:
        key: Idempotency key; one key is paid once.
        kind: Charge or refund.
        order: Number of the order; a refund pays back its charge.
        account: Contact of the customer.
        amount: Amount above 0 with two decimals.
    """

    key: str
    kind: PaymentKind
    order: str
    account: str
    amount: Decimal


@dataclass(frozen=True)
class PaymentResult:
    """Payment as the provider knows it.

    Attributes:
        key: Idempotency key of the request.
        outcome: What became of it.
        reference: Number that the provider gave it.
        reason: Why it was refused.
    """

    key: str
    outcome: PaymentOutcome
    reference: str | None
    reason: str | None


class PaymentPort(Protocol):
    """Payment provider."""

    @property
    def longest_attempt(self) -> timedelta:
        """Longest time that `find` and `submit` take together.

        A process that has not finished by then is taken to be dead, and another one tries again.
        """

    def submit(self, request: PaymentRequest) -> PaymentResult:
        """Make a payment, or return the result of an earlier request.

        A key is paid once.

        Args:
            request: Request of the payment.

        Raises:
            PaymentUnknownError: The provider gave no answer, or none that tells the outcome.
            PaymentRejectedError: The provider will never take the request.
        """

    def find(self, key: str) -> PaymentResult | None:
        """Return the payment with a key, or None.

        A request that is still on its way is not known yet. After None, only a repetition with
        the same key is safe.

        Args:
            key: Idempotency key.

        Raises:
            PaymentUnknownError: The provider cannot be asked, or is still deciding.
        """

    def close(self) -> None:
        """Close the connection."""


class InvoicePayments:
    """Payments on account: without a provider, each is as good as paid."""

    # Nothing leaves the process, so that a repetition is harmless at any time.
    longest_attempt = timedelta(0)

    def submit(self, request: PaymentRequest) -> PaymentResult:
        """Return the request as paid."""
        return PaymentResult(request.key, PaymentOutcome.PAID, None, None)

    def find(self, key: str) -> PaymentResult | None:
        """Return None: nothing is kept."""
        del key
        return None

    def close(self) -> None:
        """Do nothing."""


def open_payments(url: str, token_file: Path | None) -> PaymentPort:
    """Return the payment provider of a program's settings.

    Args:
        url: URL of the payment service; empty is payment on account.
        token_file: File of the bearer token for the payment service; None sends none.

    Raises:
        InputError: The URL is invalid, or the file of the token cannot be read.
    """
    if not url:
        return InvoicePayments()
    from gpt2flow.agent.payments.http import HttpPayments  # noqa: PLC0415 - needs httpx

    token = None
    if token_file is not None:
        token = read_secret("--payments-token-file", token_file).strip()
    return HttpPayments(url, token)
