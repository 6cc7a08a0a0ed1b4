"""Decisions of people about cases, each in one transaction."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from sqlalchemy.orm import Session

from gpt2flow.agent.cases.corrections import check_correction, export_corrections
from gpt2flow.agent.cases.inbox import (
    SHOWN,
    CaseView,
    InboxLine,
    list_cases,
    parse_case_number,
    view_case,
)
from gpt2flow.agent.cases.life import AGENT, leave_inbox, lock_case, record, release_session
from gpt2flow.agent.cases.messages import tell_customer
from gpt2flow.agent.cases.people import NotAllowedError, Person
from gpt2flow.agent.cases.pictures import read_pictures
from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.case_rules import CaseMessage
from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.shop import (
    CLAIMS,
    INBOX,
    Case,
    CaseKind,
    CaseStatus,
    CustomerSession,
    Database,
    Order,
)
from gpt2flow.agent.shop.tables.payments import request_payment
from gpt2flow.agent.wording import format_money

_MAX_TEXT = 2000
_MAX_NAME = 64
# Unicode categories that a text must not have, beside line breaks: control and surrogate.
_REFUSED_CATEGORIES = ("Cc", "Cs")
# Cases that need no decision any more, or none of this kind.
_CLOSABLE = (CaseStatus.OPEN, CaseStatus.DUE, CaseStatus.SCHEDULED, CaseStatus.APPROVED)


class DecisionError(InputError):
    """Decision that the case does not allow now; nothing was changed."""


class CaseChangedError(DecisionError):
    """Decision on a case that changed since it was shown."""


class Desk:
    """Desk at which people handle cases.

    Args:
        book: Loaded flows.
        database: Shop database.
        clock: Source of the current time.
    """

    def __init__(self, book: FlowBook, database: Database, clock: Clock) -> None:
        self._book = book
        self._rules = book.cases
        self._database = database
        self._clock = clock

    def inbox(
        self, *, all_statuses: bool = False, assignee: str | None = None, limit: int | None = None
    ) -> list[InboxLine]:
        """Return the cases that wait for a person, most urgent first.

        Args:
            all_statuses: Return the other cases too.
            assignee: Only the cases of this person.
            limit: Largest number of cases; None is all.
        """
        statuses = tuple(CaseStatus) if all_statuses else INBOX
        with self._transaction() as db:
            return list_cases(db, statuses=statuses, assignee=assignee, limit=limit)

    def show(self, number: str, last: int | None = SHOWN) -> CaseView:
        """Return all that a person has to see of a case.

        Args:
            number: Number of the case.
            last: Number of the latest messages, and of the latest changes; None is all.

        Raises:
            InputError: There is no such case.
        """
        with self._transaction() as db:
            return view_case(db, _find(db, number, is_locked=False), self._book, last)

    def pictures(self, number: str) -> list[bytes]:
        """Return the pictures of a case as PNG, oldest first.

        Raises:
            InputError: There is no such case.
        """
        with self._transaction() as db:
            return read_pictures(db, _find(db, number, is_locked=False))

    def assign(self, person: Person, number: str, to: str | None = None) -> CaseView:
        """Assign a case to a person, or a conversation to the agent.

        A customer who was handed over is told who is there now, and the agent stays silent.

        Args:
            person: Person who decides.
            number: Number of the case.
            to: Name of the person who takes it, or `agent`. None is the one who decides.

        Raises:
            DecisionError: The case is not in the inbox, or the agent cannot take it.
            InputError: The name is invalid.
        """
        name = (to if to is not None else person.name).strip()
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise InputError(
                f"assignee is {name!r:.80}, must be 1 to {_MAX_NAME} printable characters"
            )
        with self._transaction() as db:
            case = _find(db, number)
            if case.status not in INBOX:
                raise DecisionError(f"case {case.number} is {case.status}, so nobody can take it")
            if name == AGENT:
                self._give_back(db, case, person)
            elif name != case.assignee:
                self._assign_to(db, case, person, name)
            return view_case(db, case, self._book)

    def approve(
        self, person: Person, number: str, *, seen: str, amount: Decimal | None = None
    ) -> CaseView:
        """Approve a claim, and tell the customer.

        Args:
            person: Person who decides.
            number: Number of the case.
            seen: Digest of the case as it was shown to the person.
            amount: Amount to approve instead of the one that was claimed.

        Raises:
            NotAllowedError: The person may not approve this amount.
            DecisionError: The case does not await approval.
            CaseChangedError: The case changed since it was shown.
            InputError: The amount is not between 0.01 and the order's total.
        """
        with self._transaction() as db:
            case = self._decidable(db, person, number)
            claimed = case.amount
            decided = claimed if amount is None else amount
            self._check_amount(db, case, decided)
            person.check_approval(decided)
            self._check_seen(db, case, seen)
            case.amount, case.assignee = decided, person.name
            leave_inbox(case, CaseStatus.APPROVED)
            details = {"seen": seen, "claimed": _money(claimed), "amount": _money(decided)}
            record(db, case, person.name, "approved", self._clock(), details=details)
            is_refund = case.kind is CaseKind.REFUND
            if is_refund:
                self._pay_back(db, case)
            self._tell(
                db,
                case,
                "approved_amount" if is_refund else "approved",
                amount=_money(decided) or "",
            )
            return view_case(db, case, self._book)

    def reject(self, person: Person, number: str, text: str, *, seen: str) -> CaseView:
        """Reject a claim with a sentence, and tell the customer.

        Args:
            person: Person who decides.
            number: Number of the case.
            text: Reason, which the customer reads.
            seen: Digest of the case as it was shown to the person.

        Raises:
            NotAllowedError: The person may not decide claims.
            DecisionError: The case does not await approval.
            CaseChangedError: The case changed since it was shown.
            InputError: The text is empty, is too long, or has control characters.
        """
        text = _check_text("text", text)
        with self._transaction() as db:
            case = self._decidable(db, person, number)
            person.check_approval(None)
            self._check_seen(db, case, seen)
            case.assignee = person.name
            leave_inbox(case, CaseStatus.REJECTED)
            details = {"seen": seen}
            record(db, case, person.name, "rejected", self._clock(), text=text, details=details)
            self._tell(db, case, "rejected", text=text)
            return view_case(db, case, self._book)

    def reply(self, person: Person, number: str, text: str) -> CaseView:
        """Write to the customer, and take the case if nobody has.

        Raises:
            DecisionError: The case is closed.
            NotAllowedError: The case is another person's.
            InputError: The text is empty, is too long, or has control characters.
        """
        text = _check_text("text", text)
        with self._transaction() as db:
            case = _find(db, number)
            if case.status is CaseStatus.CLOSED:
                raise DecisionError(f"case {case.number} is closed")
            _check_assignee(case, person)
            if case.status in INBOX and case.assignee is None:
                self._assign_to(db, case, person, person.name, is_silent=True)
            record(db, case, person.name, "replied", self._clock(), text=text)
            self._tell(db, case, "replied", text=text)
            return view_case(db, case, self._book)

    def close(
        self,
        person: Person,
        number: str,
        note: str | None = None,
        *,
        correct: str | None = None,
    ) -> CaseView:
        """Close a case; the agent answers its customer again.

        Args:
            person: Person who decides.
            number: Number of the case.
            note: What was done, for the history.
            correct: Action that the model should have chosen for the message that opened the case,
                as it writes one. It can be exported to train on.

        Raises:
            DecisionError: The case is closed, or needs a decision.
            NotAllowedError: The case is another person's.
            InputError: The note is empty, is too long, or has control characters; or the action is
                none that the message can mean.
        """
        note = None if note is None else _check_text("note", note)
        with self._transaction() as db:
            case = _find(db, number)
            details = None if correct is None else check_correction(self._book, case, correct)
            if case.status is CaseStatus.AWAITING_APPROVAL:
                raise DecisionError(f"case {case.number} needs a decision: approve or reject it")
            if case.status not in _CLOSABLE:
                raise DecisionError(f"case {case.number} is {case.status} already")
            _check_assignee(case, person)
            case.assignee = person.name
            leave_inbox(case, CaseStatus.CLOSED)
            record(db, case, person.name, "closed", self._clock(), text=note, details=details)
            release_session(db, case)
            return view_case(db, case, self._book)

    def corrections(self) -> list[str]:
        """Return the turns that people corrected, as training documents."""
        with self._transaction() as db:
            return list(export_corrections(db))

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._database.translate_errors(), self._database.transaction() as db:
            yield db

    def _decidable(self, db: Session, person: Person, number: str) -> Case:
        """Return a claim that awaits a decision.

        Raises:
            DecisionError: The case is none.
            NotAllowedError: The case is another person's.
        """
        case = _find(db, number)
        if case.kind not in CLAIMS or case.status is not CaseStatus.AWAITING_APPROVAL:
            by = f" by {case.assignee}" if case.assignee else ""
            raise DecisionError(
                f"case {case.number} ({case.kind}) is {case.status}{by};"
                " only a claim that is awaiting_approval can be decided"
            )
        _check_assignee(case, person)
        return case

    def _check_amount(self, db: Session, case: Case, amount: Decimal | None) -> None:
        order = db.get_one(Order, case.order_id)
        if amount is None or not amount.is_finite():
            raise InputError(f"amount is {amount}, must be a number with two decimals")
        # Before it is rounded, which huge numbers cannot be.
        if not 0 < amount <= order.total:
            raise InputError(
                f"amount is {amount}, must be above 0 and at most {format_money(order.total)},"
                f" the total of order {order.number}"
            )
        if amount != round(amount, 2):
            raise InputError(f"amount is {amount}, must be a number with two decimals")

    def _check_seen(self, db: Session, case: Case, seen: str) -> None:
        digest = view_case(db, case, self._book).digest
        if seen.strip().lower() != digest:
            raise CaseChangedError(
                f"case {case.number} is not as it was shown with digest {seen!r:.40}:"
                " look at it again, and decide on the new digest"
            )

    def _pay_back(self, db: Session, case: Case) -> None:
        """Request the refund of a claim, which an agent makes at once."""
        order = db.get_one(Order, case.order_id)
        assert case.amount is not None
        kind, now = PaymentKind.REFUND, self._clock()
        request_payment(db, kind, order, case.amount, now, case_id=case.id)

    def _give_back(self, db: Session, case: Case, person: Person) -> None:
        """Close a conversation, which the agent then goes on with."""
        if case.kind is not CaseKind.HAND_OVER:
            raise DecisionError(
                f"case {case.number} is a {case.kind}; only a hand_over goes back to the agent"
            )
        case.assignee = None
        leave_inbox(case, CaseStatus.CLOSED)
        record(db, case, person.name, "returned", self._clock())
        release_session(db, case)

    def _assign_to(
        self, db: Session, case: Case, person: Person, name: str, *, is_silent: bool = False
    ) -> None:
        """Assign a case to a person, and silence the agent there.

        Args:
            db: Session on the shop.
            case: Case to assign.
            person: Person who decides.
            name: Name of the person who takes it.
            is_silent: Whether the customer is not informed of it.
        """
        case.assignee, case.attention_at = name, None
        record(db, case, person.name, "assigned", self._clock(), details={"to": name})
        session = db.get(CustomerSession, case.session_id) if case.session_id else None
        if case.kind is not CaseKind.HAND_OVER or session is None:
            return
        session.attended_by = name
        if not is_silent:
            self._tell(db, case, "taken", name=name)

    def _tell(self, db: Session, case: Case, message: CaseMessage, **fields: str) -> None:
        tell_customer(db, case, self._rules, message, self._clock(), **fields)


def _find(db: Session, number: str, *, is_locked: bool = True) -> Case:
    """Return a case, locked for the decision if there is one.

    Raises:
        InputError: There is no such case.
    """
    case_id = parse_case_number(number)
    case = lock_case(db, case_id) if is_locked else db.get(Case, case_id)
    if case is None:
        raise InputError(f"there is no case C-{case_id}")
    return case


def _check_assignee(case: Case, person: Person) -> None:
    if case.assignee is not None and case.assignee != person.name and case.status in INBOX:
        raise NotAllowedError(
            f"case {case.number} is with {case.assignee}; assign it to yourself first"
        )


def _check_text(field: str, text: str) -> str:
    """Return a text as it is sent, with plain line breaks."""
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise InputError(f"the {field} is empty")
    if len(text) > _MAX_TEXT:
        raise InputError(f"{field} too long: {len(text):,} characters, limit {_MAX_TEXT:,}")
    # A terminal would obey control characters, and a mail could get headers from them.
    refused = (c for c in text if c != "\n" and unicodedata.category(c) in _REFUSED_CATEGORIES)
    if (character := next(refused, None)) is not None:
        raise InputError(
            f"the {field} has the control character {character!a}; only line breaks are allowed"
        )
    return text


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else format_money(amount)
