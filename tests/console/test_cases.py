"""Decisions that people make on the page of a case."""

import pytest
from tests.support.console import RunningConsole, Visitor, plain_text
from tests.support.desk import change, changes, hand_over, large_refund, texts
from tests.support.shop import CODE, Shop

from gpt2flow.agent.shop import Case, CaseEvent, CaseStatus, CustomerSession, ModelCall
from gpt2flow.agent.shop.tables.records import turn_prefix

pytestmark = pytest.mark.process


def latest(shop: Shop) -> Case:
    return shop.rows(Case)[-1]


def test_an_approval_is_the_desks(shop: Shop, ben: Visitor) -> None:
    number = large_refund(shop)
    response = ben.submit(f"/cases/{number}", "approve")
    assert response.headers["location"] == f"/cases/{number}?done=approve"
    assert latest(shop).status is CaseStatus.APPROVED
    assert changes(shop)[-1] == ("ben", "approved")
    assert "has been approved" in texts(shop)[-1]
    page = plain_text(ben.read(f"/cases/{number}?done=approve"))
    assert "Done." in page
    assert "approved · ben" in page


@pytest.mark.parametrize(
    "amount, approved", [("100", "100.00"), ("99.5", "99.50"), ("1,25", "1.25")]
)
def test_another_amount_can_be_approved(
    shop: Shop, ben: Visitor, amount: str, approved: str
) -> None:
    number = large_refund(shop)
    assert ben.submit(f"/cases/{number}", "approve", amount=amount).status_code == 303
    assert str(latest(shop).amount) == approved


@pytest.mark.parametrize("amount", ["0", "267.01", "-1", "1e2", "1.005", "abc", "１", "9" * 40])
def test_a_bad_amount_changes_nothing_and_stays_in_the_form(
    shop: Shop, ben: Visitor, amount: str
) -> None:
    number = large_refund(shop)
    response = ben.submit(f"/cases/{number}", "approve", amount=amount)
    assert response.status_code == 422
    assert latest(shop).status is CaseStatus.AWAITING_APPROVAL
    assert f'value="{amount}"' in response.text
    assert "Nothing was changed" in plain_text(response.text)


def test_a_rejection_tells_the_customer_why(shop: Shop, ben: Visitor) -> None:
    number = large_refund(shop)
    assert ben.submit(f"/cases/{number}", "reject", reason="The seal is broken.").status_code == 303
    assert latest(shop).status is CaseStatus.REJECTED
    assert texts(shop)[-1].endswith("The seal is broken.")


def test_a_decision_on_a_case_that_changed_is_refused_and_keeps_what_was_typed(
    shop: Shop, ben: Visitor
) -> None:
    number = large_refund(shop)
    form = ben.forms(f"/cases/{number}")[f"/cases/{number}/reject"]
    change(shop, number, reason="damaged")
    response = ben.submit(f"/cases/{number}", "reject", form, reason="Not <ours>.")
    assert response.status_code == 409
    assert "The case has changed since you saw it" in response.text
    assert "Not &lt;ours&gt;.</textarea>" in response.text
    assert latest(shop).status is CaseStatus.AWAITING_APPROVAL
    assert ben.submit(f"/cases/{number}", "reject", reason="Not ours.").status_code == 303


def test_of_two_who_decide_the_second_is_refused(shop: Shop, ben: Visitor, eva: Visitor) -> None:
    number = large_refund(shop)
    form = eva.forms(f"/cases/{number}")[f"/cases/{number}/reject"]
    assert ben.submit(f"/cases/{number}", "approve").status_code == 303
    response = eva.submit(f"/cases/{number}", "reject", form, reason="no")
    assert response.status_code == 409
    assert "approved by ben" in response.text
    assert [each for each in changes(shop) if each[1] in {"approved", "rejected"}] == [
        ("ben", "approved")
    ]


def test_a_form_that_is_sent_twice_acts_once(shop: Shop, ben: Visitor) -> None:
    number = hand_over(shop)
    form = ben.forms(f"/cases/{number}")[f"/cases/{number}/reply"]
    first = ben.submit(f"/cases/{number}", "reply", form, text="I am on it.")
    second = ben.submit(f"/cases/{number}", "reply", form, text="I am on it.")
    assert first.headers["location"].endswith("?done=reply")
    assert second.headers["location"].endswith("?done=already")
    assert texts(shop).count("I am on it.") == 1


def test_rights_are_those_of_the_file(shop: Shop, hal: Visitor, eva: Visitor) -> None:
    number = large_refund(shop)
    assert f"/cases/{number}/approve" not in hal.forms(f"/cases/{number}")
    form = hal.forms(f"/cases/{number}")[f"/cases/{number}/assign"]
    refused = hal.submit(f"/cases/{number}", "approve", form)
    assert refused.status_code == 403
    assert "hal may not decide claims" in refused.text
    beyond = eva.submit(f"/cases/{number}", "approve")
    assert beyond.status_code == 403
    assert "up to 100.00" in beyond.text
    assert latest(shop).status is CaseStatus.AWAITING_APPROVAL


def test_another_persons_case_is_not_decided(shop: Shop, ben: Visitor, eva: Visitor) -> None:
    number = large_refund(shop)
    form = eva.forms(f"/cases/{number}")[f"/cases/{number}/approve"]
    assert ben.submit(f"/cases/{number}", "assign").status_code == 303
    assert f"/cases/{number}/approve" not in eva.forms(f"/cases/{number}")
    refused = eva.submit(f"/cases/{number}", "approve", form, amount="10")
    assert refused.status_code == 403
    assert "is with ben" in refused.text


def test_a_case_goes_to_a_known_person_or_back_to_the_agent(shop: Shop, ben: Visitor) -> None:
    number = hand_over(shop)
    assert ben.submit(f"/cases/{number}", "assign", to="hal").status_code == 303
    assert latest(shop).assignee == "hal"
    unknown = ben.submit(f"/cases/{number}", "assign", to="nobody")
    assert unknown.status_code == 422
    assert "must be one of agent, ben, eva, hal" in unknown.text
    assert ben.submit(f"/cases/{number}", "assign", to="agent").status_code == 303
    assert latest(shop).status is CaseStatus.CLOSED
    assert shop.rows(CustomerSession)[-1].attended_by is None


def test_a_case_is_closed_with_a_note(shop: Shop, hal: Visitor) -> None:
    number = hand_over(shop)
    assert hal.submit(f"/cases/{number}", "close", note="called back").status_code == 303
    assert latest(shop).status is CaseStatus.CLOSED
    assert shop.rows(CaseEvent)[-1].text == "called back"
    assert "Nothing is left to decide here" in hal.read(f"/cases/{number}")


@pytest.mark.parametrize("number", ["C-99", "C-0", "99999999999", "x", "C-1%00", "-1"])
def test_an_unknown_case_is_a_page_that_says_so(ben: Visitor, number: str) -> None:
    for response in (
        ben.client.get(f"/cases/{number}"),
        ben.client.get(f"/cases/{number}/changed"),
    ):
        assert response.status_code == 404
        assert "There is no such page" in response.text


def test_an_unknown_decision_is_refused(shop: Shop, ben: Visitor) -> None:
    number = large_refund(shop)
    form = ben.forms(f"/cases/{number}")[f"/cases/{number}/approve"]
    assert ben.client.post(f"/cases/{number}/burn", data=form).status_code == 404


def test_an_open_page_learns_of_a_change(shop: Shop, ben: Visitor, eva: Visitor) -> None:
    number = large_refund(shop)
    page = eva.read(f"/cases/{number}")
    [poll] = [part for part in page.split('"') if part.startswith(f"/cases/{number}/changed?")]
    assert eva.client.get(poll).status_code == 204
    ben.submit(f"/cases/{number}", "approve")
    response = eva.client.get(poll)
    assert response.status_code == 200
    assert "approved · ben" in plain_text(response.text)


def test_an_open_page_stays_when_its_session_ends(
    shop: Shop, console: RunningConsole, ben: Visitor
) -> None:
    number = large_refund(shop)
    console.tokens.remove("ben")
    poll = ben.client.get(f"/cases/{number}/changed", headers={"HX-Request": "true"})
    assert poll.status_code == 200
    assert "You are signed out" in poll.text
    assert "267" not in poll.text


def test_what_customers_write_is_text(shop: Shop, ben: Visitor) -> None:
    number = hand_over(shop, '<script>alert(1)</script> "><img src=x onerror=alert(1)> {{ 7*7 }}')
    for path in (f"/cases/{number}", "/conversations", "/conversations/s"):
        page = ben.read(path)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "{{ 7*7 }}" in page


def test_codes_are_shown_to_nobody(shop: Shop, ben: Visitor) -> None:
    number = large_refund(shop)
    shop.act("s", "greet", message=f"hello, is {CODE} my code?")
    shop.act("other", "greet", message="hello")
    assert "hello, is [code] my code?" in ben.read("/conversations")
    for path in (f"/cases/{number}?all", "/conversations/s?all", "/conversations"):
        page = ben.read(path)
        assert "123456" not in page
    assert "[code]" in ben.read("/conversations/s")


def test_the_timeline_has_messages_and_actions_with_their_rows(shop: Shop, ben: Visitor) -> None:
    number = large_refund(shop)
    page = plain_text(ben.read(f"/cases/{number}"))
    assert "request_refund → needs_approval" in page
    assert "insert cases" in page
    assert "Shop · 4 Mar 2026 10:30 UTC" in page


def test_the_timeline_has_the_models_calls_with_their_confidence(shop: Shop, ben: Visitor) -> None:
    number = hand_over(shop)
    shop.log_in("s")
    prefix = turn_prefix("s")
    calls = {f"{prefix}m1/0": ("one", 0.875), f"{prefix}m2/0": ("two", None), "s2/m/0": ("no", 1.0)}
    with shop.database.transaction() as db:
        for key, (output, confidence) in calls.items():
            db.add(model_call(shop, key, output, confidence))
    page = plain_text(ben.read(f"/cases/{number}"))
    assert "one · confidence 87.5 % · 12.3 ms" in page
    assert "two · 12.3 ms" in page
    assert "my code is [code]" in page
    assert "no · confidence" not in page


def model_call(shop: Shop, key: str, output: str, confidence: float | None) -> ModelCall:
    """Return the record of a call about a verification code."""
    return ModelCall(
        key=key,
        prompt=f"<|user|>my code is {CODE}",
        constraint="start: x",
        output=output,
        milliseconds=12.34,
        prompt_tokens=7,
        completion_tokens=2,
        fingerprint="f" * 64,
        confidence=confidence,
        created_at=shop.clock(),
    )
