"""Registration and login with verification codes."""

import pytest
from tests.support.shop import Shop

from gpt2flow.agent.operations import new_code
from gpt2flow.agent.shop import Customer, OutboxMessage, Verification

CODE = "123456"


def test_registration_makes_a_customer_only_after_the_code(shop: Shop) -> None:
    step = shop.act("s", "register", name="Ann", contact="ann@example.com")
    assert step.report.outcome == "code_sent"
    assert shop.facts("s") == {"verifying"}
    assert shop.rows(Customer) == []
    step = shop.act("s", "verify", code=CODE)
    assert step.report.messages[0].text == "Thank you, Ann, you are logged in."
    assert shop.facts("s") == {"member"}
    (customer,) = shop.rows(Customer)
    assert (customer.name, customer.contact) == ("Ann", "ann@example.com")
    assert shop.rows(Verification) == []


def test_code_goes_to_the_contact_and_is_stored_as_a_hash(shop: Shop) -> None:
    step = shop.act("s", "register", name="Ann", contact="ann@example.com")
    (sent,) = step.report.messages
    assert sent.to == "ann@example.com"
    assert CODE in sent.text
    (verification,) = shop.rows(Verification)
    stored = [str(value) for value in vars(verification).values()]
    assert not any(CODE in value for value in stored)
    assert not any(CODE in str(change.values) for change in step.report.changes)


def test_registered_contact_logs_in_instead_of_registering_twice(shop: Shop) -> None:
    shop.log_in("s")
    shop.act("s", "log_out")
    step = shop.act("s", "register", name="Mallory", contact="ann@example.com")
    assert step.report.outcome == "already_registered"
    shop.act("s", "verify", code=CODE)
    assert [customer.name for customer in shop.rows(Customer)] == ["Ann"]


def test_login_needs_an_account(shop: Shop) -> None:
    step = shop.act("s", "log_in", contact="nobody@example.com")
    assert (step.result, step.report.outcome) == ("refused", "unknown_contact")
    assert shop.facts("s") == {"guest"}


def test_code_expires(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    shop.clock.forward(minutes=15)
    assert shop.act("s", "verify", code=CODE).report.outcome == "expired"
    assert shop.facts("s") == {"verifying"}
    shop.act("s", "resend_code")
    assert shop.act("s", "verify", code=CODE).report.outcome == "verified"


def test_attempts_are_bounded(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    for _ in range(5):
        assert shop.act("s", "verify", code="000000").report.outcome == "wrong_code"
    assert shop.act("s", "verify", code=CODE).report.outcome == "expired"
    assert shop.rows(Customer) == []


@pytest.mark.parametrize("sessions", [["s"] * 6, [f"s{i}" for i in range(6)]])
def test_codes_to_one_contact_are_bounded_over_all_sessions(
    shop: Shop, sessions: list[str]
) -> None:
    shop.log_in("owner")
    shop.clock.forward(hours=2)
    outcomes = [shop.act(s, "log_in", contact="ann@example.com").report.outcome for s in sessions]
    assert outcomes == ["code_sent"] * 5 + ["too_many_codes"]
    shop.clock.forward(minutes=61)
    step = shop.act(sessions[0], "log_in", contact="ann@example.com")
    assert step.report.outcome == "code_sent"


def test_new_code_voids_the_previous_one(shop: Shop) -> None:
    codes = iter(["111111", "222222"])
    shop.executor._new_code = lambda: next(codes)
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    shop.act("s", "resend_code")
    assert shop.act("s", "verify", code="111111").report.outcome == "wrong_code"
    assert shop.act("s", "verify", code="222222").report.outcome == "verified"


def test_a_session_cannot_use_the_code_of_another(shop: Shop) -> None:
    codes = iter(["111111", "222222"])
    shop.executor._new_code = lambda: next(codes)
    shop.act("ann", "register", name="Ann", contact="ann@example.com")
    shop.act("bob", "register", name="Bob", contact="bob@example.com")
    assert shop.act("bob", "verify", code="111111").report.outcome == "wrong_code"


def test_corrected_contact_keeps_the_name_and_voids_the_code(shop: Shop) -> None:
    codes = iter(["111111", "222222"])
    shop.executor._new_code = lambda: next(codes)
    shop.act("s", "register", name="Ann", contact="an@example.com")
    step = shop.act("s", "correct_contact", contact="ann@example.com")
    (sent,) = step.report.messages
    assert sent.to == "ann@example.com"
    assert "222222" in sent.text
    assert shop.facts("s") == {"verifying"}
    assert shop.act("s", "verify", code="111111").report.outcome == "wrong_code"
    shop.act("s", "verify", code="222222")
    (customer,) = shop.rows(Customer)
    assert (customer.name, customer.contact) == ("Ann", "ann@example.com")


def test_corrected_contact_of_a_login_needs_an_account(shop: Shop) -> None:
    shop.log_in("other")
    shop.log_in("bob", "bob@example.com", "Bob")
    shop.act("s", "log_in", contact="bob@example.com")
    step = shop.act("s", "correct_contact", contact="nobody@example.com")
    assert (step.result, step.report.outcome) == ("refused", "unknown_contact")
    assert [v.contact for v in shop.rows(Verification)] == ["bob@example.com"]
    assert shop.act("s", "correct_contact", contact="ann@example.com").result == "ok"
    step = shop.act("s", "verify", code=CODE)
    assert step.report.messages[0].text == "Thank you, Ann, you are logged in."
    assert len(shop.rows(Customer)) == 2


def test_contact_that_a_guest_corrects_is_used_for_the_login(shop: Shop) -> None:
    shop.log_in("other")
    step = shop.act("s", "correct_contact", contact="ann@example.com")
    assert (step.report.action, step.report.outcome) == ("log_in", "code_sent")


def test_name_is_corrected_before_and_after_the_code(shop: Shop) -> None:
    shop.act("s", "register", name="An", contact="ann@example.com")
    step = shop.act("s", "correct_name", name="Ann")
    assert step.report.messages[0].text == "Thank you, I have corrected your name to Ann."
    assert shop.facts("s") == {"verifying"}
    step = shop.act("s", "verify", code=CODE)
    assert step.report.messages[0].text == "Thank you, Ann, you are logged in."
    shop.act("s", "correct_name", name="Anne")
    assert [customer.name for customer in shop.rows(Customer)] == ["Anne"]


def test_name_that_a_guest_corrects_starts_a_registration(shop: Shop) -> None:
    step = shop.act("s", "correct_name", name="Ann")
    assert (step.report.action, step.report.asked) == ("register", "contact")
    assert step.report.used == {"name": "Ann"}


def test_log_out_keeps_only_the_cart(shop: Shop) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    assert shop.facts("s") == {"member", "cart", "confirming"}
    shop.act("s", "log_out")
    assert shop.facts("s") == {"guest", "cart"}


def test_missing_slots_are_asked_for_one_by_one_and_kept(shop: Shop) -> None:
    step = shop.act("s", "register")
    assert (step.result, step.report.asked) == ("asked", "name")
    step = shop.act("s", "register", name="Ann")
    assert (step.result, step.report.asked) == ("asked", "contact")
    step = shop.act("s", "register", contact="ann@example.com")
    assert step.report.used == {"name": "Ann", "contact": "ann@example.com"}
    assert step.report.outcome == "code_sent"


def test_codes_are_six_digits_and_vary() -> None:
    codes = {new_code() for _ in range(200)}
    assert all(len(code) == 6 and code.isdecimal() for code in codes)
    assert len(codes) > 190


def test_every_message_is_in_the_outbox_once(shop: Shop) -> None:
    shop.log_in("s")
    assert len({message.key for message in shop.rows(OutboxMessage)}) == 2
