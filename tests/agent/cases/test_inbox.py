"""Inbox and view of a case: order, filters, conversation, hidden codes."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, insert
from tests.support.desk import BEN, change, hand_over, hear, large_refund, texts
from tests.support.shop import CODE, Shop

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.inbox import CaseView, parse_case_number
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseKind,
    CaseStatus,
    CustomerSession,
    OutboxMessage,
    ReceivedMessage,
)

# The inbox, and the transaction around it; a statement a case would be thousands.
MAX_STATEMENTS = 5


def add_cases(shop: Shop, *rows: dict[str, Any]) -> None:
    """Add hand-overs that wait; each row has the columns that differ."""
    usual = {"kind": CaseKind.HAND_OVER, "status": CaseStatus.OPEN, "created_at": shop.clock.now}
    with shop.database.transaction() as db:
        db.execute(insert(Case), [usual | {"inbox_since": shop.clock.now} | row for row in rows])


def numbers(desk: Desk, **filters: Any) -> list[str]:
    return [line.case for line in desk.inbox(**filters)]


def said(view: CaseView) -> list[tuple[str, str]]:
    return [(each.by, each.text) for each in view.conversation]


def test_the_inbox_is_ordered_by_urgency_age_and_amount(shop: Shop, desk: Desk) -> None:
    now = shop.clock.now
    old = now - timedelta(days=2)
    usual: dict[str, Any] = {"urgency": 0, "amount": None}
    rows: list[dict[str, Any]] = [
        {"inbox_since": now, "amount": Decimal(5)},
        {"inbox_since": now, "amount": Decimal(700)},
        {"inbox_since": now},
        {"inbox_since": old},
        {"inbox_since": now, "urgency": 2},
        {"inbox_since": old, "urgency": 1, "amount": Decimal(1)},
        # A case that was never in the inbox counts from its beginning.
        {"inbox_since": None, "created_at": old - timedelta(days=1)},
        {"inbox_since": now, "amount": Decimal(5)},
    ]
    for row in rows:
        add_cases(shop, usual | row)
    assert numbers(desk) == ["C-5", "C-6", "C-7", "C-4", "C-2", "C-1", "C-8", "C-3"]
    assert numbers(desk, limit=2) == ["C-5", "C-6"]


def test_the_inbox_has_what_waits_for_a_person(shop: Shop, desk: Desk) -> None:
    add_cases(shop, *({"status": status} for status in CaseStatus))
    waiting = ["open", "awaiting_approval", "due"]
    assert sorted(line.status for line in desk.inbox()) == sorted(waiting)
    assert len(numbers(desk, all_statuses=True)) == len(CaseStatus)


def test_cases_are_found_by_their_person(shop: Shop, desk: Desk) -> None:
    add_cases(shop, {"assignee": "ben"}, {"assignee": "eva"}, {"assignee": None})
    add_cases(shop, {"assignee": "ben", "status": CaseStatus.CLOSED})
    assert numbers(desk, assignee="ben") == ["C-1"]
    assert numbers(desk, assignee="ben", all_statuses=True) == ["C-1", "C-4"]
    assert numbers(desk, assignee="nobody") == []


def test_a_line_names_customer_order_and_amount(shop: Shop, desk: Desk) -> None:
    large_refund(shop)
    [line] = desk.inbox()
    assert line.model_dump() == {
        "case": "C-1",
        "kind": "refund",
        "status": "awaiting_approval",
        "urgency": 0,
        "customer": "Ann",
        "order": "SO-1001",
        "amount": "267.00",
        "reason": "defective",
        "assignee": None,
        "since": shop.clock.now,
    }


def test_an_empty_inbox_has_no_lines(desk: Desk) -> None:
    assert desk.inbox() == []


def test_ten_thousand_cases_take_few_statements(shop: Shop, desk: Desk) -> None:
    large_refund(shop)
    add_cases(shop, *({"order_id": 1, "customer_id": 1, "session_id": "s"} for _ in range(10_000)))
    statements = []

    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(shop.database.engine, "before_cursor_execute", count)
    try:
        lines = desk.inbox()
    finally:
        event.remove(shop.database.engine, "before_cursor_execute", count)
    assert len(lines) == 10_001
    assert len(statements) <= MAX_STATEMENTS


def test_a_view_has_all_that_a_decision_needs(shop: Shop, desk: Desk) -> None:
    large_refund(shop)
    view = desk.show("C-1")
    assert (view.customer, view.contact, view.reason) == ("Ann", "ann@example.com", "defective")
    assert view.bought is not None
    assert view.bought.model_dump() == {
        "order": "SO-1001",
        "status": "delivered",
        "total": "267.00",
        "delivered_at": shop.clock.now - timedelta(days=1),
        "lines": ["3 × bluetooth-headphones (89.00)"],
    }
    assert view.policies["approval_over"] == "200.00"
    assert len(view.digest) == 12


def test_policies_are_those_of_the_flow_that_opens_the_claim(shop: Shop) -> None:
    """A shop may give the flow another name."""
    flow = shop.book.flows["after_sales"].model_copy(update={"flow": "claims"})
    flows = {name: each for name, each in shop.book.flows.items() if name != "after_sales"}
    book = replace(shop.book, flows=flows | {"claims": flow})
    large_refund(shop)
    desk = Desk(book, shop.database, shop.clock)
    assert desk.show("C-1").policies == flow.policies
    hand_over(shop)
    assert desk.show("C-2").policies == {}


def test_a_conversation_is_in_order_of_time(shop: Shop, desk: Desk) -> None:
    hear(shop, "hello")
    shop.clock.forward(minutes=1)
    number = hand_over(shop, "a human please")
    shop.clock.forward(minutes=1)
    desk.reply(BEN, number, "I am here.")
    shop.clock.forward(minutes=1)
    hear(shop, "Great! 太好了")
    assert said(desk.show(number)) == [
        ("customer", "hello"),
        ("shop", "Hello! I can help you with your account, orders, deliveries and returns."),
        ("customer", "a human please"),
        ("shop", "I have passed this to a colleague, who will contact you (case C-1)."),
        ("shop", "I am here."),
        ("customer", "Great! 太好了"),
    ]
    times = [each.at for each in desk.show(number).conversation]
    assert times == sorted(times)


def test_a_message_precedes_its_answer_at_the_same_time(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    assert [by for by, _ in said(desk.show(number))] == ["customer", "shop"]


def test_a_conversation_is_that_of_its_session(shop: Shop, desk: Desk) -> None:
    hear(shop, "not this", session="t")
    number = hand_over(shop)
    assert "not this" not in [text for _, text in said(desk.show(number))]


def test_messages_to_the_staff_are_no_part_of_a_conversation(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.assign(BEN, number)
    hear(shop, "hello?")
    conversation = [text for _, text in said(desk.show(number))]
    assert conversation.count("hello?") == 1
    assert not any("writes" in text for text in conversation)


def add_messages(shop: Shop, count: int) -> list[str]:
    """Add questions and answers, and return the texts in order."""
    times = [shop.clock.now + timedelta(minutes=number) for number in range(count)]
    common = {"session_id": "s", "language": "en"}
    with shop.database.transaction() as db:
        db.execute(
            insert(ReceivedMessage),
            [
                common | {"key": f"k{n}", "text": f"question {n}", "created_at": time}
                for n, time in enumerate(times)
            ],
        )
        db.execute(
            insert(OutboxMessage),
            [
                common
                | {"key": f"k{n}", "flow": "order", "text": f"answer {n}", "created_at": time}
                for n, time in enumerate(times)
            ],
        )
    return [f"{word} {number}" for number in range(count) for word in ("question", "answer")]


@pytest.mark.parametrize("last", [1, 7, 50, 119, 120, 500])
def test_the_latest_messages_of_a_long_conversation_are_shown(
    shop: Shop, desk: Desk, last: int
) -> None:
    number = hand_over(shop)
    shop.clock.forward(minutes=1)
    every = [text for _, text in said(desk.show(number))] + add_messages(shop, 59)
    assert len(every) == 120
    view = desk.show(number, last)
    assert [text for _, text in said(view)] == every[-last:]
    assert view.earlier_messages == max(120 - last, 0)
    whole = desk.show(number, None)
    assert ([text for _, text in said(whole)], whole.earlier_messages) == (every, 0)


def test_fifty_messages_are_shown_unless_others_are_asked_for(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    shop.clock.forward(minutes=1)
    every = add_messages(shop, 400)
    view = desk.show(number)
    assert [text for _, text in said(view)] == every[-50:]
    assert view.earlier_messages == 752


def test_only_what_is_shown_is_read(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    add_messages(shop, 400)
    read: list[object] = []

    def note(row: object, _: object) -> None:
        read.append(row)

    for table in (ReceivedMessage, OutboxMessage):
        event.listen(table, "load", note)
    try:
        desk.show(number, 10)
    finally:
        for table in (ReceivedMessage, OutboxMessage):
            event.remove(table, "load", note)
    assert len(read) == 20


def test_the_latest_changes_are_shown(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.assign(BEN, number)
    for count in range(60):
        hear(shop, f"message {count}")
    view = desk.show(number)
    assert [each.text for each in view.history] == [f"message {n}" for n in range(10, 60)]
    assert view.earlier_changes == 12
    assert [each.change for each in desk.show(number, None).history][:2] == ["opened", "assigned"]


def test_a_case_without_a_session_has_no_conversation(shop: Shop, desk: Desk) -> None:
    add_cases(shop, {"session_id": None})
    view = desk.show("C-1")
    assert (view.conversation, view.customer, view.bought) == ([], None, None)


@pytest.mark.parametrize("sent", [CODE, "123 456", "123-456", "my code is 123456!"])
def test_nobody_sees_a_verification_code(shop: Shop, desk: Desk, sent: str) -> None:
    """The code is for the owner of the contact alone."""
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    number = hand_over(shop, f"{sent} does not work, a human please")
    desk.assign(BEN, number)
    hear(shop, f"once more: {sent}")
    shop.act("s", "escalate", message=sent, code=CODE)
    with shop.database.transaction() as db:
        db.get_one(Case, 1).proposal = {"action": "verify", "arguments": {"code": CODE}}
    view = desk.show(number)
    page = view.model_dump_json() + str(texts(shop, Audience.STAFF))
    assert "123" not in page.replace(view.digest, "")
    conversation = [text for _, text in said(view)]
    assert any("Your verification code is [code]; it is valid" in text for text in conversation)
    assert any("once more: " in text and "[code]" in text for text in conversation)
    assert view.proposal == {"action": "verify", "arguments": {"code": "[code]"}}
    # The customer's own message arrives whole.
    assert any(CODE in each.text for each in shop.rows(OutboxMessage))


def test_other_numbers_of_six_digits_are_shown(shop: Shop, desk: Desk) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    number = hand_over(shop, "postcode 200040, and order 1234567")
    assert desk.show(number).note == "postcode 200040, and order 1234567"


def test_a_proposal_is_what_the_model_chose(shop: Shop, desk: Desk) -> None:
    shop.act("s", "escalate", message="get me a human", confidence=0.87654)
    assert desk.show("C-1").proposal == {
        "action": "escalate",
        "arguments": {},
        "confidence": 0.877,
        "call": "t0",
    }


def test_a_proposal_survives_a_second_doubt(shop: Shop, desk: Desk) -> None:
    shop.log_in("s")
    order = shop.order(delivered_days_ago=1)
    wish: dict[str, Any] = {"order": order, "reason": "late"}
    for expected in ("confirmation", None):
        step = shop.act("s", "request_refund", message="hm, money?", confidence=0.31, **wish)
        assert step.report.asked == expected
    # The doubtful claims were undone; on PostgreSQL they have used up numbers.
    view = desk.show(shop.rows(Case)[-1].number)
    assert view.kind is CaseKind.HAND_OVER
    assert view.proposal is not None
    assert view.proposal.pop("call").startswith("t")
    assert view.proposal == {"action": "request_refund", "arguments": wish, "confidence": 0.31}
    assert view.note == "hm, money?"


@pytest.mark.parametrize("text", ["C-7", "c-7", "7", " C-7 ", "\tC-7\n"])
def test_a_case_number_is_read(text: str) -> None:
    assert parse_case_number(text) == 7


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "C-", "C-0", "0", "07", "C-07", "-7", "+7", "C--7", "C - 7", "C-7x", "7.0"),
        *("SO-1001", "C-٧", "７", "C-1２", "Ⅶ", "1" * 31, "C-" + "9" * 10**6, "7\n8", "\x00"),
    ],
)
def test_what_is_no_case_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^case is .*, must be a number such as C-7$") as caught:
        parse_case_number(text)
    assert len(str(caught.value)) < 140
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["C-7", "999999999"])
def test_a_case_that_is_not_there_is_named(desk: Desk, text: str) -> None:
    with pytest.raises(InputError, match=f"^there is no case C-{text.removeprefix('C-')}$"):
        desk.show(text)


def test_showing_a_case_changes_nothing(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    change(shop, number, urgency=2)
    before = [shop.rows(table) for table in (Case, CustomerSession, ReceivedMessage)]
    assert desk.show(number) == desk.show(number)
    after = [shop.rows(table) for table in (Case, CustomerSession, ReceivedMessage)]
    assert [len(rows) for rows in after] == [len(rows) for rows in before]
