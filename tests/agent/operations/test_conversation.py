"""Small talk, and what goes to a person."""

from typing import TYPE_CHECKING

from gpt2flow.agent.shop import Case, CaseKind, CaseStatus

if TYPE_CHECKING:
    from tests.agent.conftest import Desk


def test_members_are_greeted_by_name_in_their_language(desk: "Desk") -> None:
    assert desk.act("s", "greet").report.messages[0].text.startswith("Hello! ")
    desk.log_in("s")
    assert desk.act("s", "greet").report.messages[0].text.startswith("Hello, Ann! ")
    step = desk.act("s", "greet", message="你好")
    assert step.report.messages[0].text.startswith("您好, Ann! ")


def test_second_clarification_in_a_row_goes_to_a_person(desk: "Desk") -> None:
    assert desk.act("s", "clarify").report.outcome == "asked_again"
    step = desk.act("s", "clarify", message="blah blah")
    assert step.report.outcome == "handed_over"
    (case,) = desk.rows(Case)
    assert (case.kind, case.status, case.note) == (
        CaseKind.HAND_OVER,
        CaseStatus.OPEN,
        "blah blah",
    )
    assert desk.act("s", "clarify").report.outcome == "asked_again"


def test_understanding_in_between_starts_counting_anew(desk: "Desk") -> None:
    outcomes = [
        desk.act("s", action).report.outcome for action in ("clarify", "view_cart", "clarify")
    ]
    assert outcomes == ["asked_again", "empty", "asked_again"]


def test_escalation_hands_over_with_the_message(desk: "Desk") -> None:
    desk.log_in("s")
    step = desk.act("s", "escalate", message="let me talk to a human")
    assert step.report.outcome == "handed_over"
    (case,) = desk.rows(Case)
    assert (case.session_id, case.customer_id, case.note) == ("s", 1, "let me talk to a human")


def test_message_without_words_keeps_the_language(desk: "Desk") -> None:
    desk.act("s", "greet", message="你好")
    for message in ("1042", "SO-1042", "wang@example.com", "13800138000"):
        assert desk.executor.opening("s", message).language == "zh"
    assert desk.executor.opening("s", "ok").language == "en"
