"""Payment service over HTTP, as a process."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.payment_process import PaymentProcess, charge, payment_service, refund
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.payments.contract import MAX_BODY_BYTES
from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.port import PaymentOutcome, PaymentRejectedError, PaymentUnknownError
from gpt2flow.files.tokens import make_token

pytestmark = pytest.mark.process

BODY = {"kind": "charge", "order": "SO-1", "account": "ann@example.com", "amount": "50.00"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaymentProcess]:
    """Service that all tests share, each with its own keys."""
    folder = tmp_path_factory.mktemp("payments")
    rules = ("--refuse", "bob@example.com", "--refuse", "eve@example.com", "--limit", "100")
    with payment_service(folder, *rules) as process:
        yield process


@pytest.fixture
def payments(service: PaymentProcess) -> Iterator[HttpPayments]:
    port = HttpPayments(service.url)
    yield port
    port.close()


def post(
    service: PaymentProcess, key: str | None, body: Any, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Send a body, and return status and answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": "application/json"} | headers
    given |= {} if key is None else {"idempotency-key": key}
    answer = httpx.post(
        f"{service.url}/v1/payments", content=content, headers=given, timeout=SECONDS
    )
    return answer.status_code, answer.json()


def get(service: PaymentProcess, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """Return status and answer of a path."""
    answer = httpx.get(f"{service.url}{path}", headers=headers, timeout=SECONDS)
    return answer.status_code, answer.json()


def bad_fields(answer: dict[str, Any]) -> list[str]:
    return [each["field"] for each in answer["error"]["fields"]]


def test_a_payment_is_made_once_and_found(service: PaymentProcess) -> None:
    body = BODY | {"order": "once"}
    status, made = post(service, "once/1", body)
    assert status == 201
    assert made == body | {
        "key": "once/1",
        "outcome": "paid",
        "reference": made["reference"],
        "reason": None,
    }
    assert made["reference"]
    assert post(service, "once/1", body) == (200, made)
    assert get(service, "/v1/payments/once%2F1") == (200, made)
    assert get(service, "/v1/payments?order=once") == (200, {"payments": [made]})


def test_the_same_key_with_another_body_is_422_and_pays_nothing(service: PaymentProcess) -> None:
    body = BODY | {"order": "reused"}
    _, made = post(service, "reused", body)
    status, answer = post(service, "reused", body | {"amount": "51.00"})
    assert (status, answer["error"]["code"]) == (422, "key_reused")
    assert "'reused'" in answer["error"]["message"]
    assert get(service, "/v1/payments?order=reused") == (200, {"payments": [made]})


def test_20_parallel_requests_with_one_key_pay_once(
    service: PaymentProcess, payments: HttpPayments
) -> None:
    body = BODY | {"order": "parallel"}
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: post(service, "parallel", body), range(20)))
        found = list(
            threads.map(
                lambda _: payments.submit(charge("parallel-2", "1.00", order="parallel")), range(20)
            )
        )
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({json.dumps(answer) for _, answer in answers}) == 1
    assert len(set(found)) == 1
    _, listed = get(service, "/v1/payments?order=parallel")
    assert [each["key"] for each in listed["payments"]] == ["parallel", "parallel-2"]


def test_refunds_end_where_the_charges_do(payments: HttpPayments) -> None:
    assert payments.submit(charge("r-c", "80.00", order="back")).outcome is PaymentOutcome.PAID
    with ThreadPoolExecutor(10) as threads:
        results = list(
            threads.map(
                lambda number: payments.submit(refund(f"r-{number}", "30.00", order="back")),
                range(10),
            )
        )
    assert [each.outcome for each in results].count(PaymentOutcome.PAID) == 2
    refused = next(each for each in results if each.outcome is PaymentOutcome.REFUSED)
    assert refused.reason == "refund of 30.00 is above the 20.00 left of order back"
    assert payments.find(refused.key) == refused


def test_accounts_and_amounts_are_refused_by_the_options(payments: HttpPayments) -> None:
    for account in ("bob@example.com", "eve@example.com"):
        refused = payments.submit(charge(f"no-{account}", account=account))
        assert (refused.outcome, refused.reference) == (PaymentOutcome.REFUSED, None)
        assert refused.reason == f"account {account} is refused"
    assert payments.submit(charge("limit", "100.00")).outcome is PaymentOutcome.PAID
    above = payments.submit(charge("above", "100.01"))
    assert above.reason == "charge of 100.01 is above the limit of 100.00"


@pytest.mark.parametrize(
    "field, value",
    [
        ("kind", "gift"),
        ("kind", None),
        ("order", ""),
        ("order", 7),
        ("order", "a\nb"),
        ("order", "o" * 201),
        ("account", ""),
        ("account", ["ann"]),
        ("account", "a\x00b"),
        ("amount", 50),
        ("amount", 50.5),
        ("amount", "0"),
        ("amount", "0.00"),
        ("amount", "-5.00"),
        ("amount", "5.005"),
        ("amount", "100000000000000000000"),
        ("amount", "NaN"),
        ("amount", "5e1"),
        ("amount", None),
        ("currency", "EUR"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_paid(
    service: PaymentProcess, field: str, value: Any
) -> None:
    status, answer = post(service, "wrong", BODY | {field: value})
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert bad_fields(answer) == [field]
    assert field in answer["error"]["message"]
    assert get(service, "/v1/payments/wrong")[0] == 404


@pytest.mark.parametrize("field", list(BODY))
def test_a_missing_field_is_named(service: PaymentProcess, field: str) -> None:
    body = {name: value for name, value in BODY.items() if name != field}
    status, answer = post(service, "missing", body)
    assert (status, bad_fields(answer)) == (400, [field])


def test_all_wrong_fields_are_named_at_once(service: PaymentProcess) -> None:
    status, answer = post(service, "all%", BODY | {"amount": 5, "kind": "x"})
    assert status == 400
    assert bad_fields(answer) == ["Idempotency-Key", "kind", "amount"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"[" * 10_000, b'{"order": "\\ud800"}'],
    ids=repr,
)
def test_a_body_that_is_no_object_is_400(service: PaymentProcess, body: bytes) -> None:
    status, answer = post(service, "body", body)
    assert (status, answer["error"]["code"]) == (400, "invalid")


def test_a_body_above_the_limit_is_413(service: PaymentProcess) -> None:
    status, answer = post(service, "large", BODY | {"order": "x" * MAX_BODY_BYTES})
    assert (status, bad_fields(answer)) == (413, ["body"])


def test_a_body_must_be_json_by_its_type(service: PaymentProcess) -> None:
    status, answer = post(service, "type", BODY, **{"content-type": "text/plain"})
    assert (status, bad_fields(answer)) == (400, ["content-type"])


@pytest.mark.parametrize("key", [None, "", "%", "%zz", "%FF", "%00", "k" * 201, "..", "."])
def test_a_wrong_key_is_named(service: PaymentProcess, key: str | None) -> None:
    status, answer = post(service, key, BODY)
    assert (status, bad_fields(answer)) == (400, ["Idempotency-Key"])


def test_a_key_must_not_be_given_twice(service: PaymentProcess) -> None:
    headers = [("content-type", "application/json"), *[("idempotency-key", "twice")] * 2]
    answer = httpx.post(f"{service.url}/v1/payments", json=BODY, headers=headers, timeout=SECONDS)
    assert answer.status_code == 400
    assert bad_fields(answer.json()) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    "key",
    [
        "a/b",
        "/",
        "a/",
        "//",
        "a b",
        "%2F",
        "a%2Fb",
        "a?b#c",
        "a+b&c=d",
        "...",
        "ключ",
        "订单-1",
        "é",
        "'; DROP TABLE payments; --",
        '"',
        "\\",
        "k" * 200,
        "钥" * 200,
    ],
)
def test_odd_keys_name_payments_of_their_own(payments: HttpPayments, key: str) -> None:
    assert payments.find(key) is None
    made = payments.submit(charge(key, "1.00", order="odd"))
    assert made.key == key
    assert payments.find(key) == made
    assert payments.submit(charge(key, "1.00", order="odd")) == made


@pytest.mark.parametrize("amount", ["0", "-1", "1.005", "1e20", "NaN", "Infinity"])
def test_the_port_rejects_an_amount_that_the_contract_lacks(
    payments: HttpPayments, amount: str
) -> None:
    request = charge("bad-amount", amount)
    with pytest.raises(PaymentRejectedError, match=r"payment 'bad-amount': amount: must be a dec"):
        payments.submit(request)
    assert payments.find("bad-amount") is None


@pytest.mark.parametrize("field", ["key", "order", "account"])
def test_the_port_rejects_a_text_that_the_contract_lacks(
    payments: HttpPayments, field: str
) -> None:
    values = {"key": "bad-text", "order": "SO-1", "account": "ann@example.com", field: "a\nb"}
    request = charge(values["key"], order=values["order"], account=values["account"])
    with pytest.raises(PaymentRejectedError, match=f"{field}: must be 1 to 200") as caught:
        payments.submit(request)
    assert "\n" not in str(caught.value)
    assert payments.find(values["key"]) is None


def test_the_port_rejects_a_key_that_was_used_for_another_payment(payments: HttpPayments) -> None:
    payments.submit(charge("port-reused", "1.00"))
    with pytest.raises(PaymentRejectedError, match="was used for another charge"):
        payments.submit(charge("port-reused", "2.00"))


def test_amounts_reach_the_service_to_the_cent(
    service: PaymentProcess, payments: HttpPayments
) -> None:
    payments.submit(charge("cents", "0.1", order="cents"))
    payments.submit(charge("more", "99.99", order="cents"))
    _, answer = get(service, "/v1/payments?order=cents")
    assert [each["amount"] for each in answer["payments"]] == ["0.10", "99.99"]
    assert charge("x", "0.1").amount == Decimal("0.10")


@pytest.mark.parametrize(
    "query, field",
    [
        ("", "order"),
        ("?orders=SO-1", "orders"),
        ("?order=", "order"),
        ("?order=a&order=b", "order"),
    ],
)
def test_a_wrong_query_is_named(service: PaymentProcess, query: str, field: str) -> None:
    status, answer = get(service, f"/v1/payments{query}")
    assert status == 400
    assert field in bad_fields(answer)


def test_what_the_routes_do_not_know_is_answered_as_an_error(service: PaymentProcess) -> None:
    status, answer = get(service, "/v2/payments")
    assert (status, answer["error"]["code"]) == (404, "unsupported")
    answered = httpx.delete(f"{service.url}/v1/payments", timeout=SECONDS)
    assert (answered.status_code, answered.json()["error"]["code"]) == (405, "unsupported")
    assert set(answered.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    status, answer = get(service, "/v1/payments/nobody")
    assert (status, answer["error"]["code"]) == (404, "unknown_payment")


def test_garbage_on_the_port_does_not_stop_the_service(service: PaymentProcess) -> None:
    _, port = service.url.removeprefix("http://").split(":")
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 10_000):
        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            connection.sendall(garbage)
    assert get(service, "/healthz") == (200, {"status": "ok"})
    assert "Traceback" not in service.log.read_text()


def test_the_log_has_a_line_a_payment_without_its_account(service: PaymentProcess) -> None:
    post(service, "logged", BODY | {"order": "logged", "account": "secret@example.com"})
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    [line] = [line for line in lines if line.get("key") == "logged"]
    assert (line["event"], line["amount"], line["outcome"]) == ("payment", "50.00", "paid")
    assert "secret" not in service.log.read_text()


def test_clients_need_a_token_if_the_service_has_a_file_of_them(tmp_path: Path) -> None:
    token, entry = make_token("shop", ValueError)
    old, old_entry = make_token("old", ValueError)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f"{entry}{old_entry}expires = 2020-01-01T00:00:00Z\n")
    with payment_service(tmp_path, "--tokens", str(tokens)) as service:
        for header in ({}, {"authorization": f"Bearer {old}"}, {"authorization": f"Basic {token}"}):
            assert post(service, "k", BODY, **header)[0] == 401
            assert get(service, "/v1/payments/k", **header)[0] == 401
            assert get(service, "/v1/payments?order=SO-1", **header)[0] == 401
        assert get(service, "/healthz")[0] == 200
        without, given = HttpPayments(service.url), HttpPayments(service.url, token)
        # The payment may be made with the right token, so it is not rejected for good.
        with pytest.raises(PaymentUnknownError, match="answered 401: a valid bearer token"):
            without.submit(charge("k"))
        with pytest.raises(PaymentUnknownError, match="answered 401"):
            without.find("k")
        assert given.find("k") is None
        assert given.submit(charge("k")).outcome is PaymentOutcome.PAID
        for port in (without, given):
            port.close()


def test_sigterm_lets_an_answer_in_progress_out_and_exits_with_0(tmp_path: Path) -> None:
    with (
        payment_service(tmp_path, "--delay", "1") as service,
        ThreadPoolExecutor(1) as threads,
    ):
        submitted = threads.submit(post, service, "k", BODY)
        eventually(lambda: get(service, "/v1/payments/k")[0] == 200)
        assert service.stop() == 0
        status, answer = submitted.result()
        assert (status, answer["outcome"]) == (201, "paid")
    assert json.loads(service.log.read_text().splitlines()[-1])["event"] == "stopped"
