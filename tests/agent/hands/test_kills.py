"""Kills of an agent that works on screens, against the database.

`KILLS` and `SEED` choose how many, and when: `make kills-browser` does sixty.
"""

import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.support.agent_process import AgentUnderTest
from tests.support.conversations import CHINESE, ENGLISH, Conversation
from tests.support.hands import Workplace, differences, rows, workplace

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.shop import CaseEvent, ScreenWork

pytestmark = pytest.mark.process

KILLS, SEED = int(os.environ.get("KILLS", "2")), int(os.environ.get("SEED", "17"))
# Messages of a short run.
_SHORT, _MANY_KILLS = 9, 20
# In a short run, the English conversation is left to `test_workflows`, which kills nothing.
_CONVERSATIONS = [ENGLISH, CHINESE] if KILLS >= _MANY_KILLS else [CHINESE]
# An action on the screens takes less, even with the start of the browser.
_LONGEST_SECONDS = 5.0


def timeless(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a shop without what depends on the time.

    The shop and the agent's sweep may both try a refund, which is made once.
    """
    return {
        table: sorted(
            (
                {k: v for k, v in row.items() if not isinstance(v, datetime) and k != "attempts"}
                for row in found
            ),
            key=repr,
        )
        for table, found in rows(path).items()
    }


def kill_on_the_way(
    place: Workplace, conversation: Conversation, kills: list[int], random: Random
) -> list[str]:
    """Play a conversation with kills, and return the outcomes.

    Args:
        place: Shop that the agent works in.
        conversation: Messages.
        kills: Number of kills while each message is handled.
        random: Source of the moments.
    """
    token, outcomes = str(place.browser.token_file), list[str]()
    messages = conversation.messages
    agent = AgentUnderTest(str(place.path), shop=place.shop.url, token=token)
    for number, text in enumerate(messages):
        for _ in range(kills[number]):
            agent.send("s", str(number), text)
            time.sleep(random.uniform(0.0, _LONGEST_SECONDS))
            agent.kill()
            agent = AgentUnderTest(str(place.path), shop=place.shop.url, token=token)
        outcomes += agent.handle("s", str(number), text)
    agent.close()
    return outcomes


@pytest.mark.timeout(150 + 20 * KILLS)
@pytest.mark.parametrize("conversation", _CONVERSATIONS, ids=lambda each: each.language)
def test_a_kill_at_any_point_loses_nothing_and_repeats_nothing(
    path: Path, conversation: Conversation
) -> None:
    if KILLS < _MANY_KILLS:
        script = dict(list(conversation.script.items())[:_SHORT])
        conversation = Conversation(conversation.language, script)
    random, number = Random(f"{SEED}{conversation.language}"), len(conversation.script)
    kills = [0] * number
    for _ in range(KILLS // len(_CONVERSATIONS)):
        kills[random.randrange(number)] += 1
    twin = Path(shutil.copy(path, path.with_name("twin.sqlite")))
    with AgentUnderTest(str(twin)) as agent:
        expected = [
            outcome
            for number, text in enumerate(conversation.messages)
            for outcome in agent.handle("s", str(number), text)
        ]
    with workplace(path, utc_now) as place:
        found = kill_on_the_way(place, conversation, kills, random)
        assert [e.text for e in place.rows(CaseEvent) if e.change == "stopped"] == []
        assert found == expected
        assert place.rows(ScreenWork) == []
    assert differences(timeless(path), timeless(twin)) == []
