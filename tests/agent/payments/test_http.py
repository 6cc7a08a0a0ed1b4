"""Port to a provider over HTTP: providers that break the contract."""

import gzip
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from tests.support.broken_provider import Behaviour, answer, broken_provider, drip
from tests.support.command_line import UNREACHABLE
from tests.support.payment_process import charge
from tests.support.waiting import eventually

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.payments.contract import MAX_BODY_BYTES
from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.port import (
    PaymentOutcome,
    PaymentRejectedError,
    PaymentResult,
    PaymentUnknownError,
)

PAID = {
    "key": "SO-1/1/charge",
    "kind": "charge",
    "order": "SO-1",
    "account": "ann@example.com",
    "amount": "50.00",
    "outcome": "paid",
    "reference": "P-1",
    "reason": None,
}
KEY = "SO-1/1/charge"
GZIP = {"content-encoding": "gzip"}


def error(code: str, message: str = "why") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "fields": []}}


def silent(connection: socket.socket) -> None:
    """Wait until the client has closed the connection."""
    connection.recv(1)


UNCLEAR: dict[str, Behaviour] = {
    "closes": lambda connection: connection.close(),
    "is silent": silent,
    "no http": lambda connection: connection.sendall(b"\x00\xff nonsense\r\n\r\n"),
    "half a status line": lambda connection: connection.sendall(b"HTTP/1.1 20"),
    "half a body": answer(200, PAID, length=10_000),
    "endless head": drip(b"HTTP/1.1 200 OK\r\n", b"x-more: x\r\n", 0.01),
    "endless head, slowly": drip(b"HTTP/1.1 200 OK\r\n", b"x", 0.2),
    "endless body": drip(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 10_000, 0.0001),
    "endless body, slowly": drip(b"HTTP/1.1 200 OK\r\n\r\n", b" ", 0.2),
    "endless provisional answers": drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01),
    "large body": answer(200, b'{"x": "' + b"x" * MAX_BODY_BYTES + b'"}'),
    "empty body": answer(200, b""),
    "no content": answer(204, b""),
    "page": answer(200, b"<html>Welcome</html>"),
    "list": answer(200, [PAID]),
    "deep nesting": answer(200, b"[" * 10_000),
    "no utf-8": answer(200, b"\xff\xfe"),
    "compressed": answer(200, gzip.compress(json.dumps(PAID).encode()), headers=GZIP),
    "another key": answer(200, PAID | {"key": "SO-2/1/charge"}),
    "unknown outcome": answer(200, PAID | {"outcome": "pending"}),
    "paid without reference": answer(200, PAID | {"reference": None}),
    "refused without reason": answer(200, PAID | {"outcome": "refused"}),
    "amount as a number": answer(200, PAID | {"amount": 50.0}),
    "missing field": answer(200, {key: PAID[key] for key in PAID if key != "outcome"}),
    "redirect": answer(307, b"", headers={"location": "/elsewhere"}),
    "redirect of all requests": answer(308, b"", headers={"location": "http://127.0.0.1:9/"}),
    "unauthorized": answer(401, error("unauthorized")),
    "forbidden page": answer(403, b"<html>Forbidden</html>"),
    "another service": answer(404, b"<html>Not found</html>"),
    "wrong path": answer(404, error("unsupported")),
    "in progress": answer(409, error("in_progress")),
    "too many": answer(429, b"slow down"),
    "bad request page": answer(400, b"<html>Bad request</html>"),
    "error": answer(500, error("invalid")),
    "bad gateway": answer(502, b""),
    "unavailable": answer(503, error("unavailable", "locked\n" + "x" * 5000)),
}
# Answers that leave a request open, but not a question: there is no other payment to compare with.
ONLY_SUBMIT: dict[str, Behaviour] = {
    "another amount": answer(200, PAID | {"amount": "51.00"}),
    "another order": answer(200, PAID | {"order": "SO-2"}),
    "another kind": answer(200, PAID | {"kind": "refund"}),
    "another account": answer(200, PAID | {"account": "bob@example.com"}),
    "unknown payment": answer(404, error("unknown_payment")),
}


@pytest.mark.process
@pytest.mark.parametrize("name", [*UNCLEAR, *ONLY_SUBMIT])
def test_an_answer_that_tells_no_outcome_leaves_the_payment_unknown(name: str) -> None:
    behaviour = (UNCLEAR | ONLY_SUBMIT)[name]
    with (
        broken_provider(behaviour) as provider,
        closing(HttpPayments(provider.url, timeout=1.0)) as payments,
    ):
        with pytest.raises(PaymentUnknownError, match=r"payments at 127\.0\.0\.1: ") as caught:
            payments.submit(charge(KEY))
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 300
        # A request is never sent twice without being asked for.
        assert len(provider.requests) <= 1


@pytest.mark.process
@pytest.mark.parametrize("name", UNCLEAR)
def test_an_answer_that_says_nothing_is_not_taken_for_no_payment(name: str) -> None:
    with (
        broken_provider(UNCLEAR[name]) as provider,
        closing(HttpPayments(provider.url, timeout=1.0)) as payments,
        pytest.raises(PaymentUnknownError),
    ):
        payments.find(KEY)


@pytest.mark.process
@pytest.mark.parametrize("status", [307, 308, 302])
def test_redirects_are_not_followed(status: int) -> None:
    with broken_provider(answer(200, PAID)) as target:
        redirect = answer(status, b"", headers={"location": f"{target.url}/v1/payments"})
        with (
            broken_provider(redirect) as provider,
            closing(HttpPayments(provider.url, "secret")) as payments,
        ):
            with pytest.raises(PaymentUnknownError, match="redirects are not followed"):
                payments.submit(charge(KEY))
            with pytest.raises(PaymentUnknownError, match="redirects are not followed"):
                payments.find(KEY)
        assert target.requests == []


@pytest.mark.process
@pytest.mark.parametrize(
    "status, code", [(400, "invalid"), (413, "invalid"), (422, "key_reused"), (422, "invalid")]
)
def test_a_request_that_the_service_calls_invalid_is_rejected(status: int, code: str) -> None:
    behaviour = answer(status, error(code, "amount: must\nbe less"))
    with (
        broken_provider(behaviour) as provider,
        closing(HttpPayments(provider.url)) as payments,
        pytest.raises(PaymentRejectedError, match="payment SO-1/1/charge: amount: must be less"),
    ):
        payments.submit(charge(KEY))


@pytest.mark.process
@pytest.mark.parametrize("status", [200, 201])
def test_fields_that_a_later_service_adds_are_ignored(status: int) -> None:
    with (
        broken_provider(answer(status, PAID | {"created_at": "2026-11-27"})) as provider,
        closing(HttpPayments(provider.url)) as payments,
    ):
        paid = PaymentResult(KEY, PaymentOutcome.PAID, "P-1", None)
        assert payments.submit(charge(KEY)) == paid
        if status == 200:
            assert payments.find(KEY) == paid


@pytest.mark.process
def test_the_request_is_what_the_contract_says() -> None:
    with (
        broken_provider(answer(200, PAID)) as provider,
        closing(HttpPayments(f"{provider.url}/api/", "secret")) as payments,
    ):
        payments.submit(charge(KEY))
        payments.find(KEY)
    submitted, found = (request.decode() for request in provider.requests)
    head, _, body = submitted.partition("\r\n\r\n")
    lines = head.lower().split("\r\n")
    assert lines[0] == "post /api/v1/payments http/1.1"
    assert {"idempotency-key: so-1%2f1%2fcharge", "authorization: bearer secret"} < set(lines)
    assert body == ('{"kind":"charge","order":"SO-1","account":"ann@example.com","amount":"50.00"}')
    assert found.startswith("GET /api/v1/payments/SO-1%2F1%2Fcharge HTTP/1.1\r\n")
    assert "authorization: bearer secret" in found.lower()


@pytest.mark.process
def test_a_proxy_of_the_environment_does_not_read_what_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "HTTP_PROXY", f"http://{UNREACHABLE}")
    monkeypatch.setitem(os.environ, "ALL_PROXY", f"http://{UNREACHABLE}")
    with (
        broken_provider(answer(200, PAID)) as provider,
        closing(HttpPayments(provider.url)) as payments,
    ):
        assert payments.find(KEY) is not None


@pytest.mark.process
def test_closing_ends_calls_in_progress_with_an_unknown_outcome() -> None:
    with broken_provider(silent) as provider, ThreadPoolExecutor(4) as threads:
        payments = HttpPayments(provider.url, timeout=25.0)
        calls = [threads.submit(payments.submit, charge(f"k-{number}")) for number in range(4)]
        eventually(lambda: len(provider.requests) == 4)
        payments.close()
        for call in calls:
            with pytest.raises(PaymentUnknownError, match="closed before there was an answer"):
                call.result()
        # The event loop's thread has ended.
        assert not [thread for thread in threading.enumerate() if thread.name == "payments-http"]


@pytest.mark.process
def test_nothing_is_sent_after_closing() -> None:
    with broken_provider(answer(200, PAID)) as provider:
        payments = HttpPayments(provider.url)
        payments.close()
        payments.close()
        with pytest.raises(PaymentUnknownError, match="the connection is closed"):
            payments.submit(charge(KEY))
        with pytest.raises(PaymentUnknownError, match="the connection is closed"):
            payments.find(KEY)
        assert provider.requests == []


@pytest.mark.parametrize("key", ["", "..", "a\nb", "k" * 201])
def test_a_key_that_the_contract_lacks_names_no_payment(key: str) -> None:
    with closing(HttpPayments(f"http://{UNREACHABLE}")) as payments:
        assert payments.find(key) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://pay.example",
        "https://pay.example:8443/api",
        "http://127.0.0.1:8090",
        "http://localhost:8090",
        "http://[::1]:8090/",
    ],
)
def test_a_url_is_https_or_of_this_machine(url: str) -> None:
    HttpPayments(url).close()


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://pay.example", "must be https except on this machine"),
        ("http://10.0.0.1:8090", "must be https except on this machine"),
        ("http://127.0.0.1.example", "must be https except on this machine"),
        ("ftp://127.0.0.1", "must be an https URL"),
        ("127.0.0.1:8090", "payment URL"),
        ("", "must be an https URL"),
        ("https://", "must be an https URL"),
        ("https://pay.example?x=1", "must have no query"),
        ("https://pay.example#x", "must have no query"),
        ("https://pay.example:99999", "payment URL"),
        ("https://pay.example:port", "which is no URL"),
        ("https://[::1", "payment URL"),
        ("https://a\nb", "which is no URL"),
    ],
)
def test_another_url_is_refused_in_one_line(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        HttpPayments(url)
    assert len(str(caught.value).splitlines()) == 1


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="a user or a password") as caught:
        HttpPayments("https://shop:geheim@pay.example")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "geheim\n", "gehéim"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InputError, match="must be visible ASCII characters") as caught:
        HttpPayments("https://pay.example", token)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0.0, -1.0, 25.1, float("nan"), float("inf")])
def test_a_timeout_is_above_zero_and_short_enough_for_a_claim(timeout: float) -> None:
    with pytest.raises(InputError, match="must be above 0 and at most 25"):
        HttpPayments("https://pay.example", timeout=timeout)
