"""Ledger of the payment service: an SQLite file that survives a kill."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from gpt2flow.agent.errors import AgentError, InputError
from gpt2flow.agent.payments.contract import PaymentAnswer, PaymentBody, format_amount
from gpt2flow.agent.payments.port import PaymentKind, PaymentOutcome

# Identify the file as a ledger, and the version of its table.
_APPLICATION_ID = 0x67326670
_VERSION = 1
# Longest wait for another process that writes to the file.
_BUSY_SECONDS = 5.0
_CENT = Decimal("0.01")
_SCHEMA = """
CREATE TABLE payments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    order_number TEXT NOT NULL,
    account TEXT NOT NULL,
    cents INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT
) STRICT
"""
_COLUMNS = "id, key, kind, order_number, account, cents, outcome, reason"
_Row = tuple[int, str, str, str, str, int, str, str | None]


class LedgerError(AgentError):
    """Ledger that cannot be read or written.

    An unfinished payment did not happen.
    """


class KeyReusedError(AgentError):
    """Key of a payment that was requested with another body."""


@dataclass(frozen=True)
class PaymentRules:
    """Payments that the service refuses.

    Attributes:
        refused_accounts: Accounts whose payments are refused.
        charge_limit: Largest amount of a charge; None is any.
    """

    refused_accounts: frozenset[str] = frozenset()
    charge_limit: Decimal | None = None


class PaymentLedger:
    """Payments that the service has decided, each once.

    One thread at a time may write, and one read; reading does not wait for writing.

    Args:
        path: SQLite file; it is created if there is none.
        rules: Payments to refuse.

    Raises:
        InputError: The file cannot be opened, or is no ledger.
        LedgerError: The file is locked.
    """

    def __init__(self, path: Path, rules: PaymentRules) -> None:
        self._path = path
        self._rules = rules
        try:
            self._writer, self._reader = _connect(path), _connect(path)
            self._prepare()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise LedgerError(f"{path}: {error}") from error
            raise InputError(f"{path}: {error}") from error
        except sqlite3.Error as error:
            raise InputError(f"{path}: {error}") from error

    def submit(self, key: str, body: PaymentBody) -> tuple[PaymentAnswer, bool]:
        """Decide a payment, or return the earlier decision about its key.

        Args:
            key: Idempotency key.
            body: Request.

        Returns:
            The payment, and whether it is new.

        Raises:
            KeyReusedError: The earlier request was another one.
            LedgerError: The file cannot be written; nothing was paid.
        """
        with self._translate_errors(), _transaction(self._writer):
            known = _find(self._writer, key)
            if known is not None:
                if not known.is_about(key, body):
                    raise KeyReusedError(f"key {key!r} was used for another {known.kind}")
                return known, False
            return self._decide(key, body), True

    def find(self, key: str) -> PaymentAnswer | None:
        """Return the payment with a key; None if there is none.

        Raises:
            LedgerError: The file cannot be read.
        """
        with self._translate_errors():
            return _find(self._reader, key)

    def of_order(self, order: str) -> list[PaymentAnswer]:
        """Return the payments of an order, the oldest first.

        Raises:
            LedgerError: The file cannot be read.
        """
        query = f"SELECT {_COLUMNS} FROM payments WHERE order_number = ? ORDER BY id"  # noqa: S608 - constant columns
        with self._translate_errors():
            return [_answer(row) for row in self._reader.execute(query, (order,))]

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()

    def _prepare(self) -> None:
        """Create the table in an empty file, or check its format.

        A file of another program is not changed.
        """
        with _transaction(self._writer):
            [[tables]] = self._writer.execute("SELECT count(*) FROM sqlite_master")
            if not tables:
                self._writer.execute(_SCHEMA)
                self._writer.execute("CREATE INDEX payments_order ON payments (order_number)")
                self._writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._writer.execute(f"PRAGMA user_version = {_VERSION}")
            [[application]] = self._writer.execute("PRAGMA application_id")
            [[version]] = self._writer.execute("PRAGMA user_version")
        if (application, version) != (_APPLICATION_ID, _VERSION):
            self.close()
            raise InputError(f"{self._path}: no file of this version of the payment service")
        # Readers then do not wait for a writer.
        self._writer.execute("PRAGMA journal_mode = WAL")

    def _decide(self, key: str, body: PaymentBody) -> PaymentAnswer:
        reason = self._find_refusal(body)
        outcome = PaymentOutcome.PAID if reason is None else PaymentOutcome.REFUSED
        cents = int(body.amount / _CENT)
        self._writer.execute(
            "INSERT INTO payments (key, kind, order_number, account, cents, outcome, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, body.kind.value, body.order, body.account, cents, outcome.value, reason),
        )
        decided = _find(self._writer, key)
        if decided is None:
            raise LedgerError(f"{self._path}: payment {key!r} is not there after it was written")
        return decided

    def _find_refusal(self, body: PaymentBody) -> str | None:
        """Return why a payment is refused; None if it is paid."""
        amount = format_amount(body.amount)
        if body.account in self._rules.refused_accounts:
            return f"account {body.account} is refused"
        if body.kind is PaymentKind.REFUND:
            left = self._left_to_refund(body.order)
            if body.amount > left:
                return f"refund of {amount} is above the {left:.2f} left of order {body.order}"
            return None
        limit = self._rules.charge_limit
        if limit is not None and body.amount > limit:
            return f"charge of {amount} is above the limit of {limit:.2f}"
        return None

    def _left_to_refund(self, order: str) -> Decimal:
        """Return what was charged for an order and not paid back."""
        query = (
            "SELECT coalesce(sum(CASE kind WHEN 'charge' THEN cents ELSE -cents END), 0)"
            " FROM payments WHERE order_number = ? AND outcome = 'paid'"
        )
        [[cents]] = self._writer.execute(query, (order,))
        return int(cents) * _CENT

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(f"{self._path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    # An absolute path, so that no name, as `:memory:`, has a meaning of its own.
    connection = sqlite3.connect(
        path.absolute(), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    # An answer must not be sent before the payment is on the disk.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock of the file until the block ends.

    So no decision is stale.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # After an error, of the commit too.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _find(connection: sqlite3.Connection, key: str) -> PaymentAnswer | None:
    query = f"SELECT {_COLUMNS} FROM payments WHERE key = ?"  # noqa: S608 - constant columns
    row = connection.execute(query, (key,)).fetchone()
    return None if row is None else _answer(row)


def _answer(row: _Row) -> PaymentAnswer:
    number, key, kind, order, account, cents, outcome, reason = row
    return PaymentAnswer.model_validate(
        {
            "key": key,
            "kind": kind,
            "order": order,
            "account": account,
            "amount": f"{cents * _CENT:.2f}",
            "outcome": outcome,
            "reference": f"P-{number}" if outcome == PaymentOutcome.PAID else None,
            "reason": reason,
        }
    )
