"""Payments known and made after the payment service was killed."""

import random
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.support.payment_process import PaymentProcess, charge, payment_service
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.port import (
    PaymentOutcome,
    PaymentRequest,
    PaymentResult,
    PaymentUnknownError,
)

pytestmark = pytest.mark.process

_KILLS = 8


def status_of(service: PaymentProcess, key: str) -> int:
    return httpx.get(f"{service.url}/v1/payments/{key}", timeout=SECONDS).status_code


def submit_and_close(url: str, request: PaymentRequest) -> PaymentResult:
    with closing(HttpPayments(url, timeout=25.0)) as payments:
        return payments.submit(request)


def expect_unknown(submitted: "Future[PaymentResult]") -> None:
    with pytest.raises(PaymentUnknownError):
        submitted.result()


def paid_keys(folder: Path) -> list[str]:
    """Return the keys of the ledger's payments, one a movement."""
    with closing(sqlite3.connect(folder / "payments.sqlite")) as ledger:
        return [key for [key] in ledger.execute("SELECT key FROM payments WHERE outcome = 'paid'")]


def test_a_kill_before_the_commit_leaves_no_payment(tmp_path: Path) -> None:
    with (
        payment_service(tmp_path) as service,
        ThreadPoolExecutor(1) as threads,
        closing(sqlite3.connect(tmp_path / "payments.sqlite")) as lock,
        closing(HttpPayments(service.url)) as payments,
    ):
        lock.execute("BEGIN IMMEDIATE")
        submitted = threads.submit(submit_and_close, service.url, charge("k"))

        def is_in_progress() -> bool:
            try:
                assert payments.find("k") is None
            except PaymentUnknownError as error:
                return "answered 409: payment 'k' is in progress" in str(error)
            return False

        # The request has arrived, and waits for the lock.
        eventually(is_in_progress)
        service.kill()
        expect_unknown(submitted)
    with payment_service(tmp_path) as service, closing(HttpPayments(service.url)) as payments:
        assert payments.find("k") is None
        made = payments.submit(charge("k"))
        assert made.outcome is PaymentOutcome.PAID
        assert payments.find("k") == made
    assert paid_keys(tmp_path) == ["k"]


def test_a_kill_between_commit_and_answer_leaves_the_payment(tmp_path: Path) -> None:
    with (
        payment_service(tmp_path, "--delay", "1000") as service,
        ThreadPoolExecutor(1) as threads,
    ):
        submitted = threads.submit(submit_and_close, service.url, charge("k"))
        eventually(lambda: status_of(service, "k") == 200)
        service.kill()
        expect_unknown(submitted)
    with payment_service(tmp_path) as service, closing(HttpPayments(service.url)) as payments:
        found = payments.find("k")
        assert found is not None
        assert found.outcome is PaymentOutcome.PAID
        assert payments.submit(charge("k")) == found
    assert paid_keys(tmp_path) == ["k"]


def test_a_payment_that_outlasts_the_timeout_is_read_back(tmp_path: Path) -> None:
    with payment_service(tmp_path, "--delay", "1000") as service:
        with (
            closing(HttpPayments(service.url, timeout=0.5)) as payments,
            pytest.raises(PaymentUnknownError, match=r"no answer within 0\.5 s"),
        ):
            payments.submit(charge("k"))
        with closing(HttpPayments(service.url)) as payments:
            eventually(lambda: payments.find("k") is not None)
    assert paid_keys(tmp_path) == ["k"]


def test_a_service_that_is_gone_cannot_be_asked(tmp_path: Path) -> None:
    with payment_service(tmp_path) as service:
        service.kill()
        with closing(HttpPayments(service.url)) as payments:
            with pytest.raises(PaymentUnknownError, match=r"payments at 127\.0\.0\.1: Connect"):
                payments.submit(charge("k"))
            with pytest.raises(PaymentUnknownError, match="ConnectError"):
                payments.find("k")


def test_what_was_answered_is_still_there_after_kills_at_any_time(tmp_path: Path) -> None:
    """Clients submit fast, and read back or repeat unanswered payments."""
    random_seconds = random.Random(14)
    answered: dict[str, PaymentResult] = {}

    def submit(payments: HttpPayments, key: str) -> bool:
        try:
            answered[key] = payments.submit(charge(key, "1.00"))
        except PaymentUnknownError:
            return False
        return True

    def submit_many(payments: HttpPayments, client: int, kill: int) -> None:
        """Submit until the service is gone."""
        number = 0
        while submit(payments, f"{kill}/{client}/{number}"):
            number += 1
        unknown.append(f"{kill}/{client}/{number}")

    unknown: list[str] = []
    for kill in range(_KILLS):
        with (
            payment_service(tmp_path) as service,
            closing(HttpPayments(service.url)) as payments,
            ThreadPoolExecutor(4) as threads,
        ):
            # First what the last kill left open: read back, then tried again.
            for key in unknown:
                found = payments.find(key)
                if found is not None:
                    answered[key] = found
                assert submit(payments, key)
                assert found in {None, answered[key]}
            unknown.clear()
            before = len(answered)
            clients = [threads.submit(submit_many, payments, client, kill) for client in range(4)]
            goal = before + random_seconds.randrange(1, 40)
            eventually(lambda goal=goal: len(answered) >= goal)  # type: ignore[misc]
            service.kill()
            for client in clients:
                client.result()
    with payment_service(tmp_path) as service, closing(HttpPayments(service.url)) as payments:
        for key, result in answered.items():
            assert payments.find(key) == result
    keys = paid_keys(tmp_path)
    assert len(keys) == len(set(keys))
    assert set(answered) <= set(keys) <= {*answered, *unknown}
