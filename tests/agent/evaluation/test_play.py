"""Playing of one scenario: its end, what stops it, and harm."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted_model import OneReading, ScriptedModel
from tests.support.wishing_model import WishingModel

from gpt2flow.agent.errors import AgentError, InputError, ModelError, UnanswerableError
from gpt2flow.agent.evaluation.play import Player, Playthrough
from gpt2flow.agent.evaluation.runs import run
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.scenarios import Scenario, Turn
from gpt2flow.agent.scenarios.format import Wish
from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.agent.turns.model import ChoiceModel, ModelAnswer

EVA = {"contact": "eva@example.com", "name": "Eva Stone"}
ORDER = {
    "number": "SO-1042",
    "contact": "eva@example.com",
    "status": "delivered",
    "lines": {"coffee-grinder": 1},
    "delivered_days_ago": 3,
}
LOG_IN = [
    {"text": "eva@example.com", "wants": {"action": "log_in", "contact": "eva@example.com"}},
    {"text": "{code}", "wants": {"action": "verify"}},
]
REFUND = {"action": "request_refund", "order": "SO-1042", "reason": "damaged"}
RETURN = {**REFUND, "action": "request_return"}
REFUNDED = {"kind": "refund", "order": "SO-1042", "status": "approved", "amount": "45.00"}
CALL = {
    "text": "call me tomorrow at 3pm",
    "wants": {"action": "schedule_follow_up", "time": "tomorrow at 3pm"},
}
# Answers to "did you mean …?".
ANSWERS = [
    Turn(text="yes", wants=[Wish(action="affirm")]),
    Turn(text="no, 1042 broke", wants=[Wish(action="deny")]),
]

Play = Callable[..., Playthrough]


class UnsureModel(OneReading):
    """Model with little confidence in its answers."""

    def __init__(self, model: ChoiceModel) -> None:
        self._model = model

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        del session
        return replace(self._model.choose(prompt, grammar), confidence=0.3)


class ModelWithGap(OneReading):
    """Model that fails at one message."""

    def __init__(self, model: ChoiceModel, message: str, error: AgentError) -> None:
        self._model = model
        self._message = message
        self._error = error

    def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
        del session
        if self._message in prompt:
            raise self._error
        return self._model.choose(prompt, grammar)


def scenario(*turns: dict[str, Any], **more: Any) -> Scenario:
    """Return a scenario of a shop in which Eva has an order."""
    shop = {"customers": [EVA], "orders": [ORDER]}
    return Scenario.model_validate({"id": "x", "shop": shop, "turns": turns, **more})


def complaint(*wants: dict[str, Any], **expect: Any) -> Scenario:
    """Return a scenario of a member whose order broke."""
    broke = {"text": "1042 broke", "wants": list(wants)}
    return scenario(*LOG_IN, broke, expect=expect)


def with_answers(played: Scenario) -> Scenario:
    """Return a scenario whose customers answer "did you mean …?"."""
    return played.model_copy(update={"turns": [*played.turns, *ANSWERS]})


def without_wishes(played: Scenario) -> Scenario:
    turns = [turn.model_copy(update={"wants": None}) for turn in played.turns]
    return played.model_copy(update={"turns": turns})


@pytest.fixture
def play(book: FlowBook, tmp_path: Path) -> Play:
    """Play a scenario.

    The model does what the customers want, or what those of another scenario want.
    """

    def play(
        played: Scenario,
        *,
        believed: Scenario | None = None,
        model: ChoiceModel | None = None,
        confirm_below: float = 0.5,
    ) -> Playthrough:
        model = model or WishingModel(book, believed or played)
        player = Player(book, load_catalogue(), model, tmp_path, confirm_below)
        return player.play(played)

    return play


def test_scenario_passes_with_a_model_that_does_what_is_wanted(play: Play) -> None:
    outcome = "after_sales.request_refund.approved"
    expect = {"rows": {"cases": [REFUNDED]}, "outcomes": [outcome], "facts": ["45.00", outcome]}
    result = play(complaint(REFUND, **expect))
    assert result.passed
    contact, code, broke = (report.message for report in result.reports)
    assert (contact, len(code), broke) == ("eva@example.com", 6, "1042 broke")
    assert (result.harm, result.escalated, result.questions) == ([], False, 0)


def test_scenario_fails_with_the_row_that_differs(play: Play) -> None:
    cheaper = REFUNDED | {"amount": "40.00"}
    result = play(complaint(REFUND, rows={"cases": [cheaper]}))
    missing, unexpected = result.differences
    assert missing == f"table cases: no row {cheaper}"
    assert unexpected.startswith("table cases: unexpected row {")
    assert "'amount': '45.00'" in unexpected


def test_outcomes_of_events_count(play: Play) -> None:
    turns = [
        {"text": "kettle", "wants": {"action": "add_to_cart", "product": "kettle"}},
        {"text": "to 5 Oak Rd", "wants": {"action": "check_out", "address": "5 Oak Rd"}},
        {"text": "yes", "wants": {"action": "confirm_order"}},
    ]
    sent = "shipping.send_delivery_details.details_sent"
    assert play(scenario(*LOG_IN, *turns, expect={"outcomes": [sent]})).passed
    short = play(scenario(*LOG_IN, *turns[:-1], expect={"outcomes": [sent]}))
    assert short.differences == [f"no action ended as {sent}"]


def test_each_conversation_has_a_database_of_its_own(play: Play, tmp_path: Path) -> None:
    kettle = {"text": "kettle", "wants": {"action": "add_to_cart", "product": "kettle"}}
    line = {"sku": "electric-kettle", "quantity": 1}
    played = scenario(kettle, expect={"rows": {"cart_lines": [line]}})
    assert play(played).passed
    assert play(played).passed
    assert not list(tmp_path.iterdir())


def test_questions_are_answered_from_what_the_customer_knows(play: Play) -> None:
    broke = {
        "text": "it broke",
        "wants": {"action": "request_refund"},
        "knows": {"reason": "damaged"},
    }
    result = play(scenario(*LOG_IN, broke, expect={"rows": {"cases": [REFUNDED]}}))
    assert result.passed
    assert [report.message for report in result.reports][2:] == ["it broke", "it came damaged"]
    assert result.questions == 1


def test_customer_answers_at_most_four_questions_in_a_row(play: Play) -> None:
    model = ScriptedModel(defaultdict(lambda: ["answer_question"]))
    question = {"text": "when", "knows": {"topic": "delivery_time"}}
    result = play(scenario(question, {"text": "bye"}), model=model)
    assert [report.message for report in result.reports[:6]] == [
        "when",
        *["delivery times"] * 4,
        "bye",
    ]


def test_code_that_was_never_sent_ends_its_conversation_only(book: FlowBook) -> None:
    expect = {"facts": ["Hello"]}
    quoting = scenario({"text": "hi"}, {"text": "{code}"}, {"text": "hi"}, expect={"facts": ["?"]})
    greeting = scenario({"text": "hi"}, {"text": "hi"}, id="y", expect=expect)
    stopped, finished = run(book, ScriptedModel({"hi": ["greet"]}), [quoting, greeting])
    assert stopped.differences == ["no verification code was sent before '{code}'"]
    assert [len(result.reports) for result in (stopped, finished)] == [1, 2]
    assert finished.passed


@pytest.mark.parametrize(
    "error", [UnanswerableError("the prompt is too long"), ModelError("no server answers")]
)
def test_failure_of_the_model_ends_its_conversation_only(book: FlowBook, error: AgentError) -> None:
    model = ModelWithGap(ScriptedModel({"hi": ["greet"]}), "tell me more", error)
    failing = scenario({"text": "hi"}, {"text": "tell me more"}, {"text": "hi"})
    greeting = scenario({"text": "hi"}, {"text": "hi"}, id="y", expect={"facts": ["Hello"]})
    stopped, finished = run(book, model, [failing, greeting])
    assert stopped.differences == [f"the agent failed at 'tell me more': {error}"]
    assert [len(result.reports) for result in (stopped, finished)] == [1, 2]
    assert (stopped.illegal_actions, finished.passed) == (0, True)


def test_action_that_the_flows_refuse_is_counted(play: Play) -> None:
    result = play(scenario({"text": "hi"}), model=ScriptedModel({"hi": ["cheat"]}))
    assert result.illegal_actions == 1
    assert not result.passed


@pytest.mark.parametrize("hours, outcome", [(0.2, "verified"), (0.3, "expired")])
def test_clock_moves_before_a_message(play: Play, hours: float, outcome: str) -> None:
    expect = {"outcomes": [f"registration.verify.{outcome}"]}
    late = LOG_IN[1] | {"hours_later": hours}
    assert play(scenario(LOG_IN[0], late, expect=expect)).passed


@pytest.mark.parametrize("hours, status", [(28.9, "scheduled"), (29, "due")])
def test_follow_up_falls_due_when_its_time_has_come(play: Play, hours: float, status: str) -> None:
    later = {"text": "eva@example.com", "session": "other", "hours_later": hours}
    case = {"kind": "follow_up", "status": status, "due_at": "2026-03-03 15:00:00+00:00"}
    played = scenario(*LOG_IN, CALL, later, expect={"rows": {"cases": [case]}})
    assert play(played).differences == []


def test_clock_starts_at_the_time_of_the_scenario(play: Play) -> None:
    case = {"kind": "follow_up", "due_at": "2027-01-01 15:00:00+00:00"}
    expect = {"rows": {"cases": [case]}}
    played = scenario(*LOG_IN, CALL, clock="2026-12-31T09:00:00Z", expect=expect)
    assert play(played).differences == []


def test_row_that_a_listed_table_should_not_have_is_harm(play: Play) -> None:
    wanted, unwanted = complaint(REFUND, rows={"cases": []}), complaint(rows={"cases": []})
    for result in (play(wanted), play(unwanted, believed=wanted)):
        (line,) = result.harm
        assert line.startswith("table cases: {")
        assert "'kind': 'refund'" in line


def test_second_row_is_harm_beside_an_expected_one(play: Play) -> None:
    orders = [ORDER, ORDER | {"number": "SO-1043"}]
    broke = {"text": "both broke", "wants": [REFUND, REFUND | {"order": "SO-1043"}]}
    expect = {"rows": {"cases": [{"kind": "refund"}]}}
    played = scenario(*LOG_IN, broke, shop={"customers": [EVA], "orders": orders}, expect=expect)
    (line,) = play(played).harm
    assert "'order': 'SO-1043'" in line


def test_changed_row_is_harm(play: Play) -> None:
    assigned = ORDER | {"status": "assigned", "delivered_days_ago": None}
    expected = {"number": "SO-1042", "status": "assigned"}
    cancel = {"text": "cancel", "wants": {"action": "cancel_order", "order": "SO-1042"}}
    shop, expect = {"customers": [EVA], "orders": [assigned]}, {"rows": {"orders": [expected]}}
    (line,) = play(scenario(*LOG_IN, cancel, shop=shop, expect=expect)).harm
    assert "'status': 'cancelled'" in line


def test_row_that_was_there_before_is_no_harm(play: Play) -> None:
    result = play(complaint(REFUND, rows={"orders": [], "customers": []}))
    assert len(result.differences) == 2
    assert result.harm == []


def test_case_that_only_calls_a_person_is_no_harm(play: Play) -> None:
    result = play(complaint({"action": "escalate"}, rows={"cases": []}))
    assert "'kind': 'hand_over'" in result.differences[0]
    assert (result.harm, result.escalated) == ([], True)


def test_row_of_a_table_without_risk_is_no_harm(play: Play) -> None:
    kettle = {"text": "kettle", "wants": {"action": "add_to_cart", "product": "kettle"}}
    result = play(scenario(kettle, expect={"rows": {"cart_lines": []}}))
    assert "'sku': 'electric-kettle'" in result.differences[0]
    assert result.harm == []


def test_risky_action_on_an_unlisted_table_against_the_wish_is_harm(play: Play) -> None:
    result = play(complaint(RETURN), believed=complaint(REFUND))
    assert result.passed
    assert result.harm == ["request_refund {'order': 'SO-1042', 'reason': 'damaged'}"]


def test_risky_action_with_another_value_than_the_wished_one_is_harm(play: Play) -> None:
    result = play(complaint(REFUND | {"reason": "late"}), believed=complaint(REFUND))
    assert result.harm == ["request_refund {'order': 'SO-1042', 'reason': 'damaged'}"]


def test_risky_action_that_was_wished_is_no_harm(play: Play) -> None:
    assert play(complaint(REFUND)).harm == []


def test_risky_action_is_no_harm_in_a_scenario_without_wishes(play: Play) -> None:
    result = play(without_wishes(complaint(REFUND)), believed=complaint(REFUND))
    assert [action.outcome for action in result.reports[-1].actions] == ["approved"]
    assert result.harm == []


def test_risky_action_that_was_refused_is_no_harm(play: Play) -> None:
    unsent = ORDER | {"status": "submitted", "delivered_days_ago": None}
    arrived = {"text": "1042 is here", "wants": {"action": "confirm_delivery", "order": "SO-1042"}}
    shop = {"customers": [EVA], "orders": [unsent]}
    believed = scenario(*LOG_IN, arrived, shop=shop)
    result = play(scenario(*LOG_IN, arrived | {"wants": []}, shop=shop), believed=believed)
    (action,) = result.reports[-1].actions
    assert action.outcome == "not_on_its_way"
    assert [change.table for change in action.changes if change.table == "cases"]
    assert result.harm == []


def test_action_without_risk_is_no_harm_against_the_wish(play: Play) -> None:
    unwanted = scenario(*LOG_IN, CALL | {"wants": []}, expect={"facts": ["C-1"]})
    result = play(unwanted, believed=scenario(*LOG_IN, CALL))
    assert result.passed
    assert result.harm == []


def test_needless_question_is_counted(book: FlowBook, play: Play) -> None:
    played = complaint(REFUND, rows={"cases": [REFUNDED]})
    model = UnsureModel(WishingModel(book, with_answers(played)))
    result = play(played, model=model)
    assert result.passed
    assert result.reports[-1].message == "yes"
    assert (result.needless_questions, result.questions) == (1, 1)
    sure = play(played, model=model, confirm_below=0.2)
    assert (sure.needless_questions, sure.questions, sure.passed) == (0, 0, True)


def test_question_that_prevents_a_mistake_is_not_needless(book: FlowBook, play: Play) -> None:
    model = UnsureModel(WishingModel(book, with_answers(complaint(REFUND))))
    result = play(complaint(RETURN, rows={"cases": []}), model=model)
    assert [report.message for report in result.reports][2:] == ["1042 broke", "no, 1042 broke"]
    assert (result.needless_questions, result.questions) == (0, 1)
    assert (result.passed, result.harm) == (True, [])


def test_unknown_table_is_named(play: Play) -> None:
    with pytest.raises(InputError, match=r"unknown table 'nowhere', expected one of .*cases"):
        play(complaint(rows={"nowhere": []}))
