"""Claims within their limits, approvals, answers, and calls back."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from gpt2flow.agent.shop import INBOX, Case, CaseKind, CaseStatus, OrderStatus

if TYPE_CHECKING:
    from tests.agent.conftest import Desk


@pytest.mark.parametrize(
    "action, days, outcome",
    [
        ("request_refund", 30, "approved"),
        ("request_refund", 31, "too_late"),
        ("request_return", 30, "approved"),
        ("request_return", 31, "too_late"),
        ("request_exchange", 15, "approved"),
        ("request_exchange", 16, "too_late"),
    ],
)
def test_claims_have_time_limits(desk: "Desk", action: str, days: int, outcome: str) -> None:
    desk.log_in("s")
    number = desk.order(delivered_days_ago=days)
    step = desk.act("s", action, order=number, reason="damaged")
    assert step.report.outcome == outcome
    assert len(desk.rows(Case)) == (outcome == "approved")


def test_claim_needs_a_delivery(desk: "Desk") -> None:
    desk.log_in("s")
    number = desk.order(status=OrderStatus.ASSIGNED)
    step = desk.act("s", "request_refund", order=number, reason="late")
    assert step.report.messages[0].text == (
        f"Order {number} is waiting for the courier; a refund is possible once it has been "
        "delivered."
    )


@pytest.mark.parametrize(
    "quantity, outcome, status",
    [
        (2, "approved", CaseStatus.APPROVED),  # 178.00
        (3, "needs_approval", CaseStatus.AWAITING_APPROVAL),  # 267.00
    ],
)
def test_large_refund_waits_for_a_person(
    desk: "Desk", quantity: int, outcome: str, status: CaseStatus
) -> None:
    desk.log_in("s")
    number = desk.order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=quantity)
    step = desk.act("s", "request_refund", order=number, reason="defective")
    assert step.report.outcome == outcome
    (case,) = desk.rows(Case)
    assert (case.kind, case.status, case.reason) == (CaseKind.REFUND, status, "defective")
    assert case.amount == Decimal(89) * quantity
    assert (case.status in INBOX) == (outcome == "needs_approval")


def test_one_claim_an_order_whatever_its_kind(desk: "Desk") -> None:
    desk.log_in("s")
    number = desk.order(delivered_days_ago=1)
    desk.act("s", "request_return", order=number, reason="damaged")
    step = desk.act("s", "request_refund", order=number, reason="damaged")
    assert step.report.outcome == "already_open"
    assert step.report.messages[0].text == (
        f"There is a return for order {number} already (case C-1)."
    )
    assert len(desk.rows(Case)) == 1


def test_question_keeps_what_was_said(desk: "Desk") -> None:
    """Which order, and why: two questions, and the answers to them."""
    desk.log_in("s")
    desk.order(delivered_days_ago=1)
    second = desk.order(delivered_days_ago=2)
    step = desk.act("s", "request_refund", reason="damaged")
    assert (step.result, step.report.asked) == ("asked", "order")
    assert desk.executor.opening("s", "x").situation.awaiting == ("request_refund", "order")
    step = desk.act("s", "request_refund", order=second)
    assert step.report.used == {"order": second, "reason": "damaged"}
    assert step.report.outcome == "approved"
    assert desk.executor.opening("s", "x").situation.awaiting is None


def test_another_subject_drops_the_question(desk: "Desk") -> None:
    desk.log_in("s")
    desk.order(delivered_days_ago=1)
    desk.act("s", "request_refund")
    desk.act("s", "clarify")
    assert desk.executor.opening("s", "x").situation.awaiting == ("request_refund", "reason")
    desk.act("s", "view_cart")
    assert desk.executor.opening("s", "x").situation.awaiting is None


def test_only_delivered_order_is_meant(desk: "Desk") -> None:
    desk.log_in("s")
    delivered = desk.order(delivered_days_ago=1)
    desk.order(status=OrderStatus.ASSIGNED)
    step = desk.act("s", "request_exchange", reason="wrong_size")
    assert step.report.used == {"order": delivered, "reason": "wrong_size"}
    assert "Amount" not in step.report.messages[0].text


@pytest.mark.parametrize(
    "message, text",
    [
        ("can i send it back", "within 30 days of delivery and exchanged within 15"),
        ("可以退货吗", "签收后 30 天内可退货退款, 15 天内可换货"),
    ],
)
def test_answers_come_from_the_flow_with_its_policies(
    desk: "Desk", message: str, text: str
) -> None:
    step = desk.act("s", "answer_question", message=message, topic="return_policy")
    assert text in step.report.messages[0].text


def test_follow_up_is_promised_and_gets_a_timer(desk: "Desk") -> None:
    desk.log_in("s")
    step = desk.act("s", "schedule_follow_up", message="明天下午3点打给我", time="明天下午3点")
    due = datetime(2026, 3, 5, 15, tzinfo=UTC)
    assert step.report.messages[0].text == (
        "同事会在 2026年3月5日星期四 15:00 通过 ann@example.com 联系您 (工单 C-1)。"
    )
    (case,) = desk.rows(Case)
    assert (case.kind, case.status, case.due_at) == (
        CaseKind.FOLLOW_UP,
        CaseStatus.SCHEDULED,
        due,
    )
    assert [(timer.case, timer.due) for timer in step.timers] == [(case.id, due)]
    for _ in range(2):
        desk.executor.take_up(case.id)
        assert desk.rows(Case)[0].status is CaseStatus.DUE


@pytest.mark.parametrize(
    "time, outcome",
    [
        ("tomorrow at 6pm", "scheduled"),
        ("tomorrow at 18:01", "not_open"),
        ("tomorrow at 8:59", "not_open"),
        ("today at 9am", "not_open"),
        ("2 may at noon", "not_open"),
        ("tomorrow", "unclear_time"),
        ("when pigs fly", "unclear_time"),
    ],
)
def test_follow_up_needs_a_clear_time_within_hours(desk: "Desk", time: str, outcome: str) -> None:
    desk.log_in("s")
    step = desk.act("s", "schedule_follow_up", time=time)
    assert step.report.outcome == outcome
    assert len(step.timers) == (outcome == "scheduled")
