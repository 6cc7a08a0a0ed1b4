"""Tests of all four workflows on screens, against the database."""

import shutil
from pathlib import Path

import pytest
from tests.support.conversations import CHINESE, ENGLISH, Conversation
from tests.support.hands import Workplace, differences, play, play_in_database, rows, workplace
from tests.support.shop import CODE

from gpt2flow.agent.shop import CaseEvent, ExecutedAction, ScreenWork


@pytest.mark.parametrize("conversation", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_the_workflows_end_in_the_same_rows_as_without_a_browser(
    path: Path, conversation: Conversation
) -> None:
    twin = Path(shutil.copy(path, path.with_name("twin.sqlite")))
    expected = play_in_database(twin, conversation)
    with workplace(path) as place, place.agent(conversation) as agent:
        outcomes = play(agent, conversation)
        assert [event.text for event in place.rows(CaseEvent) if event.change == "stopped"] == []
        assert outcomes == expected
    assert differences(rows(path), rows(twin)) == []
    assert carried_out_on_screens(place) >= len(conversation.script)


def carried_out_on_screens(place: Workplace) -> int:
    """Return the number of actions that the shop's forms carried out."""
    return len([each for each in place.rows(ExecutedAction) if each.key.startswith("web/")])


def test_a_report_has_what_the_shop_has_sent(path: Path) -> None:
    with workplace(path) as place, place.agent(ENGLISH) as agent:
        [action] = agent.handle("s", ENGLISH.messages[0], "0").actions
        [sent] = action.messages
        assert (sent.to, CODE in sent.text) == ("ann@example.com", True)
        assert [m.to for m in agent.handle("s", ENGLISH.messages[1], "1").messages] == [None]


def test_what_is_finished_leaves_no_work(path: Path) -> None:
    with workplace(path) as place, place.agent(ENGLISH) as agent:
        agent.handle("s", ENGLISH.messages[0], "0")
        assert place.rows(ScreenWork) == []
        agent.handle("s", ENGLISH.messages[0], "0")
    assert carried_out_on_screens(place) == 1
