"""Claims with their time limits and approvals, answers, and follow-up calls."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.desk import BEN
from tests.support.postgresql import DATABASES
from tests.support.shop import Shop

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.shop import INBOX, Case, CaseKind, CaseStatus, OrderStatus


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
def test_claims_have_time_limits(shop: Shop, action: str, days: int, outcome: str) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=days)
    step = shop.act("s", action, order=number, reason="damaged")
    assert step.report.outcome == outcome
    assert len(shop.rows(Case)) == (outcome == "approved")


def test_claim_needs_a_delivery(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(status=OrderStatus.ASSIGNED)
    step = shop.act("s", "request_refund", order=number, reason="late")
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
def test_large_refund_needs_approval(
    shop: Shop, quantity: int, outcome: str, status: CaseStatus
) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=quantity)
    step = shop.act("s", "request_refund", order=number, reason="defective")
    assert step.report.outcome == outcome
    (case,) = shop.rows(Case)
    assert (case.kind, case.status, case.reason) == (CaseKind.REFUND, status, "defective")
    assert case.amount == Decimal(89) * quantity
    assert (case.status in INBOX) == (outcome == "needs_approval")


def test_order_has_at_most_one_claim_of_any_kind(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1)
    shop.act("s", "request_return", order=number, reason="damaged")
    step = shop.act("s", "request_refund", order=number, reason="damaged")
    assert step.report.outcome == "already_open"
    assert step.report.messages[0].text == (
        f"There is a return for order {number} already (case C-1)."
    )
    assert len(shop.rows(Case)) == 1


@pytest.mark.parametrize(
    "message, action, kind",
    [
        ("an exchange instead please", "request_exchange", CaseKind.EXCHANGE),
        ("I would rather return it", "request_return", CaseKind.RETURN),
        ("改成换货吧", "request_exchange", CaseKind.EXCHANGE),
        ("还是退货吧", "request_return", CaseKind.RETURN),
    ],
)
def test_claim_is_changed_to_another_kind(
    shop: Shop, message: str, action: str, kind: CaseKind
) -> None:
    """Order and reason carry over, even if another order was mentioned."""
    shop.log_in("s")
    number, other = shop.order(delivered_days_ago=1), shop.order(delivered_days_ago=2)
    shop.act("s", "request_refund", order=number, reason="defective")
    shop.act("s", "track_order", order=other)
    step = shop.act("s", action, message=message)
    assert (step.result, step.report.outcome) == ("ok", "changed")
    assert step.report.used == {"order": number, "reason": "defective"}
    (case,) = shop.rows(Case)
    assert (case.kind, case.reason, case.note) == (kind, "defective", message)
    assert case.number in step.report.messages[0].text


@pytest.mark.parametrize("message", ["and an exchange", "我要换货"])
def test_second_claim_needs_a_word_of_change(shop: Shop, message: str) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1)
    shop.act("s", "request_refund", order=number, reason="damaged")
    step = shop.act("s", "request_exchange", message=message, order=number)
    assert (step.result, step.report.outcome) == ("refused", "already_open")
    assert [case.kind for case in shop.rows(Case)] == [CaseKind.REFUND]


def test_same_claim_cannot_be_changed_to_itself(shop: Shop) -> None:
    shop.log_in("s")
    shop.order(delivered_days_ago=1)
    shop.act("s", "request_refund", order="last", reason="damaged")
    step = shop.act("s", "request_refund", message="a refund instead", reason="late")
    assert step.report.outcome == "already_open"
    assert [case.reason for case in shop.rows(Case)] == ["damaged"]


def test_claim_changed_to_a_large_refund_needs_approval(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=3)
    shop.act("s", "request_return", order=number, reason="defective")
    assert shop.rows(Case)[0].status is CaseStatus.APPROVED
    step = shop.act("s", "request_refund", message="a refund instead please")
    assert step.report.messages[0].text == (
        f"I have changed your claim on order {number} (267.00) to a refund (case C-1). "
        "A colleague has to approve it; you will hear from us."
    )
    assert shop.rows(Case)[0].status is CaseStatus.AWAITING_APPROVAL
    step = shop.act("s", "request_return", message="a return instead, sorry")
    assert step.report.messages[0].text.endswith("to a return (case C-1).")
    assert shop.rows(Case)[0].status is CaseStatus.APPROVED


def test_deadline_of_the_new_kind_applies_to_a_change(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=16)
    shop.act("s", "request_refund", order=number, reason="defective")
    step = shop.act("s", "request_exchange", message="an exchange instead please")
    assert (step.result, step.report.outcome) == ("refused", "too_late")
    assert [case.kind for case in shop.rows(Case)] == [CaseKind.REFUND]


def test_refused_claim_hands_on_its_order_and_reason(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=20)
    shop.order(delivered_days_ago=1)
    shop.act("s", "request_exchange", order=number, reason="wrong_size")
    step = shop.act("s", "request_refund", message="then a refund")
    assert step.report.used == {"order": number, "reason": "wrong_size"}
    assert step.report.outcome == "approved"


def test_reason_of_an_open_claim_is_known_in_every_session(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1)
    shop.act("s", "request_refund", order=number, reason="wrong_size")
    shop.log_in("later")
    step = shop.act("later", "request_return", message="a return instead", order=number)
    assert step.report.used == {"order": number, "reason": "wrong_size"}
    assert step.report.outcome == "changed"


def test_reason_does_not_carry_over_to_another_order(shop: Shop) -> None:
    shop.log_in("s")
    first, second = shop.order(delivered_days_ago=1), shop.order(delivered_days_ago=2)
    shop.act("s", "request_refund", order=first, reason="damaged")
    step = shop.act("s", "request_refund", message=f"and {second}")
    assert (step.report.asked, step.report.used) == ("reason", {"order": second})


def test_open_question_keeps_the_other_arguments(shop: Shop) -> None:
    """The order is missing; the reason given before is kept."""
    shop.log_in("s")
    shop.order(delivered_days_ago=1)
    second = shop.order(delivered_days_ago=2)
    step = shop.act("s", "request_refund", reason="damaged")
    assert (step.result, step.report.asked) == ("asked", "order")
    assert shop.state("s", "x").prompt_state.awaiting == ("request_refund", "order")
    step = shop.act("s", "request_refund", order=second)
    assert step.report.used == {"order": second, "reason": "damaged"}
    assert step.report.outcome == "approved"
    assert shop.state("s", "x").prompt_state.awaiting is None


def test_another_subject_closes_the_question(shop: Shop) -> None:
    shop.log_in("s")
    shop.order(delivered_days_ago=1)
    shop.act("s", "request_refund")
    shop.act("s", "clarify")
    assert shop.state("s", "x").prompt_state.awaiting == ("request_refund", "reason")
    shop.act("s", "view_cart")
    assert shop.state("s", "x").prompt_state.awaiting is None


def test_only_delivered_order_is_inferred(shop: Shop) -> None:
    shop.log_in("s")
    delivered = shop.order(delivered_days_ago=1)
    shop.order(status=OrderStatus.ASSIGNED)
    step = shop.act("s", "request_exchange", reason="wrong_size")
    assert step.report.used == {"order": delivered, "reason": "wrong_size"}
    assert "Amount" not in step.report.messages[0].text


@pytest.mark.parametrize(
    "message, text",
    [
        ("can i send it back", "within 30 days of delivery and exchanged within 15"),
        ("可以退货吗", "签收后 30 天内可退货退款, 15 天内可换货"),
    ],
)
def test_answers_contain_the_policies_of_the_flow(shop: Shop, message: str, text: str) -> None:
    step = shop.act("s", "answer_question", message=message, topic="return_policy")
    assert text in step.report.messages[0].text


def test_follow_up_is_scheduled_with_a_timer(shop: Shop) -> None:
    shop.log_in("s")
    step = shop.act("s", "schedule_follow_up", message="明天下午3点打给我", time="明天下午3点")
    due = datetime(2026, 3, 5, 15, tzinfo=UTC)
    assert step.report.messages[0].text == (
        "同事会在 2026年3月5日星期四 15:00 通过 ann@example.com 联系您 (工单 C-1)。"
    )
    (case,) = shop.rows(Case)
    assert (case.kind, case.status, case.due_at) == (
        CaseKind.FOLLOW_UP,
        CaseStatus.SCHEDULED,
        due,
    )
    assert [(timer.case, timer.due) for timer in step.timers] == [(case.id, due)]
    assert [timer.due for timer in shop.executor.cases.advance(case.id)] == [due]
    assert shop.rows(Case)[0].status is CaseStatus.SCHEDULED
    shop.clock.now = due
    for _ in range(2):
        shop.executor.cases.advance(case.id)
        assert shop.rows(Case)[0].status is CaseStatus.DUE


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
def test_follow_up_needs_a_clear_time_within_hours(shop: Shop, time: str, outcome: str) -> None:
    shop.log_in("s")
    step = shop.act("s", "schedule_follow_up", time=time)
    assert step.report.outcome == outcome
    assert len(step.timers) == (outcome == "scheduled")


def expire_claim(shop: Shop) -> float:
    """Let the newest case expire, and return the days until then."""
    case = shop.rows(Case)[-1]
    began = shop.clock.now
    while case.attention_at is not None:
        shop.clock.now = case.attention_at
        shop.executor.cases.advance(case.id)
        case = shop.rows(Case)[-1]
    assert case.status is CaseStatus.EXPIRED
    return (shop.clock.now - began) / timedelta(days=1)


both = pytest.mark.parametrize("database", DATABASES, indirect=True)


@both
def test_a_claim_that_expired_may_be_made_again(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=3)
    for claims in (1, 2, 3):
        step = shop.act("s", "request_refund", order=number, reason="defective")
        assert step.report.outcome == "needs_approval"
        assert len(shop.rows(Case)) == claims
        again = shop.act("s", "request_return", order=number, reason="defective")
        assert again.report.outcome == "already_open"
        expire_claim(shop)


@both
def test_the_time_limit_stands_still_while_a_claim_waits_until_it_expires(shop: Shop) -> None:
    """A claim of day 25 that nobody answers leaves 5 days more."""
    shop.log_in("s")
    number = shop.order(delivered_days_ago=25, sku="bluetooth-headphones", quantity=3)

    def claim() -> str | None:
        step = shop.act("s", "request_refund", order=number, reason="defective")
        return step.report.outcome

    assert claim() == "needs_approval"
    assert expire_claim(shop) > 6
    shop.clock.forward(days=5.5)
    assert claim() == "needs_approval"
    assert expire_claim(shop) > 6
    shop.clock.forward(days=0.6)
    step = shop.act("s", "request_refund", order=number, reason="defective")
    assert step.report.outcome == "too_late"
    # The days of the message are those since the delivery.
    assert step.report.messages[0].text == (
        f"Order {number} was delivered 47 days ago; a refund is possible within 30 days."
    )


def test_the_time_limit_goes_on_while_a_claim_is_decided(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order(delivered_days_ago=25, sku="bluetooth-headphones", quantity=3)
    shop.act("s", "request_refund", order=number, reason="defective")
    desk = Desk(shop.book, shop.database, shop.clock)
    shop.clock.forward(days=6.5)
    desk.reject(BEN, "C-1", "No.", seen=desk.show("C-1").digest)
    step = shop.act("s", "request_refund", order=number, reason="defective")
    assert step.report.outcome == "too_late"
