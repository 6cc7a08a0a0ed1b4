"""Figures of an evaluation, and the files that it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.evaluation.play import Playthrough
from gpt2flow.agent.evaluation.report_files import write_html, write_junit
from gpt2flow.agent.evaluation.summary import interval, summary, transcript
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.report import ActionReport, CallReport, EventReport, MessageSent, TurnReport
from gpt2flow.agent.scenarios import Scenario

ADD = ActionReport(
    action="add_to_cart",
    arguments={},
    used={"product": "kettle"},
    result="ok",
    outcome="added",
    messages=[MessageSent(to=None, language="en", text="Added 1 × kettle.")],
)
ASK = ActionReport(action="check_out", arguments={}, used={}, result="asked", asked="address")
HAND_OVER = ActionReport(
    action="escalate", arguments={}, used={}, result="ok", outcome="handed_over"
)
SHIP = ActionReport(
    action="assign_courier",
    arguments={},
    used={"order": "SO-1001"},
    result="ok",
    outcome="courier_assigned",
)


def turn(
    *actions: ActionReport,
    message: str = "hi",
    events: list[EventReport] | None = None,
    calls: tuple[float, ...] = (),
) -> TurnReport:
    """Return a turn of half a second."""
    return TurnReport(
        session="customer",
        message_id="1",
        message=message,
        language="en",
        actions=list(actions),
        events=events or [],
        calls=[CallReport(milliseconds=t, prompt_tokens=1, completion_tokens=1) for t in calls],
        milliseconds=500,
    )


def played(
    name: str, *reports: TurnReport, repeat: int = 0, passed: bool = True, **more: Any
) -> Playthrough:
    """Return the result of a scenario, with more of its own fields."""
    fields = {field: more.pop(field) for field in ("workflow", "language", "kind") if field in more}
    turns = [{"text": "hi"}]
    scenario = Scenario.model_validate({"id": name, "title": "Tea", "turns": turns, **fields})
    differences = [] if passed else ["table cases: no row {}"]
    return Playthrough(scenario, repeat, list(reports), differences, **more)


def repeated(name: str, passed: list[bool], **more: Any) -> list[Playthrough]:
    return [played(name, repeat=n, passed=each, **more) for n, each in enumerate(passed)]


def html(path: Path, results: list[Playthrough], book: FlowBook) -> None:
    write_html(path, summary(book, results, 1), results)


def junit(path: Path, results: list[Playthrough], book: FlowBook) -> None:
    del book
    write_junit(path, results)


@pytest.mark.parametrize(
    "successes, count, low, high",
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (8, 10, 0.4902, 0.9433),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_interval_is_that_of_wilson(successes: int, count: int, low: float, high: float) -> None:
    found = interval(successes, count)
    assert found["rate"] == successes / count
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=5e-5)


def test_interval_of_nothing_excludes_nothing() -> None:
    assert interval(0, 0) == {"rate": 0.0, "low": 0.0, "high": 1.0}


def test_repeats_of_a_scenario_count_as_one_trial(book: FlowBook) -> None:
    results = [
        *repeated("a", [True, True, True, True]),
        *repeated("b", [True, True, True, False]),
        *repeated("c", [False, False, False, False]),
    ]
    figures = summary(book, results, 4)
    assert (figures["scenarios"], figures["repeats"]) == (3, 4)
    assert figures["pass^1"] == interval(1.75, 3)
    assert figures["pass^4"] == interval(1, 3)
    assert figures["pass^4"]["low"] < 1 / 3 < figures["pass^4"]["high"]


def test_without_repeats_there_is_one_rate(book: FlowBook) -> None:
    figures = summary(book, [played("a"), played("b", passed=False)], 1)
    assert [name for name in figures if name.startswith("pass")] == ["pass^1"]
    assert figures["pass^1"] == interval(1, 2)


def test_passes_are_grouped_by_the_fields_that_scenarios_have(book: FlowBook) -> None:
    results = [
        *repeated("a", [True, True], workflow="order", language="en", kind="plain"),
        *repeated("b", [True, False], workflow="order", language="zh", kind="messy"),
        *repeated("c", [False, False], language="zh"),
    ]
    figures = summary(book, results, 2)
    assert figures["by_workflow"] == {
        "order": {"scenarios": 2, "pass^1": interval(1.5, 2), "pass^2": interval(1, 2)}
    }
    assert {name: each["pass^1"]["rate"] for name, each in figures["by_language"].items()} == {
        "en": 1.0,
        "zh": 0.25,
    }
    assert {name: each["scenarios"] for name, each in figures["by_kind"].items()} == {
        "messy": 1,
        "plain": 1,
    }


def test_questions_and_hand_overs_are_shares(book: FlowBook) -> None:
    results = [
        played("a", turn(ADD), turn(ASK), turn(ADD), needless_questions=1),
        played("b", turn(ASK, HAND_OVER), illegal_actions=2, passed=False),
    ]
    figures = summary(book, results, 1)
    assert figures["questions"] == 1.0
    assert figures["needless_questions"] == 1 / 4
    assert figures["illegal_action_rate"] == 2 / 4
    assert figures["escalation_rate"] == {"conversations": 1, "rate": 0.5}


def test_harm_is_a_share_and_described_even_if_the_scenario_passed(book: FlowBook) -> None:
    harmful = played("a", turn(ADD), harm=["cancel_order {}"])
    figures = summary(book, [harmful, played("b", passed=False, harm=["x"]), played("c")], 1)
    assert figures["harm"] == {"conversations": 2, "rate": pytest.approx(2 / 3)}
    assert [(each["id"], each["harm"]) for each in figures["harms"]] == [("a", ["cancel_order {}"])]
    assert [(each["id"], each["harm"]) for each in figures["misses"]] == [("b", ["x"])]


def test_model_time_is_given_by_turn_and_by_call(book: FlowBook) -> None:
    turns = [turn(ADD, calls=(time, 10.0)) for time in range(101)]
    times = summary(book, [played("a", *turns)], 1)["milliseconds"]
    assert times["turn"] == {"p50": 60.0, "p95": 105.0, "p99": 109.0}
    assert times["call"]["p50"] == 10.0
    assert summary(book, [played("a", turns[0])], 1)["milliseconds"]["turn"] == {}


def test_coverage_counts_the_outcomes_of_messages_and_events(book: FlowBook) -> None:
    event = EventReport(event="order_submitted", subject="SO-1001", actions=[SHIP])
    coverage = summary(book, [played("a", turn(ADD, ASK, events=[event]))], 1)["coverage"]
    assert coverage["actions"] == 2 / len(book.actions)
    assert set(coverage["actions_missing"]) == set(book.actions) - {"add_to_cart", "assign_courier"}
    every = sum(len(action.outcomes) for action in book.actions.values())
    assert coverage["outcomes"] == 2 / every
    assert len(coverage["outcomes_missing"]) == every - 2
    assert "order.add_to_cart.added" not in coverage["outcomes_missing"]
    assert "shipping.assign_courier.courier_assigned" not in coverage["outcomes_missing"]
    assert "order.add_to_cart.out_of_stock" in coverage["outcomes_missing"]


def test_misses_have_their_transcript(book: FlowBook) -> None:
    miss = played("a", turn(ADD, ASK, message="a kettle"), repeat=1, passed=False)
    figures = summary(book, [played("a"), miss], 2)
    assert figures["misses"] == [
        {
            "id": "a",
            "title": "Tea",
            "repeat": 1,
            "differences": ["table cases: no row {}"],
            "harm": [],
            "transcript": [
                "customer: a kettle",
                '  [add_to_cart {"product": "kettle"} → added]',
                "  agent: Added 1 × kettle.",
                "  [check_out {} → asked for address]",
            ],
        }
    ]
    json.dumps(figures)


def test_misses_are_left_out_on_request(book: FlowBook) -> None:
    results = [played("a", passed=False), played("b", harm=["x"])]
    figures = summary(book, results, 1, with_misses=False)
    assert not {"misses", "harms"} & figures.keys()
    assert figures["pass^1"]["rate"] == 0.5


def test_no_results_have_figures_too(book: FlowBook) -> None:
    figures = summary(book, [], 1)
    assert figures["pass^1"] == interval(0, 0)
    assert (figures["questions"], figures["harm"]["rate"]) == (0.0, 0.0)


def test_transcript_includes_events() -> None:
    event = EventReport(event="order_submitted", subject="SO-1001", actions=[SHIP])
    lines = transcript(played("a", turn(ADD, events=[event])))
    assert lines[-1] == '  [assign_courier {"order": "SO-1001"} → courier_assigned]'


def test_junit_has_a_case_per_playthrough_and_its_failure(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    miss = played("a", turn(ADD, message="<b> & \x1b"), repeat=1, passed=False, workflow="order")
    write_junit(path, [played("a", turn(ADD), turn(ADD), workflow="order"), miss, played("b")])
    suite = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    cases = [(case.get("classname"), case.get("name"), case.get("time")) for case in suite]
    assert cases == [
        ("order", "a[0]", "1.000"),
        ("order", "a[1]", "0.500"),
        ("scenarios", "b[0]", "0.000"),
    ]
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "table cases: no row {}"
    assert failure.text is not None
    lines = failure.text.splitlines()
    assert lines[:3] == ["table cases: no row {}", "", "customer: <b> & "]
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["a[1]"]


def test_page_has_escaped_text_and_failures_first(book: FlowBook, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    miss = played("b", turn(ADD, message="<script>x</script>"), passed=False, workflow="order")
    harmful = played("c", harm=["cancel <order>"])
    results = [played("a", workflow="order"), harmful, miss]
    write_html(path, summary(book, results, 1), results)
    page = path.read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "customer: &lt;script&gt;x&lt;/script&gt;" in page
    assert "cancel &lt;order&gt;" in page
    assert "workflow: order" in page
    assert "66.7 %" in page
    summaries = [page.index(f"<summary>{name} [0]") for name in ("b", "c", "a")]
    assert summaries == sorted(summaries)


@pytest.mark.parametrize("write", [html, junit])
def test_file_that_cannot_be_written_is_named(
    book: FlowBook, tmp_path: Path, write: Callable[[Path, list[Playthrough], FlowBook], None]
) -> None:
    for path, reason in ((tmp_path / "no" / "file", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError) as caught:
            write(path, [played("a")], book)
        assert str(caught.value).startswith(f"{path}: {reason}")
