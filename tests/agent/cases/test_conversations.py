"""Conversations that people take: assignments, replies, and the agent's silence."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.desk import (
    BEN,
    EVA,
    HAL,
    changes,
    hand_over,
    hear,
    large_refund,
    texts,
)
from tests.support.shop import Shop
from tests.support.turns import snapshot

from gpt2flow.agent.cases.decisions import DecisionError, Desk
from gpt2flow.agent.cases.people import NotAllowedError
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import (
    Audience,
    CaseStatus,
    CustomerSession,
    ReceivedMessage,
)


def test_a_conversation_of_somebody_else_is_not_closed(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.assign(EVA, number)
    with pytest.raises(NotAllowedError):
        desk.close(BEN, number)


def test_an_assignment_is_recorded_once(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    for _ in range(2):
        assert desk.assign(HAL, number).assignee == "hal"
    view = desk.assign(HAL, number, to=" eva ")
    assert view.assignee == "eva"
    assert changes(shop) == [("agent", "opened"), ("hal", "assigned"), ("hal", "assigned")]
    assert [event.details for event in view.history[1:]] == [{"to": "hal"}, {"to": "eva"}]
    # The customer of a claim waits for a decision, whoever makes it.
    assert texts(shop) == []


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb", "\u202e", "\x07"])
def test_a_case_is_assigned_to_a_printable_name(shop: Shop, desk: Desk, name: str) -> None:
    number = large_refund(shop)
    with pytest.raises(InputError, match=r"^assignee is .*, must be 1 to 64 printable characters$"):
        desk.assign(BEN, number, to=name)
    assert desk.show(number).assignee is None


@pytest.mark.parametrize("to", [None, "agent"])
def test_a_case_outside_of_the_inbox_is_not_assigned(
    shop: Shop, desk: Desk, to: str | None
) -> None:
    number = hand_over(shop)
    desk.close(BEN, number)
    with pytest.raises(DecisionError, match=r"^case C-1 is closed, so nobody can take it$"):
        desk.assign(BEN, number, to=to)


def test_only_a_conversation_goes_back_to_the_agent(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    with pytest.raises(DecisionError, match=r"^case C-1 is a refund; only a hand_over goes back"):
        desk.assign(BEN, number, to="agent")


def test_who_takes_a_conversation_is_introduced(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.assign(BEN, number)
    desk.assign(BEN, number, to="eva")
    assert texts(shop) == [
        "ben from our team is with you from here on (case C-1).",
        "eva from our team is with you from here on (case C-1).",
    ]
    [session] = shop.rows(CustomerSession)
    assert session.attended_by == "eva"


def test_a_reply_takes_the_case_and_silences_the_agent(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    view = desk.reply(HAL, number, "Hello, I am Hal.")
    assert (view.assignee, view.status) == ("hal", CaseStatus.OPEN)
    assert changes(shop)[1:] == [("hal", "assigned"), ("hal", "replied")]
    assert view.history[-1].text == "Hello, I am Hal."
    # The reply introduces who writes it.
    assert texts(shop) == ["Hello, I am Hal."]
    report, model = hear(shop, "thank you")
    assert (report.attended_by, model.prompts) == ("hal", [])


def test_a_reply_to_a_closed_case_is_refused(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.close(BEN, number)
    before = snapshot(shop)
    with pytest.raises(DecisionError, match=r"^case C-1 is closed$"):
        desk.reply(BEN, number, "Hello?")
    assert snapshot(shop) == before


def test_a_reply_after_a_decision_leaves_it(shop: Shop, desk: Desk) -> None:
    number = large_refund(shop)
    desk.reject(BEN, number, "No.", seen=desk.show(number).digest)
    view = desk.reply(HAL, number, "You may send it in for repair.")
    assert (view.status, view.assignee) == (CaseStatus.REJECTED, "ben")
    assert texts(shop)[-1] == "You may send it in for repair."


def test_a_message_to_a_person_is_passed_on(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.assign(BEN, number)
    report, model = hear(shop, "where is my parcel?")
    assert (report.attended_by, report.messages, report.actions) == ("ben", [], [])
    assert (model.prompts, report.calls) == ([], [])
    event = desk.show(number).history[-1]
    assert (event.actor, event.change, event.text) == ("customer", "written", "where is my parcel?")
    assert texts(shop, Audience.STAFF) == ["The customer of case C-1 writes: where is my parcel?"]


def test_a_message_that_arrives_twice_is_passed_on_once(shop: Shop, desk: Desk) -> None:
    desk.assign(BEN, hand_over(shop))
    for _ in range(2):
        shop.executor.begin_turn("m1", "s", "hello?")
    assert len(texts(shop, Audience.STAFF)) == 1
    assert [each.text for each in shop.rows(ReceivedMessage)].count("hello?") == 1


def test_another_session_of_the_customer_goes_on(shop: Shop, desk: Desk) -> None:
    shop.log_in("s")
    desk.assign(BEN, hand_over(shop))
    report, _ = hear(shop, "hello", session="t")
    assert (report.attended_by, report.actions[0].outcome) == (None, "greeted")


@pytest.mark.parametrize(
    "end",
    [
        lambda desk, number: desk.close(BEN, number),
        lambda desk, number: desk.assign(BEN, number, to="agent"),
    ],
)
def test_the_agent_answers_again_after_a_person(
    shop: Shop, desk: Desk, end: Callable[[Desk, str], object]
) -> None:
    number = hand_over(shop)
    desk.assign(BEN, number)
    end(desk, number)
    assert desk.show(number).status is CaseStatus.CLOSED
    assert changes(shop)[-1] in {("ben", "closed"), ("ben", "returned")}
    report, _ = hear(shop, "hello")
    assert (report.attended_by, report.actions[0].outcome) == (None, "greeted")
    assert texts(shop, Audience.STAFF) == []


def test_a_decision_on_a_claim_leaves_the_conversation_with_its_person(
    shop: Shop, desk: Desk
) -> None:
    claim = large_refund(shop)
    desk.assign(HAL, hand_over(shop))
    desk.approve(BEN, claim, seen=desk.show(claim).digest)
    desk.close(BEN, claim)
    assert hear(shop, "hello")[0].attended_by == "hal"


def test_a_conversation_with_two_people_stays_with_the_other(shop: Shop, desk: Desk) -> None:
    """Another customer of the same device has a case of their own."""
    shop.log_in("s")
    first = hand_over(shop)
    shop.act("s", "log_out")
    shop.log_in("s", "bob@example.com", "Bob")
    second = hand_over(shop)
    assert first != second
    desk.assign(BEN, first)
    desk.assign(EVA, second)
    assert hear(shop, "hello")[0].attended_by == "eva"
    assert texts(shop, Audience.STAFF) == ["The customer of case C-2 writes: hello"]
    desk.close(EVA, second)
    assert hear(shop, "hello")[0].attended_by == "ben"
    desk.close(BEN, first)
    assert hear(shop, "hello")[0].attended_by is None


@pytest.mark.parametrize("text", ["", " \n\t ", "\r\n"])
def test_an_empty_text_is_refused(shop: Shop, desk: Desk, text: str) -> None:
    number = hand_over(shop)
    with pytest.raises(InputError, match=r"^the text is empty$"):
        desk.reply(BEN, number, text)
    with pytest.raises(InputError, match=r"^the note is empty$"):
        desk.close(BEN, number, text)


def test_a_text_has_at_most_2000_characters(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.reply(BEN, number, "界" * 2000)
    with pytest.raises(InputError, match=r"^text too long: 2,001 characters, limit 2,000$"):
        desk.reply(BEN, number, "界" * 2001)
    with pytest.raises(InputError, match=r"^note too long: 2,001 characters, limit 2,000$"):
        desk.close(BEN, number, "x" * 2001)


def test_a_text_may_have_lines(shop: Shop, desk: Desk) -> None:
    number = hand_over(shop)
    desk.reply(BEN, number, "Dear Ann,\r\nit is on its way 👩‍🚀\nBen")
    assert texts(shop) == ["Dear Ann,\nit is on its way 👩‍🚀\nBen"]


def test_messages_and_assignments_at_once_do_not_block_each_other(shop: Shop, desk: Desk) -> None:
    """Both change the session and the case."""
    number, count = hand_over(shop), 24
    desk.assign(BEN, number)

    def act(turn: int) -> None:
        if turn % 2:
            shop.executor.begin_turn(f"turn-{turn}", "s", f"message {turn}")
        else:
            desk.assign(BEN, number, to=f"person-{turn}")

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(act, range(count))) == [None] * count
    assert len(texts(shop)) == 1 + count // 2
    assert len(texts(shop, Audience.STAFF)) == count // 2
