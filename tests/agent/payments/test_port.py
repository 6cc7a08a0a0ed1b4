"""Payments without a provider."""

from tests.support.payment_process import charge, refund

from gpt2flow.agent.payments.port import InvoicePayments, PaymentOutcome, PaymentResult


def test_without_a_provider_every_payment_is_paid_on_account() -> None:
    payments = InvoicePayments()
    for request in (charge("k-1"), refund("k-2")):
        paid = PaymentResult(request.key, PaymentOutcome.PAID, reference=None, reason=None)
        assert payments.submit(request) == paid
    assert payments.find("k-1") is None
    payments.close()
    payments.close()
