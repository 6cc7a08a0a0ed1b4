"""Ledger of the payment service."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.payments import ledger as ledger_module
from gpt2flow.agent.payments.contract import PaymentBody
from gpt2flow.agent.payments.ledger import (
    KeyReusedError,
    LedgerError,
    PaymentLedger,
    PaymentRules,
)
from gpt2flow.agent.payments.port import PaymentOutcome


def body(kind: str = "charge", amount: str = "50.00", **fields: str) -> PaymentBody:
    values = {"kind": kind, "order": "SO-1", "account": "ann@example.com", "amount": amount}
    return PaymentBody.model_validate(values | fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[PaymentLedger]:
    rules = PaymentRules(frozenset({"bob@example.com"}), Decimal("100.00"))
    with closing(PaymentLedger(path, rules)) as opened:
        yield opened


def outcome(ledger: PaymentLedger, key: str, request: PaymentBody) -> PaymentOutcome:
    return ledger.submit(key, request)[0].outcome


def test_a_key_is_decided_once(ledger: PaymentLedger) -> None:
    first, is_new = ledger.submit("k", body())
    assert is_new
    assert (first.outcome, first.reason) == (PaymentOutcome.PAID, None)
    assert first.reference
    assert ledger.submit("k", body()) == (first, False)
    assert ledger.find("k") == first
    assert ledger.of_order("SO-1") == [first]


def test_amounts_are_the_same_however_they_are_written(ledger: PaymentLedger) -> None:
    ledger.submit("k", body(amount="50"))
    assert ledger.submit("k", body(amount="50.00"))[1] is False


@pytest.mark.parametrize(
    "other",
    [
        body("refund"),
        body(amount="50.01"),
        body(order="SO-2"),
        body(account="eve@example.com"),
    ],
    ids=["kind", "amount", "order", "account"],
)
def test_a_key_cannot_be_used_for_another_payment(
    ledger: PaymentLedger, other: PaymentBody
) -> None:
    first, _ = ledger.submit("k", body())
    with pytest.raises(KeyReusedError, match="key 'k' was used for another charge"):
        ledger.submit("k", other)
    assert ledger.of_order("SO-1") == [first]


def test_refunds_are_bounded_by_what_was_charged_for_the_order(ledger: PaymentLedger) -> None:
    ledger.submit("c-1", body(amount="50.00"))
    ledger.submit("c-2", body(amount="30.00"))
    ledger.submit("other", body(amount="100.00", order="SO-2"))
    assert outcome(ledger, "r-1", body("refund", "60.00")) is PaymentOutcome.PAID
    beyond, _ = ledger.submit("r-2", body("refund", "20.01"))
    assert beyond.outcome is PaymentOutcome.REFUSED
    assert beyond.reason == "refund of 20.01 is above the 20.00 left of order SO-1"
    assert beyond.reference is None
    # The refusal has not used up anything.
    assert outcome(ledger, "r-3", body("refund", "20.00")) is PaymentOutcome.PAID
    assert outcome(ledger, "r-4", body("refund", "0.01")) is PaymentOutcome.REFUSED


def test_a_refused_charge_cannot_be_refunded(ledger: PaymentLedger) -> None:
    refused, _ = ledger.submit("c", body(amount="100.01"))
    assert refused.reason == "charge of 100.01 is above the limit of 100.00"
    assert outcome(ledger, "r", body("refund", "1.00")) is PaymentOutcome.REFUSED


def test_payments_of_a_refused_account_are_refused(ledger: PaymentLedger) -> None:
    refused, _ = ledger.submit("c", body(amount="1.00", account="bob@example.com"))
    assert refused.outcome is PaymentOutcome.REFUSED
    assert refused.reason == "account bob@example.com is refused"


def test_a_refusal_is_kept_after_the_rules_have_changed(path: Path) -> None:
    with closing(PaymentLedger(path, PaymentRules(charge_limit=Decimal("1.00")))) as strict:
        refused, _ = strict.submit("k", body())
    with closing(PaymentLedger(path, PaymentRules())) as lax:
        assert lax.submit("k", body()) == (refused, False)
        assert outcome(lax, "k-2", body()) is PaymentOutcome.PAID


def test_payments_are_on_the_disk_when_they_are_answered(ledger: PaymentLedger) -> None:
    full = 2
    assert ledger._writer.execute("PRAGMA synchronous").fetchone() == (full,)
    assert ledger._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_two_processes_do_not_refund_the_same_money(path: Path) -> None:
    with (
        closing(PaymentLedger(path, PaymentRules())) as one,
        closing(PaymentLedger(path, PaymentRules())) as other,
        ThreadPoolExecutor(2) as threads,
    ):
        one.submit("c", body(amount="50.00"))

        def refund_all(ledger: PaymentLedger, name: str) -> list[PaymentOutcome]:
            request = body("refund", "1.00")
            return [outcome(ledger, f"{name}-{number}", request) for number in range(40)]

        outcomes = [*threads.map(refund_all, (one, other), ("a", "b"))]
    assert sum(each.count(PaymentOutcome.PAID) for each in outcomes) == 50


def test_reading_does_not_wait_for_a_writer(ledger: PaymentLedger, path: Path) -> None:
    ledger.submit("k", body())
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert ledger.find("k") is not None
        assert ledger.find("k-2") is None


def test_a_locked_file_leaves_the_payment_unmade(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_BUSY_SECONDS", 0.05)
    with closing(PaymentLedger(path, PaymentRules())) as ledger:
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match=r"payments\.sqlite: database is locked"):
                ledger.submit("k", body())
            with pytest.raises(LedgerError, match="locked"):
                PaymentLedger(path, PaymentRules())
        assert ledger.find("k") is None
        assert ledger.submit("k", body())[1]


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
    content = path.read_bytes()
    with pytest.raises(InputError, match="no file of this version of the payment service"):
        PaymentLedger(path, PaymentRules())
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_a_ledger_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database" * 100)
    for path in (text, tmp_path, tmp_path / "missing" / "payments.sqlite"):
        with pytest.raises(InputError, match=str(path)) as caught:
            PaymentLedger(path, PaymentRules())
        assert "\n" not in str(caught.value)


def test_no_name_of_a_file_means_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(PaymentLedger(Path(":memory:"), PaymentRules())) as ledger:
        ledger.submit("k", body())
    with closing(PaymentLedger(Path(":memory:"), PaymentRules())) as ledger:
        assert ledger.find("k") is not None
