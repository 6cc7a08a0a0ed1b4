"""Small talk, clarification and escalation."""

from tests.support.shop import Shop

from gpt2flow.agent.shop import Case, CaseKind, CaseStatus


def test_members_are_greeted_by_name_in_their_language(shop: Shop) -> None:
    assert shop.act("s", "greet").report.messages[0].text.startswith("Hello! ")
    shop.log_in("s")
    assert shop.act("s", "greet").report.messages[0].text.startswith("Hello, Ann! ")
    step = shop.act("s", "greet", message="你好")
    assert step.report.messages[0].text.startswith("您好, Ann! ")


def test_second_clarification_in_a_row_goes_to_a_person(shop: Shop) -> None:
    assert shop.act("s", "clarify").report.outcome == "asked_again"
    step = shop.act("s", "clarify", message="blah blah")
    assert step.report.outcome == "handed_over"
    (case,) = shop.rows(Case)
    assert (case.kind, case.status, case.note) == (
        CaseKind.HAND_OVER,
        CaseStatus.OPEN,
        "blah blah",
    )
    assert shop.act("s", "clarify").report.outcome == "asked_again"


def test_understood_message_resets_the_clarification_count(shop: Shop) -> None:
    outcomes = [
        shop.act("s", action).report.outcome for action in ("clarify", "view_cart", "clarify")
    ]
    assert outcomes == ["asked_again", "empty", "asked_again"]


def test_escalation_hands_over_with_the_message(shop: Shop) -> None:
    shop.log_in("s")
    step = shop.act("s", "escalate", message="let me talk to a human")
    assert step.report.outcome == "handed_over"
    (case,) = shop.rows(Case)
    assert (case.session_id, case.customer_id, case.note) == ("s", 1, "let me talk to a human")


def test_message_without_words_keeps_the_language(shop: Shop) -> None:
    shop.act("s", "greet", message="你好")
    for message in ("1042", "SO-1042", "wang@example.com", "13800138000"):
        assert shop.state("s", message).language == "zh"
    assert shop.state("s", "ok").language == "en"
