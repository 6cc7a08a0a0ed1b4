"""Deadlines of cases that nobody takes, and claims that follow each other."""

from datetime import timedelta
from typing import cast

import pytest
from tests.support.desk import (
    BEN,
    HAL,
    change,
    changes,
    hand_over,
    hear,
    large_refund,
    new_desk,
    texts,
)
from tests.support.shop import Shop
from tests.support.turns import snapshot

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.life import attended_case, lock_case
from gpt2flow.agent.flows.case_rules import Waiting
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseKind,
    CaseStatus,
    Courier,
    CustomerSession,
    Payment,
    PaymentStatus,
)

# Longer than any deadline of the built-in rules.
MONTH = timedelta(days=31)


def only_case(shop: Shop) -> Case:
    [case] = shop.rows(Case)
    return case


def advance(shop: Shop) -> Case:
    """Make the next change of the only case, at its time."""
    case = only_case(shop)
    assert case.attention_at is not None
    shop.clock.now = case.attention_at
    timers = shop.executor.cases.advance(case.id)
    case = only_case(shop)
    assert [timer.due for timer in timers] == ([case.attention_at] if case.attention_at else [])
    return case


def open_follow_up(shop: Shop) -> str:
    shop.log_in("s")
    step = shop.act("s", "schedule_follow_up", time="tomorrow at 3pm")
    assert step.report.outcome == "scheduled"
    return shop.rows(Case)[-1].number


def open_waiting(shop: Shop, status: Waiting) -> str:
    """Open a case that waits with a status; return its number."""
    if status == "awaiting_approval":
        return large_refund(shop)
    if status == "open":
        return hand_over(shop)
    number = open_follow_up(shop)
    advance(shop)
    return number


def request(shop: Shop, action: str, message: str = "please") -> Step:
    """Claim something for Ann's only order."""
    return shop.act("s", action, message=message, order="last", reason="damaged")


def test_a_follow_up_falls_due_and_its_staff_hears(shop: Shop) -> None:
    open_follow_up(shop)
    case = only_case(shop)
    assert (case.status, case.attention_at) == (CaseStatus.SCHEDULED, case.due_at)
    assert new_desk(shop).inbox() == []
    case = advance(shop)
    assert (case.status, case.urgency) == (CaseStatus.DUE, 0)
    assert case.inbox_since == case.due_at == shop.clock.now
    assert texts(shop, Audience.STAFF) == ["Case C-1 is due now: call, Ann."]
    assert texts(shop) == []
    assert [line.case for line in new_desk(shop).inbox()] == ["C-1"]


@pytest.mark.parametrize(
    "status, who", [("open", "conversation, –"), ("awaiting_approval", "refund, Ann")]
)
def test_a_case_that_nobody_takes_is_reminded_of_escalated_and_expires(
    shop: Shop, status: Waiting, who: str
) -> None:
    open_waiting(shop, status)
    deadlines = shop.book.cases.deadlines[status]
    opened, waited = shop.clock.now, []
    for urgency in (1, 2):
        case = advance(shop)
        assert (case.status, case.urgency) == (status, urgency)
        waited.append(shop.clock.now - opened)
    case = advance(shop)
    waited.append(shop.clock.now - opened)
    assert (case.status, case.attention_at, case.urgency) == (CaseStatus.EXPIRED, None, 0)
    minutes = [
        deadlines.remind,
        deadlines.remind + deadlines.escalate,
        deadlines.remind + deadlines.escalate + deadlines.expire,
    ]
    assert waited == [timedelta(minutes=each) for each in minutes]
    assert texts(shop, Audience.STAFF) == [
        f"Case C-1 still waits for somebody: {who}.",
        f"Case C-1 has waited too long: {who}.",
        f"Nobody took case C-1, so it has expired: {who}.",
    ]
    [told] = texts(shop)
    assert told.startswith("We are sorry: nobody got to case C-1 in time.")
    agent = [each for _, each in changes(shop)]
    assert agent == ["opened", "reminded", "escalated", "expired"]


def test_a_due_call_expires_too(shop: Shop) -> None:
    open_waiting(shop, "due")
    statuses = [advance(shop).status for _ in range(3)]
    assert statuses == [CaseStatus.DUE, CaseStatus.DUE, CaseStatus.EXPIRED]
    assert len(texts(shop)) == 1


def test_a_chinese_customer_hears_of_it_in_chinese(shop: Shop) -> None:
    large_refund(shop, message="你好")
    for _ in range(3):
        advance(shop)
    assert texts(shop) == ["非常抱歉, 工单 C-1 未能及时处理。请您再联系我们, 我们会马上跟进。"]


def test_a_clock_that_jumps_a_month_makes_one_change(shop: Shop) -> None:
    open_follow_up(shop)
    changed = [only_case(shop).status]
    for count in range(1, 5):
        shop.clock.now += MONTH
        for _ in range(3):
            [*timers] = shop.executor.cases.advance(1)
        assert len(changes(shop)) == 1 + count
        assert len(texts(shop, Audience.STAFF)) == count
        changed.append(only_case(shop).status)
    assert timers == []
    assert changed == ["scheduled", "due", "due", "due", "expired"]


def test_a_clock_that_goes_backwards_waits(shop: Shop) -> None:
    hand_over(shop)
    advance(shop)
    due = only_case(shop).attention_at
    before = snapshot(shop)
    shop.clock.now -= MONTH
    assert [timer.due for timer in shop.executor.cases.advance(1)] == [due]
    assert snapshot(shop) == before
    assert advance(shop).urgency == 2


@pytest.mark.parametrize("status", ["open", "awaiting_approval", "due"])
def test_a_case_that_somebody_has_taken_has_no_deadline(shop: Shop, status: Waiting) -> None:
    number = open_waiting(shop, status)
    new_desk(shop).assign(HAL, number)
    before = snapshot(shop)
    shop.clock.now += MONTH
    assert shop.executor.cases.advance(1) == []
    assert shop.executor.cases.timers() == []
    assert snapshot(shop) == before


def test_a_case_that_was_escalated_can_still_be_taken(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    for _ in range(2):
        advance(shop)
    view = desk.assign(HAL, number)
    assert (view.status, view.urgency, only_case(shop).attention_at) == ("open", 2, None)


@pytest.mark.parametrize("end", ["close", "approve", "reject", "return"])
def test_a_case_that_was_ended_has_no_deadline(shop: Shop, desk: Desk, end: str) -> None:
    number = hand_over(shop) if end in {"close", "return"} else large_refund(shop)
    seen = desk.show(number).digest
    match end:
        case "close":
            desk.close(BEN, number)
        case "approve":
            desk.approve(BEN, number, seen=seen)
        case "reject":
            desk.reject(BEN, number, "No.", seen=seen)
        case _:
            desk.assign(BEN, number, to="agent")
    before = snapshot(shop)
    shop.clock.now += MONTH
    assert shop.executor.cases.advance(1) == []
    assert snapshot(shop) == before


def test_what_the_shop_owes_a_customer_never_expires(shop: Shop) -> None:
    """The customer does not know of it, and cannot open it again."""
    with shop.database.transaction() as db:
        for courier in db.query(Courier):
            courier.active = False
        db.add(
            Case(
                kind=CaseKind.NO_COURIER,
                status=CaseStatus.OPEN,
                attention_at=shop.clock.now,
                created_at=shop.clock.now,
            )
        )
    urgencies = [advance(shop).urgency for _ in range(5)]
    assert urgencies == [1, 2, 2, 2, 2]
    assert only_case(shop).status is CaseStatus.OPEN
    assert len(texts(shop, Audience.STAFF)) == 5
    assert texts(shop) == []


def test_an_expired_conversation_leaves_that_of_a_person(shop: Shop, desk: Desk) -> None:
    desk.assign(HAL, hand_over(shop))
    shop.log_in("t")
    number = shop.order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=3)
    with shop.database.transaction() as db:
        db.get_one(CustomerSession, "s").customer_id = 1
    shop.act("s", "request_refund", order=number, reason="damaged")
    claim = shop.rows(Case)[-1]
    for _ in range(3):
        shop.clock.now += MONTH
        shop.executor.cases.advance(claim.id)
    assert shop.rows(Case)[-1].status is CaseStatus.EXPIRED
    assert hear(shop, "hello")[0].attended_by == "hal"


def test_timers_of_all_cases_are_known(shop: Shop) -> None:
    hand_over(shop)
    open_follow_up(shop)
    due = {timer.case: timer.due for timer in shop.executor.cases.timers()}
    assert due == {case.id: case.attention_at for case in shop.rows(Case)}
    assert len(due) == 2


def test_a_timer_of_no_case_does_nothing(shop: Shop) -> None:
    assert shop.executor.cases.advance(7) == []
    with shop.database.transaction() as db:
        assert lock_case(db, 7) is None
        assert attended_case(db, "s") is None


@pytest.mark.parametrize("status", [CaseStatus.EXPIRED, CaseStatus.REJECTED])
def test_a_claim_that_failed_lets_the_customer_open_another(shop: Shop, status: CaseStatus) -> None:
    change(shop, large_refund(shop), status=status, attention_at=None)
    assert request(shop, "request_refund").report.outcome == "needs_approval"
    assert [case.number for case in shop.rows(Case)] == ["C-1", "C-2"]


@pytest.mark.parametrize("status", [CaseStatus.APPROVED, CaseStatus.CLOSED])
@pytest.mark.parametrize("message", ["please", "an exchange instead please"])
def test_what_a_person_approved_or_closed_the_customer_leaves(
    shop: Shop, status: CaseStatus, message: str
) -> None:
    number = large_refund(shop)
    change(shop, number, status=status, attention_at=None, assignee="ben")
    step = request(shop, "request_exchange", message)
    assert step.report.outcome == "already_open"
    assert "There is a refund for order SO-1001 already (case C-1)." in [
        message.text for message in step.report.messages
    ]
    case = only_case(shop)
    assert (case.kind, case.status, case.assignee) == (CaseKind.REFUND, status, "ben")


def test_a_change_that_comes_too_late_keeps_the_refund(shop: Shop) -> None:
    shop.log_in("s")
    shop.order(delivered_days_ago=20)
    assert request(shop, "request_refund").report.outcome == "approved"
    step = request(shop, "request_exchange", "an exchange instead please")
    assert step.report.outcome == "too_late"
    assert [each.status for each in shop.rows(Payment)] == [PaymentStatus.REQUESTED]


def test_a_changed_claim_has_deadlines_again(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    advance(shop)
    desk.assign(BEN, number)
    request(shop, "request_return", "a return instead please")
    assert only_case(shop).attention_at is None
    step = request(shop, "request_refund", "no, a refund instead")
    case = only_case(shop)
    remind = timedelta(minutes=shop.book.cases.deadlines["awaiting_approval"].remind)
    assert (case.urgency, case.assignee) == (0, None)
    assert case.attention_at == shop.clock.now + remind
    assert [timer.due for timer in step.timers] == [case.attention_at]
    assert case.inbox_since == shop.clock.now


def test_a_second_call_for_a_person_is_noted_in_the_first_case(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    step = shop.act("s", "escalate", message="where is the human?", confidence=0.7)
    assert step.timers == []
    assert number in step.report.messages[0].text
    [opened, again] = desk.show(number).history
    assert (opened.change, again.change, again.actor) == ("opened", "asked_again", "customer")
    assert again.text == "where is the human?"
    assert again.details is not None
    assert again.details["confidence"] == 0.7
    assert only_case(shop).customer_id is None


def test_a_guest_who_logs_in_is_known_in_the_case(shop: Shop) -> None:
    number = hand_over(shop)
    shop.log_in("s")
    assert hand_over(shop) == number
    assert only_case(shop).customer_id == 1


def test_a_case_that_was_closed_is_not_opened_again(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.close(BEN, number)
    assert hand_over(shop) == "C-2"
    assert cast("str", desk.show(number).status) == "closed"
