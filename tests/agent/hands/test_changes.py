"""Tests of pages that change: the agent goes on, or hands over."""

import shutil
import signal
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
from tests.support.conversations import CHINESE, ENGLISH, Conversation
from tests.support.hands import Workplace, differences, play, play_in_database, rows, workplace
from tests.support.shop import CODE
from tests.support.waiting import SECONDS

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import (
    CartLine,
    Case,
    CaseEvent,
    CaseKind,
    CasePicture,
    Checkout,
    Order,
    Product,
    ScreenWork,
)
from gpt2flow.storefront import disturbances

_PNG = b"\x89PNG\r\n\x1a\n"
ORDER = Conversation(
    "en",
    {
        text: ENGLISH.script[text]
        for text in ("I'm Ann, ann@example.com", CODE, "an umbrella to 9 Ash Rd", "yes, do")
    },
)
CHINESE_ORDER = Conversation("zh", dict(list(CHINESE.script.items())[:5]))


def stops(place: Workplace) -> list[str]:
    """Return the reasons for which the agent stopped."""
    return [each.text or "" for each in place.rows(CaseEvent) if each.change == "stopped"]


def assert_handed_over(place: Workplace, *reasons: str) -> None:
    """Check that a person has each stop, with a picture."""
    found = stops(place)
    assert len(found) == len(reasons), found
    for reason, text in zip(reasons, found, strict=True):
        assert reason in text
    assert {case.kind for case in place.rows(Case)} == {CaseKind.HAND_OVER}
    pictures = place.rows(CasePicture)
    assert len(pictures) == len(reasons)
    assert all(picture.content.startswith(_PNG) for picture in pictures)
    assert place.rows(ScreenWork) == []


@pytest.mark.parametrize(
    "conversation, name",
    [(ORDER, "button 'Add to cart'"), (CHINESE_ORDER, "button '加入购物车'")],
    ids=["en", "zh"],
)
def test_another_label_stops_the_agent_before_anything_is_pressed(
    path: Path, conversation: Conversation, name: str
) -> None:
    with workplace(path, disturb=("renamed-label",)) as place:
        with place.agent(conversation) as agent:
            for number, text in enumerate(conversation.messages[:4]):
                agent.handle("s", text, str(number))
        # The checkout of the same message is left alone: it would lack what was not added.
        assert_handed_over(place, name)
        assert place.rows(CartLine) == []


def test_another_order_of_fields_changes_nothing(path: Path) -> None:
    twin = Path(shutil.copy(path, path.with_name("twin.sqlite")))
    expected = play_in_database(twin, ORDER)
    with workplace(path, disturb=("moved-fields",)) as place, place.agent(ORDER) as agent:
        assert play(agent, ORDER) == expected
    assert differences(rows(path), rows(twin)) == []


def test_a_question_that_was_not_recorded_is_a_person_s(path: Path) -> None:
    with workplace(path, disturb=("extra-question",)) as place:
        with place.agent(ORDER) as agent:
            outcomes = play(agent, ORDER)
        assert "summarised" not in outcomes
        assert_handed_over(place, "the page asks for How did you hear of us?")
        assert place.rows(Checkout) == []
        assert place.rows(Order) == []
        assert len(place.rows(CartLine)) == 1


def test_a_press_whose_answer_is_late_is_read_and_not_repeated(path: Path) -> None:
    """The shop acts at once, and answers after the agent's limit."""
    twin = Path(shutil.copy(path, path.with_name("twin.sqlite")))
    expected = play_in_database(twin, ORDER)
    with workplace(path, disturb=("slow-page",), disturb_seconds=6.0) as place:
        place.settings["page_seconds"] = 3.0
        with place.agent(ORDER) as agent:
            assert play(agent, ORDER) == expected
        assert stops(place) == []
    assert differences(rows(path), rows(twin)) == []


def test_an_ended_session_is_signed_in_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbances, "_ENDING", 11)
    twin = Path(shutil.copy(path, path.with_name("twin.sqlite")))
    expected = play_in_database(twin, ORDER)
    with workplace(path, disturb=("ended-session",)) as place, place.agent(ORDER) as agent:
        assert play(agent, ORDER) == expected
    assert differences(rows(path), rows(twin)) == []


def test_a_session_that_never_lasts_is_handed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disturbances, "_ENDING", 2)
    with workplace(path, disturb=("ended-session",)) as place:
        with place.agent(ORDER) as agent:
            assert agent.handle("s", ORDER.messages[0], "0").actions[0].action == "escalate"
        assert_handed_over(place, "register: ")


def test_a_price_that_changed_is_confirmed_anew(path: Path) -> None:
    with workplace(path) as place, place.agent(ORDER) as agent:
        for number, text in enumerate(ORDER.messages[:-1]):
            agent.handle("s", text, str(number))
        place.write(lambda db: setattr(db.get_one(Product, "umbrella"), "price", Decimal("99.00")))
        [action] = agent.handle("s", ORDER.messages[-1], "last").actions
        assert action.outcome == "changed"
        assert "99.00" in action.messages[0].text
        assert place.rows(Order) == []


def test_a_browser_that_dies_is_started_again(path: Path) -> None:
    with workplace(path) as place, place.agent(ORDER) as agent:
        outcomes = list[str | None]()
        for number, text in enumerate(ORDER.messages):
            report = agent.handle("s", text, str(number))
            outcomes += [action.outcome for action in report.actions]
            kill_browser()
        assert outcomes == ["code_sent", "verified", "added", "summarised", "submitted"]
        assert stops(place) == []


def kill_browser() -> None:
    """Kill the Chromium that this process has started."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in child.name() and "--type=" not in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
                child.wait(SECONDS)


def test_a_stopped_event_is_a_person_s_and_keeps_the_order(
    path: Path, agent_that_cannot_assign: None
) -> None:
    del agent_that_cannot_assign
    with workplace(path) as place, place.agent(ORDER) as agent:
        play(agent, ORDER)
        [order] = place.rows(Order)
        [case] = place.rows(Case)
        assert (case.kind, case.order_id) == (CaseKind.FAILURE, order.id)
        assert "button 'Assign courier to it'" in stops(place)[0]


@pytest.fixture
def agent_that_cannot_assign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recordings in which the courier's button has another name."""
    from gpt2flow.agent.hands import recording

    folder = tmp_path / "flows"
    shutil.copytree(recording.built_in_flows(), folder)
    path = folder / "shipping" / "screens.en.yaml"
    content = path.read_text(encoding="utf-8")
    path.write_text(content.replace("name: Assign courier", "name: Assign courier to it"))
    monkeypatch.setattr(recording, "built_in_flows", lambda: folder)


def test_an_order_of_somebody_else_is_never_touched(path: Path) -> None:
    """Facts and pages are those of one customer alone."""
    with workplace(path) as place:
        with place.agent(ORDER) as agent:
            play(agent, ORDER)
        other = Conversation(
            "en",
            {
                "I'm Bo, bo@example.com": [
                    Choice("register", {"name": "Bo", "contact": "bo@example.com"})
                ],
                CODE: [Choice("verify", {"code": CODE})],
                "cancel SO-1001": [Choice("cancel_order", {"order": "SO-1001"})],
            },
            session="bo",
        )
        with place.agent(other) as agent:
            assert play(agent, other)[-1] in ("no_orders", "unknown_order")
        [order] = place.rows(Order)
        assert order.status != "cancelled"


def test_a_model_without_a_plan_leaves_the_screens_alone(path: Path) -> None:
    with workplace(path) as place, place.agent(Conversation("en", {"hi": ["greet"]})) as agent:
        assert isinstance(agent, Agent)
        assert agent.handle("s", "hi", "0").actions[0].outcome == "greeted"
        assert place.rows(ScreenWork) == []
