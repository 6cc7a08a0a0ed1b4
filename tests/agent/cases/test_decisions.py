"""Decisions of people: permissions, effects, and messages to customers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from threading import Barrier

import pytest
from sqlalchemy import select, update
from tests.support.desk import (
    BEN,
    EVA,
    HAL,
    change,
    changes,
    hand_over,
    hear,
    large_refund,
    new_desk,
    outcome_of,
    texts,
)
from tests.support.shop import Shop
from tests.support.turns import snapshot

from gpt2flow.agent.cases.decisions import CaseChangedError, DecisionError, Desk
from gpt2flow.agent.cases.people import NotAllowedError, Person
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseKind,
    CaseStatus,
    Delivery,
    Order,
    OrderLine,
    OutboxMessage,
    Payment,
)

Decide = Callable[[Desk, Person, str], object]
NOT_WAITING = [status for status in CaseStatus if status is not CaseStatus.AWAITING_APPROVAL]


def approve(desk: Desk, person: Person, number: str) -> object:
    return desk.approve(person, number, seen=desk.show(number).digest)


def reject(desk: Desk, person: Person, number: str) -> object:
    return desk.reject(person, number, "No.", seen=desk.show(number).digest)


def reply(desk: Desk, person: Person, number: str) -> object:
    return desk.reply(person, number, "Hello")


@pytest.mark.parametrize(
    "message, language, text",
    [
        (
            "hello",
            "en",
            "your refund for order SO-1001 has been approved (case C-1). Amount: 267.00.",
        ),
        ("你好", "zh", "订单 SO-1001 的退款申请已通过审核 (工单 C-1), 金额 267.00。"),
    ],
)
def test_an_approval_reaches_the_customer_in_their_language(
    shop: Shop, desk: Desk, message: str, language: str, text: str
) -> None:
    number = large_refund(shop, message=message)
    view = desk.approve(BEN, number, seen=desk.show(number).digest)
    assert (view.status, view.assignee, view.amount) == (CaseStatus.APPROVED, "ben", "267.00")
    [sent] = [each for each in shop.rows(OutboxMessage) if each.case_id is not None]
    assert sent.text.endswith(text)
    assert (sent.language, sent.contact) == (language, "ann@example.com")
    assert (sent.audience, sent.delivery) == (Audience.CUSTOMER, Delivery.PENDING)
    assert (sent.session_id, sent.created_at) == ("s", shop.clock.now)
    last = view.history[-1]
    assert (last.at, last.actor, last.change) == (shop.clock.now, "ben", "approved")
    assert last.status is CaseStatus.APPROVED
    assert last.details is not None
    assert (last.details["claimed"], last.details["amount"]) == ("267.00", "267.00")


def test_another_amount_is_approved_and_paid(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    digest = desk.show(number).digest
    view = desk.approve(BEN, number, seen=digest, amount=Decimal("99.90"))
    assert view.amount == "99.90"
    assert view.history[-1].details == {"seen": digest, "claimed": "267.00", "amount": "99.90"}
    assert texts(shop)[-1].endswith("Amount: 99.90.")
    assert [payment.amount for payment in shop.rows(Payment)] == [Decimal("99.90")]


@pytest.mark.parametrize(
    "amount", ["0", "-1", "267.01", "0.001", "nan", "snan", "inf", "-inf", "1e30", "1e400", "1e-99"]
)
def test_an_amount_outside_of_the_order_is_refused(shop: Shop, desk: Desk, amount: str) -> None:
    number = large_refund(shop)
    before, digest = snapshot(shop), desk.show(number).digest
    with pytest.raises(InputError, match=r"^amount is ") as caught:
        desk.approve(BEN, number, seen=digest, amount=Decimal(amount))
    assert "\n" not in str(caught.value)
    assert snapshot(shop) == before


def test_the_whole_order_can_be_approved_however_little_was_claimed(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    change(shop, number, amount=Decimal(10))
    view = desk.approve(BEN, number, seen=desk.show(number).digest, amount=Decimal("267.000"))
    assert view.amount == "267.00"


def test_an_approver_has_a_limit(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    before, digest = snapshot(shop), desk.show(number).digest
    for amount in (None, Decimal("100.01")):
        with pytest.raises(NotAllowedError, match=r"^eva may approve up to 100\.00, and this is"):
            desk.approve(EVA, number, seen=digest, amount=amount)
    assert snapshot(shop) == before
    assert desk.approve(EVA, number, seen=digest, amount=Decimal(100)).amount == "100.00"


def test_a_limit_on_approvals_does_not_limit_rejections(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    reject(desk, EVA, number)
    assert desk.show(number).status is CaseStatus.REJECTED


@pytest.mark.parametrize("decide", [approve, reject])
def test_a_handler_may_not_decide(shop: Shop, desk: Desk, decide: Decide) -> None:
    number = large_refund(shop)
    before = snapshot(shop)
    with pytest.raises(NotAllowedError, match=r'^hal may not decide claims; .* may = "approve"$'):
        decide(desk, HAL, number)
    assert snapshot(shop) == before


def test_a_rejection_tells_the_customer_why(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    view = desk.reject(BEN, number, " Used for {a} year. ", seen=desk.show(number).digest)
    assert (view.status, view.assignee) == (CaseStatus.REJECTED, "ben")
    assert (view.history[-1].change, view.history[-1].text) == ("rejected", "Used for {a} year.")
    [text] = texts(shop)
    assert text.endswith("SO-1001 was not approved (case C-1). Used for {a} year.")
    assert shop.rows(Payment) == []


def change_total(shop: Shop, number: str) -> None:
    del number
    with shop.database.transaction() as db:
        db.execute(update(Order).values(total=Decimal(268)))


def change_lines(shop: Shop, number: str) -> None:
    del number
    with shop.database.transaction() as db:
        db.execute(update(OrderLine).values(quantity=2))


def change_delivery(shop: Shop, number: str) -> None:
    del number
    with shop.database.transaction() as db:
        db.execute(update(Order).values(delivered_at=shop.clock.now - timedelta(days=40)))


def change_amount(shop: Shop, number: str) -> None:
    change(shop, number, amount=Decimal(266))


def change_kind(shop: Shop, number: str) -> None:
    change(shop, number, kind=CaseKind.EXCHANGE)


def change_reason(shop: Shop, number: str) -> None:
    change(shop, number, reason="damaged")


@pytest.mark.parametrize(
    "alter",
    [change_total, change_lines, change_delivery, change_amount, change_kind, change_reason],
)
@pytest.mark.parametrize(
    "decide",
    [
        lambda desk, seen: desk.approve(BEN, "C-1", seen=seen, amount=Decimal(50)),
        lambda desk, seen: desk.reject(BEN, "C-1", "No.", seen=seen),
    ],
)
def test_a_decision_on_what_has_changed_is_refused(
    shop: Shop,
    desk: Desk,
    alter: Callable[[Shop, str], None],
    decide: Callable[[Desk, str], object],
) -> None:
    number = large_refund(shop)
    seen = desk.show(number).digest
    alter(shop, number)
    before = snapshot(shop)
    with pytest.raises(CaseChangedError, match=f"^case C-1 is not as it was shown .*{seen}"):
        decide(desk, seen)
    assert snapshot(shop) == before
    shown_again = desk.show(number).digest
    assert shown_again != seen
    decide(desk, shown_again)


def with_policies(book: FlowBook, **policies: int | str) -> FlowBook:
    flow = book.flows["after_sales"]
    changed = flow.model_copy(update={"policies": flow.policies | policies})
    return replace(book, flows=book.flows | {"after_sales": changed})


@pytest.mark.parametrize("policies", [{"approval_over": "100.00"}, {"refund_days": 14}])
def test_a_decision_under_another_policy_is_refused(
    shop: Shop, desk: Desk, policies: dict[str, int | str]
) -> None:
    number = large_refund(shop)
    view = desk.show(number)
    assert view.policies["approval_over"] == "200.00"
    changed = Desk(with_policies(shop.book, **policies), shop.database, shop.clock)
    before = snapshot(shop)
    with pytest.raises(CaseChangedError):
        changed.approve(BEN, number, seen=view.digest)
    assert snapshot(shop) == before


def test_what_a_decision_does_not_rest_on_leaves_the_digest(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    seen = desk.show(number).digest
    desk.assign(BEN, number)
    hear(shop, "any news?")
    change(shop, number, urgency=2)
    assert desk.show(number).digest == seen
    desk.approve(BEN, number, seen=f" {seen.upper()} ")


@pytest.mark.parametrize("seen", ["", "0" * 12, "x" * 10**6, "\n"])
def test_a_digest_that_was_not_shown_is_refused(shop: Shop, desk: Desk, seen: str) -> None:
    number = large_refund(shop)
    with pytest.raises(CaseChangedError) as caught:
        desk.approve(BEN, number, seen=seen)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_one_of_two_who_decide_at_once_wins(shop: Shop) -> None:
    """Both have seen the same case; one message goes out."""
    number = large_refund(shop)
    desks = [new_desk(shop), new_desk(shop)]
    digest, barrier = desks[0].show(number).digest, Barrier(2)

    def decide(index: int) -> object:
        barrier.wait()
        if index:
            return desks[1].reject(BEN, number, "No.", seen=digest)
        return desks[0].approve(BEN, number, seen=digest)

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda each: outcome_of(lambda: decide(each)), range(2)))
    [error] = [each for each in results if isinstance(each, Exception)]
    assert isinstance(error, DecisionError)
    assert "only a claim that is awaiting_approval can be decided" in str(error)
    assert len(texts(shop)) == 1
    assert len([each for _, each in changes(shop) if each in {"approved", "rejected"}]) == 1


@pytest.mark.parametrize("decide", [approve, reject])
@pytest.mark.parametrize("status", NOT_WAITING)
def test_only_a_claim_that_waits_is_decided(
    shop: Shop, desk: Desk, status: CaseStatus, decide: Decide
) -> None:
    number = large_refund(shop)
    change(shop, number, status=status, assignee="eva")
    before = snapshot(shop)
    with pytest.raises(DecisionError, match=rf"^case C-1 \(refund\) is {status} by eva; only a"):
        decide(desk, BEN, number)
    assert snapshot(shop) == before


@pytest.mark.parametrize("decide", [approve, reject])
def test_a_conversation_has_nothing_to_decide(shop: Shop, desk: Desk, decide: Decide) -> None:
    number = hand_over(shop)
    change(shop, number, status=CaseStatus.AWAITING_APPROVAL)
    with pytest.raises(DecisionError, match=r"^case C-1 \(hand_over\)"):
        decide(desk, BEN, number)


@pytest.mark.parametrize("decide", [approve, reject, reply])
def test_a_case_of_somebody_else_is_left_alone(shop: Shop, desk: Desk, decide: Decide) -> None:
    number = large_refund(shop)
    desk.assign(EVA, number)
    before = snapshot(shop)
    with pytest.raises(NotAllowedError, match=r"^case C-1 is with eva; assign it to yourself"):
        decide(desk, BEN, number)
    assert snapshot(shop) == before
    desk.assign(BEN, number)
    decide(desk, BEN, number)


def test_a_claim_is_closed_once_it_is_decided(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    with pytest.raises(DecisionError, match=r"^case C-1 needs a decision: approve or reject it$"):
        desk.close(BEN, number)
    approve(desk, BEN, number)
    view = desk.close(HAL, number, "Money sent.")
    assert (view.status, view.history[-1].text) == (CaseStatus.CLOSED, "Money sent.")
    with pytest.raises(DecisionError, match=r"^case C-1 is closed already$"):
        desk.close(BEN, number)


@pytest.mark.parametrize("status", [CaseStatus.REJECTED, CaseStatus.EXPIRED])
def test_an_ended_case_is_not_closed(shop: Shop, desk: Desk, status: CaseStatus) -> None:
    number = large_refund(shop)
    change(shop, number, status=status)
    with pytest.raises(DecisionError, match=f"^case C-1 is {status} already$"):
        desk.close(BEN, number)


def test_a_claim_that_the_customer_changes_leaves_the_person(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    view = desk.assign(BEN, number)
    step = shop.act("s", "request_exchange", message="an exchange instead please")
    assert step.report.outcome == "changed"
    before = snapshot(shop)
    with pytest.raises(DecisionError, match=r"^case C-1 \(exchange\) is approved; only a claim"):
        desk.approve(BEN, number, seen=view.digest)
    assert snapshot(shop) == before
    assert changes(shop)[-1] == ("customer", "changed")
    assert desk.inbox() == []
    # A refund again needs a decision again, of anybody.
    shop.act("s", "request_refund", message="no, a refund instead")
    [line] = desk.inbox()
    assert (line.case, line.assignee, line.urgency) == (number, None, 0)


@pytest.mark.parametrize("character", ["\x00", "\x07", "\t", "\x1b", "\x7f", "\x85", "\udc80"])
def test_a_text_has_no_control_characters(shop: Shop, desk: Desk, character: str) -> None:
    number = large_refund(shop)
    seen = desk.show(number).digest
    before = snapshot(shop)
    with pytest.raises(InputError, match="the text has the control character") as caught:
        desk.reject(BEN, number, f"a{character}b", seen=seen)
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)
    assert snapshot(shop) == before


def test_a_decision_on_no_case_names_it(shop: Shop, desk: Desk) -> None:
    del shop
    with pytest.raises(InputError, match=r"^there is no case C-7$"):
        desk.approve(BEN, "c-7", seen="0")


def test_every_change_is_in_the_history_with_its_status(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    desk.assign(HAL, number)
    desk.reply(HAL, number, "Which one is broken?")
    desk.assign(BEN, number)
    approve(desk, BEN, number)
    desk.close(BEN, number)
    waiting = CaseStatus.AWAITING_APPROVAL
    assert [(e.actor, e.change, e.status) for e in desk.show(number).history] == [
        ("agent", "opened", waiting),
        ("hal", "assigned", waiting),
        ("hal", "replied", waiting),
        ("ben", "assigned", waiting),
        ("ben", "approved", CaseStatus.APPROVED),
        ("ben", "closed", CaseStatus.CLOSED),
    ]
    with shop.database.transaction() as db:
        assert db.scalars(select(Case.attention_at)).all() == [None]
