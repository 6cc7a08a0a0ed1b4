"""Who a customer is: only a code that reached the contact proves it."""

from typing import TYPE_CHECKING

import pytest

from gpt2flow.agent.operations import new_code
from gpt2flow.agent.shop import Customer, OutboxMessage, Verification

if TYPE_CHECKING:
    from tests.agent.conftest import Desk

CODE = "123456"


def test_registration_makes_a_customer_only_after_the_code(desk: "Desk") -> None:
    step = desk.act("s", "register", name="Ann", contact="ann@example.com")
    assert step.report.outcome == "code_sent"
    assert desk.facts("s") == {"verifying"}
    assert desk.rows(Customer) == []
    step = desk.act("s", "verify", code=CODE)
    assert step.report.messages[0].text == "Thank you, Ann, you are logged in."
    assert desk.facts("s") == {"member"}
    (customer,) = desk.rows(Customer)
    assert (customer.name, customer.contact) == ("Ann", "ann@example.com")
    assert desk.rows(Verification) == []


def test_code_goes_to_the_contact_and_is_stored_as_a_hash(desk: "Desk") -> None:
    step = desk.act("s", "register", name="Ann", contact="ann@example.com")
    (sent,) = step.report.messages
    assert sent.to == "ann@example.com"
    assert CODE in sent.text
    (verification,) = desk.rows(Verification)
    stored = [str(value) for value in vars(verification).values()]
    assert not any(CODE in value for value in stored)
    assert not any(CODE in str(change.values) for change in step.report.changes)


def test_known_contact_logs_in_instead_of_registering_twice(desk: "Desk") -> None:
    desk.log_in("s")
    desk.act("s", "log_out")
    step = desk.act("s", "register", name="Mallory", contact="ann@example.com")
    assert step.report.outcome == "already_registered"
    desk.act("s", "verify", code=CODE)
    assert [customer.name for customer in desk.rows(Customer)] == ["Ann"]


def test_login_needs_an_account(desk: "Desk") -> None:
    step = desk.act("s", "log_in", contact="nobody@example.com")
    assert (step.result, step.report.outcome) == ("refused", "unknown_contact")
    assert desk.facts("s") == {"guest"}


def test_code_expires(desk: "Desk") -> None:
    desk.act("s", "register", name="Ann", contact="ann@example.com")
    desk.clock.forward(minutes=15)
    assert desk.act("s", "verify", code=CODE).report.outcome == "expired"
    assert desk.facts("s") == {"verifying"}
    desk.act("s", "resend_code")
    assert desk.act("s", "verify", code=CODE).report.outcome == "verified"


def test_attempts_are_bounded(desk: "Desk") -> None:
    desk.act("s", "register", name="Ann", contact="ann@example.com")
    for _ in range(5):
        assert desk.act("s", "verify", code="000000").report.outcome == "wrong_code"
    assert desk.act("s", "verify", code=CODE).report.outcome == "expired"
    assert desk.rows(Customer) == []


@pytest.mark.parametrize("sessions", [["s"] * 6, [f"s{i}" for i in range(6)]])
def test_codes_to_one_contact_are_bounded_over_all_sessions(
    desk: "Desk", sessions: list[str]
) -> None:
    desk.log_in("owner")
    desk.clock.forward(hours=2)
    outcomes = [desk.act(s, "log_in", contact="ann@example.com").report.outcome for s in sessions]
    assert outcomes == ["code_sent"] * 5 + ["too_many_codes"]
    desk.clock.forward(minutes=61)
    step = desk.act(sessions[0], "log_in", contact="ann@example.com")
    assert step.report.outcome == "code_sent"


def test_new_code_voids_the_one_before(desk: "Desk") -> None:
    codes = iter(["111111", "222222"])
    desk.executor._new_code = lambda: next(codes)
    desk.act("s", "register", name="Ann", contact="ann@example.com")
    desk.act("s", "resend_code")
    assert desk.act("s", "verify", code="111111").report.outcome == "wrong_code"
    assert desk.act("s", "verify", code="222222").report.outcome == "verified"


def test_a_session_cannot_use_the_code_of_another(desk: "Desk") -> None:
    codes = iter(["111111", "222222"])
    desk.executor._new_code = lambda: next(codes)
    desk.act("ann", "register", name="Ann", contact="ann@example.com")
    desk.act("bob", "register", name="Bob", contact="bob@example.com")
    assert desk.act("bob", "verify", code="111111").report.outcome == "wrong_code"


def test_log_out_keeps_the_cart_and_forgets_the_rest(desk: "Desk") -> None:
    desk.log_in("s")
    desk.check_out("s", "kettle")
    assert desk.facts("s") == {"member", "cart", "confirming"}
    desk.act("s", "log_out")
    assert desk.facts("s") == {"guest", "cart"}


def test_missing_slots_are_asked_for_one_by_one_and_kept(desk: "Desk") -> None:
    step = desk.act("s", "register")
    assert (step.result, step.report.asked) == ("asked", "name")
    step = desk.act("s", "register", name="Ann")
    assert (step.result, step.report.asked) == ("asked", "contact")
    step = desk.act("s", "register", contact="ann@example.com")
    assert step.report.used == {"name": "Ann", "contact": "ann@example.com"}
    assert step.report.outcome == "code_sent"


def test_codes_are_six_digits_and_vary() -> None:
    codes = {new_code() for _ in range(200)}
    assert all(len(code) == 6 and code.isdecimal() for code in codes)
    assert len(codes) > 190


def test_every_message_is_in_the_outbox_once(desk: "Desk") -> None:
    desk.log_in("s")
    assert len({message.key for message in desk.rows(OutboxMessage)}) == 2
